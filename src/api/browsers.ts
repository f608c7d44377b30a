/**
 * What browsers are told: which pages elsewhere may read replies (none, unless an operator names them), and to take
 * nothing for what it is not.
 *
 * Keys come in headers, never in cookies, so no page is allowed credentials. `Strict-Transport-Security` is left to
 * whoever owns the name: it would outlive a certificate that was only tried.
 *
 * @module
 */

import type { MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { IGNORED_HEADER } from "./ignored.ts";

/** Seconds for which a browser remembers what a page may do. */
const PREFLIGHT_S = 600;

/** What pages elsewhere may read besides the body. */
const EXPOSED = [
  "x-request-id",
  "retry-after",
  "retry-after-ms",
  "www-authenticate",
  IGNORED_HEADER,
  ...["requests", "tokens"].flatMap((what) =>
    ["limit", "remaining", "reset"].map((part) => `x-ratelimit-${part}-${what}`)
  ),
];

/** Headers of each response. */
const SAFE_HEADERS = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
};

/** Lets the pages of `origins` read replies; nobody where there are none. */
export function pages(origins: readonly string[] = []): MiddlewareHandler {
  if (origins.length === 0) return (_c, next) => next();
  const origin = origins.map((page) => new URL(page).origin);
  return cors({ origin, exposeHeaders: EXPOSED, maxAge: PREFLIGHT_S });
}

/** Sets the headers of each response. */
export const safeHeaders: MiddlewareHandler = async function safeHeaders(c, next) {
  for (const [name, value] of Object.entries(SAFE_HEADERS)) c.header(name, value);
  await next();
};
