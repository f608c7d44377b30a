/**
 * Two checks that keep web pages of other sites away from a server on somebody's own machine: the Host header against
 * DNS rebinding, the Origin header against requests across sites. Both are free for clients that are not browsers.
 *
 * Absent here on purpose: CORS headers (`browsers.ts` has them for allowed pages; others get no access at all) and keys.
 *
 * @module
 */

import type { Context, MiddlewareHandler } from "hono";
import { ApiError } from "./errors.ts";

/** Who may talk to the server besides loopback and address literals. */
export interface GuardOptions {
  /** Host names under which the server is reached, without port. */
  hosts?: readonly string[];
  /** Origins of web pages that may send requests, such as `https://chat.example`. */
  origins?: readonly string[];
}

/** Refuses foreign hosts, and foreign origins where a request could do something. */
export function guard({ hosts = [], origins = [] }: GuardOptions): MiddlewareHandler {
  const names = new Set(hosts.map((name) => name.toLowerCase()));
  const pages = new Set(origins.map((origin) => new URL(origin).origin));
  return async function guardRequest(c, next) {
    const host = hostOf(c);
    if (!host || !isOurs(host.hostname, names)) {
      throw new ApiError(403, {
        code: "host_not_allowed",
        message: "Host header: expected localhost, an IP address or a configured name, got another",
      });
    }
    if (acts(c) && !isOwnPage(c.req.header("origin"), host, pages)) {
      throw new ApiError(403, {
        code: "origin_not_allowed",
        message: "Origin header: expected a page of this server, got another site",
      });
    }
    await next();
  };
}

/** A Host header is `name[:port]`; anything that only a URL parser would accept is not one. */
function hostOf(c: Context): URL | undefined {
  const host = c.req.header("host") || new URL(c.req.url).host;
  return /^[\w.:[\]-]+$/.test(host) && URL.canParse(`http://${host}`) ? new URL(`http://${host}`) : undefined;
}

/** Rebinding needs a name that the attacker controls, so address literals are safe whatever they are. */
function isOurs(hostname: string, names: ReadonlySet<string>): boolean {
  const isAddress = hostname.startsWith("[") || /^\d+(\.\d+){3}$/.test(hostname);
  return isAddress || hostname === "localhost" || hostname.endsWith(".localhost") || names.has(hostname);
}

/** Whether a request does more than read: browsers send those across sites without asking first. */
function acts(c: Context): boolean {
  return !["GET", "HEAD"].includes(c.req.method) || c.req.header("upgrade") !== undefined;
}

/** Compares host and port, not the scheme, which a proxy in front may have changed. */
function isOwnPage(origin: string | undefined, host: URL, pages: ReadonlySet<string>): boolean {
  if (origin === undefined) return true;
  if (!URL.canParse(origin)) return false;
  const page = new URL(origin);
  return page.host === host.host || pages.has(page.origin);
}
