/**
 * Who a request comes from, before any handler sees it. Nothing answers without a key where keys are set, but the rows
 * of the table that say so: what nobody thought of, an unknown path as well, is closed.
 *
 * A key comes as `Authorization: Bearer`, as Anthropic's `x-api-key`, or, since browsers can send no headers with a
 * WebSocket, as the subprotocol `openai-insecure-api-key.<key>` that OpenAI's client offers.
 *
 * Absent here on purpose: keys in URLs, which end up in logs and histories.
 *
 * @module
 */

import type { Context } from "hono";
import { createMiddleware } from "hono/factory";
import { matchedRoutes } from "hono/route";
import { ANYBODY, type Caller, STRANGER } from "./caller.ts";
import { ApiError } from "./errors.ts";
import type { KeyRing } from "./keys.ts";
import { type ApiEnv, type Route, rowName } from "./route.ts";

/** What a WebSocket's subprotocol with a key begins with. */
export const KEY_PROTOCOL = "openai-insecure-api-key.";

/** What recognising needs. */
export interface RecogniseOptions {
  /** Without keys, everybody is the same caller. */
  keys: KeyRing | undefined;
  /** All rows that are mounted. */
  routes: readonly Route[];
  /** Whether one of these names is that of the served model. */
  serves: (model: string) => boolean;
}

/** Sets the caller of each request, or refuses it: without a key, with a wrong one, or with one for other models. */
export function recognise({ keys, routes, serves }: RecogniseOptions) {
  const open = new Set(routes.flatMap(({ open, method, path }) => open ? [rowName(method, path)] : []));
  return createMiddleware<ApiEnv>(async (c, next) => {
    const caller = keys === undefined ? ANYBODY : await callerOf(c, keys, open);
    if (caller.models && !caller.models.some(serves)) throw notAllowed(caller);
    c.set("caller", caller);
    c.get("origin").caller = caller;
    await next();
  });
}

async function callerOf(c: Context<ApiEnv>, keys: KeyRing, open: ReadonlySet<string>): Promise<Caller> {
  const token = tokenOf(c);
  const caller = token === undefined ? undefined : await keys.authenticate(token);
  if (caller !== undefined) return caller;
  if (open.has(rowOf(c))) return STRANGER;
  throw token === undefined ? noKey() : wrongKey();
}

/** The row that will answer: of all that matched, the first that is an endpoint's. */
function rowOf(c: Context<ApiEnv>): string {
  const row = matchedRoutes(c).find(({ method }) => method !== "ALL");
  return row ? rowName(row.method, row.path) : "";
}

/** The key that a request shows, if it shows one. */
function tokenOf(c: Context): string | undefined {
  const [, bearer] = /^bearer +(\S+)$/i.exec(c.req.header("authorization")?.trim() ?? "") ?? [];
  return bearer ?? c.req.header("x-api-key") ?? protocolToken(c.req.header("sec-websocket-protocol"));
}

function protocolToken(offered = ""): string | undefined {
  const protocols = offered.split(",").map((protocol) => protocol.trim());
  return protocols.find((protocol) => protocol.startsWith(KEY_PROTOCOL))?.slice(KEY_PROTOCOL.length);
}

function noKey(): ApiError {
  return refusal("expected a key, as Authorization: Bearer or x-api-key, got none", 'Bearer realm="llamero"');
}

/** The refusal of a key that is not in force, whatever the reason. */
export function wrongKey(): ApiError {
  return refusal("the key is not one of this server's", 'Bearer realm="llamero", error="invalid_token"');
}

function refusal(message: string, challenge: string): ApiError {
  const headers = { "www-authenticate": challenge };
  return new ApiError(401, { code: "invalid_api_key", message }, { headers });
}

function notAllowed({ name }: Caller): ApiError {
  return new ApiError(403, {
    type: "permission_error",
    code: "model_not_allowed",
    message: `the key ${name} may use other models than the one that is served here`,
  });
}
