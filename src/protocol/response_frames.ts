/**
 * The WebSocket mode of OpenAI's Responses API: frames that a client sends, and what the server sends besides the events
 * of responses.
 *
 * Additions to OpenAI's protocol: `response.cancel`; `response.resume`, which goes on with a response from another
 * socket; `on_disconnect` of `response.create`, by which a response outlives its socket; `session.update`, by which a
 * client that cannot send headers shows its key, and one that wants a heartbeat asks for it.
 *
 * Absent here on purpose: sockets.
 *
 * @module
 */

import { z } from "zod";
import { check, integerIn, parseJson, ProtocolError, text, wanted } from "./check.ts";
import type { WireError } from "./error.ts";
import { MAX_ID_LENGTH } from "./items.ts";
import { parseResponseRequest, type ResponseRequest } from "./responses.ts";
import { flag } from "./sampling.ts";

/** Shortest and longest time between two pings that a client may ask for, in milliseconds. */
export const HEARTBEAT_RANGE_MS = [1_000, 600_000] as const;

/** A request for a response. */
export interface CreateFrame {
  type: "response.create";
  request: ResponseRequest;
  /** Responses of one lane come one after another, and their events name it. */
  streamId?: string;
  /** What becomes of the response when the socket closes. */
  onDisconnect: "cancel" | "continue";
}

/** A request to end a response early. */
export interface CancelFrame {
  type: "response.cancel";
  responseId: string;
}

/** A request for the rest of a response's events. */
export interface ResumeFrame {
  type: "response.resume";
  responseId: string;
  /** Sequence number of the last event that came; -1 for all. */
  startingAfter: number;
}

/** What the client says of itself. */
export interface SessionFrame {
  type: "session.update";
  apiKey?: string;
  /** Milliseconds between two pings; 0 for none. */
  heartbeatMs?: number;
}

/** What a client may send. */
export type ClientFrame = CreateFrame | CancelFrame | ResumeFrame | SessionFrame;

const TYPES = ["response.create", "response.cancel", "response.resume", "session.update"] as const;
const id = text(1, MAX_ID_LENGTH);
const sequence = integerIn(-1, Number.MAX_SAFE_INTEGER);

const headSchema = z.object({
  type: z.enum(TYPES, wanted(TYPES.map((type) => `"${type}"`).join(" or "))),
  stream_id: id.nullish(),
}, wanted("an object"));
const cancelSchema = z.object({ response_id: id });
const resumeSchema = z.object({ response_id: id, starting_after: sequence.nullish() });
const createSchema = z.object({
  on_disconnect: z.enum(["cancel", "continue"], wanted('"cancel" or "continue"')).nullish(),
  generate: flag,
});
const [shortest, longest] = HEARTBEAT_RANGE_MS;
const pause = wanted(`0 or an integer from ${shortest} to ${longest}`);
const sessionSchema = z.object({
  api_key: text(1, 512).nullish(),
  heartbeat_ms: integerIn(0, longest).refine((ms) => ms === 0 || ms >= shortest, pause).nullish(),
});

/** A frame, and the lane that it names even if it is refused. */
export interface Received {
  streamId?: string;
  /** Throws a `ProtocolError` naming the first field that does not fit. */
  read(): ClientFrame;
}

/**
 * A text message as a frame that is still to be read, so that its refusal can name the lane.
 *
 * @throws {ProtocolError} when it is none at all.
 */
export function receiveFrame(message: string): Received {
  const value = parseJson(message);
  const { type, stream_id } = check(headSchema, value);
  const streamId = stream_id ?? undefined;
  return { streamId, read: () => readers[type](value, streamId) };
}

const readers: Record<ClientFrame["type"], (value: unknown, streamId?: string) => ClientFrame> = {
  "response.create": (value, streamId) => {
    const { on_disconnect, generate } = check(createSchema, value);
    const request = { ...parseResponseRequest(value), generate: generate ?? true };
    if (request.background) throw noBackground();
    return { type: "response.create", request, streamId, onDisconnect: on_disconnect ?? "cancel" };
  },
  "response.cancel": (value) => ({ type: "response.cancel", responseId: check(cancelSchema, value).response_id }),
  "response.resume": (value) => {
    const { response_id, starting_after } = check(resumeSchema, value);
    return { type: "response.resume", responseId: response_id, startingAfter: starting_after ?? -1 };
  },
  "session.update": (value) => {
    const { api_key, heartbeat_ms } = check(sessionSchema, value);
    return { type: "session.update", apiKey: api_key ?? undefined, heartbeatMs: heartbeat_ms ?? undefined };
  },
};

function noBackground(): ProtocolError {
  const message = 'background: expected false, as a socket has on_disconnect "continue" for it, got true';
  return new ProtocolError("unsupported_value", message, "background");
}

/** A refused frame, as OpenAI tells it over sockets. */
export interface SocketErrorEvent {
  type: "error";
  status: number;
  error: WireError & { retry_after_ms?: number };
  stream_id?: string;
}

/** What a client that asked for it learns of its socket. */
export interface SessionEvent {
  type: "session.updated";
  session: {
    id: string;
    heartbeat_ms: number;
    max_frame_length: number;
    max_responses: number;
    resume_window_ms: number;
  };
}

/** A sign of life. */
export interface PingEvent {
  type: "ping";
  /** Milliseconds since 1970. */
  time: number;
}
