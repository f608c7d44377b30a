/**
 * The WebSocket side of `/v1/responses`: the upgrade, and a session for each socket.
 *
 * Absent here on purpose: what a session does, and how a runtime upgrades, which is handed in.
 *
 * @module
 */

import type { Context, Handler } from "hono";
import type { UpgradeWebSocket, WSContext, WSEvents } from "hono/ws";
import type { Responses } from "../sessions/responses.ts";
import { STRANGER } from "./caller.ts";
import { ApiError } from "./errors.ts";
import { originOf } from "./observe.ts";
import type { ApiEnv, Route } from "./route.ts";
import { KEY_PROTOCOL } from "./recognise.ts";
import type { Service } from "./service.ts";
import { SocketLoad } from "./socket_load.ts";
import {
  type Authenticate,
  ResponsesSession,
  type SessionOptions,
  SOCKET_LIMITS,
  type SocketLimits,
  type TextSocket,
} from "./socket_session.ts";

/** How often a session looks at the clock, in milliseconds. */
const TICK_MS = 1000;

/** Options of `socketRoutes`. */
export interface SocketOptions {
  /** How the runtime upgrades to a WebSocket; without it there is no socket. */
  upgrade: UpgradeWebSocket<WebSocket> | undefined;
  /** Whose key it is that a socket shows which was opened without one; without keys, nobody has to. */
  authenticate?: Authenticate;
  limits?: SocketLimits;
}

/** The endpoint. */
export function socketRoutes(
  service: Service,
  responses: Responses,
  { upgrade, authenticate = nobody, limits = SOCKET_LIMITS }: SocketOptions,
): Route[] {
  if (!upgrade) return [];
  const load = new SocketLoad();
  const handler: Handler<ApiEnv> = async (c, next) => {
    const origin = originOf(c);
    const stranger = origin.caller === STRANGER;
    const parts = { service, responses, origin, limits, load, ...(stranger ? { authenticate } : {}) };
    const protocol = protocolOf(c);
    const options = protocol === undefined ? {} : { protocol };
    const response = await upgrade(() => socketEvents(parts), options as never)(c, next);
    return response ?? refusePlain();
  };
  return [{ method: "get", path: "/v1/responses", open: true, summary: "Responses over a WebSocket", handler }];
}

/** Takes no key. */
function nobody(): Promise<undefined> {
  return Promise.resolve(undefined);
}

function refusePlain(): never {
  throw new ApiError(426, {
    code: "upgrade_required",
    message: "/v1/responses: expected a WebSocket upgrade, got a plain request",
  }, { headers: { upgrade: "websocket" } });
}

/** The subprotocol that is agreed to: the first that is no key, if there is one. */
function protocolOf(c: Context): string | undefined {
  const offered = c.req.header("sec-websocket-protocol")?.split(",").map((protocol) => protocol.trim()) ?? [];
  return offered.find((protocol) => !protocol.startsWith(KEY_PROTOCOL)) ?? offered[0];
}

/** Hono's events of one upgraded connection. */
function socketEvents(parts: Omit<SessionOptions, "socket">): WSEvents<WebSocket> {
  let session: ResponsesSession | undefined;
  let ticks: ReturnType<typeof setInterval> | undefined;
  const end = () => {
    clearInterval(ticks);
    session?.end();
  };
  return {
    onOpen(_event, ws) {
      const opened = session = new ResponsesSession({ ...parts, socket: textSocket(ws) });
      ticks = setInterval(() => opened.tick(), TICK_MS);
    },
    onMessage: (event) => session?.receive(event.data),
    onClose: end,
    onError: end,
  };
}

function textSocket(ws: WSContext<WebSocket>): TextSocket {
  return {
    get isOpen() {
      return ws.readyState === 1;
    },
    get bufferedAmount() {
      return ws.raw?.bufferedAmount ?? 0;
    },
    send: (text) => ws.send(text),
    close: (code, reason) => ws.close(code, reason),
  };
}
