/**
 * WebSocket on `/v1/responses`: any number of interleaved responses on one socket, each with exactly one terminal event.
 * A refused frame is answered by an error event and the socket stays; closing the socket cancels what runs.
 *
 * A socket's `send` never waits, so a reader that is slower than the model would grow memory without limit. Each response
 * therefore stops taking events from the engine while too much is unsent, and a socket that stays full is closed.
 *
 * Absent here on purpose: the upgrade itself, which belongs to the runtime and is handed in.
 *
 * @module
 */

import type { WSContext, WSEvents } from "hono/ws";
import type { DoneEvent } from "../engine/engine.ts";
import {
  type CreateFrame,
  parseClientFrame,
  ProtocolError,
  type ResponseEnd,
  responseUsage,
  ResponseWriter,
  type ServerEvent,
} from "../protocol/mod.ts";
import { ApiError } from "./errors.ts";
import type { Origin } from "./observe.ts";
import type { Service } from "./service.ts";
import { pause } from "./timing.ts";

/** Limits of one socket. */
export interface SocketLimits {
  /** Longest text frame, in UTF-16 code units. */
  maxFrameLength: number;
  /** Most responses that may be in progress at once. */
  maxResponses: number;
  /** Unsent bytes above which responses pause. */
  highWaterBytes: number;
  /** Unsent bytes at which they go on. */
  lowWaterBytes: number;
  /** Unsent bytes above which the socket is closed; events that do not pause (errors) meet this limit. */
  maxUnsentBytes: number;
  /** Longest pause of a response before the socket is closed. */
  stallMs: number;
  /** How often a paused response looks again: sockets have no event for it. */
  pollMs: number;
}

/** The limits of a served socket. */
export const SOCKET_LIMITS: Readonly<SocketLimits> = {
  maxFrameLength: 4 * 1024 * 1024,
  maxResponses: 16,
  highWaterBytes: 256 * 1024,
  lowWaterBytes: 64 * 1024,
  maxUnsentBytes: 16 * 1024 * 1024,
  stallMs: 30_000,
  pollMs: 20,
};

/** Most ended responses of a socket whose cancelling is still answered by silence instead of an error. */
const MAX_REMEMBERED = 256;
/** Close code for a reader that is too slow: try again later. */
const CLOSE_TRY_AGAIN = 1013;

/** The few things that a session does with a socket. */
export interface TextSocket {
  /** Whether `send` may be called. */
  readonly isOpen: boolean;
  /** Bytes that were sent and have not left. */
  readonly bufferedAmount: number;
  send(text: string): void;
  close(code: number, reason: string): void;
}

/** Hono's events of one upgraded connection. */
export function socketEvents(
  service: Service,
  origin: Origin,
  limits: SocketLimits,
): WSEvents<{ bufferedAmount: number }> {
  let session: ResponsesSession | undefined;
  return {
    onOpen: (_event, ws) => session = new ResponsesSession({ service, origin, limits, socket: textSocket(ws) }),
    onMessage: (event) => session?.receive(event.data),
    onClose: () => session?.end(),
    onError: () => session?.end(),
  };
}

function textSocket(ws: WSContext<{ bufferedAmount: number }>): TextSocket {
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

/** The parts of a session. */
export interface SessionOptions {
  service: Service;
  /** Of the request that opened the socket. */
  origin: Origin;
  socket: TextSocket;
  limits: SocketLimits;
}

/** What happens on one socket. */
export class ResponsesSession {
  readonly #service: Service;
  readonly #origin: Origin;
  readonly #socket: TextSocket;
  readonly #limits: SocketLimits;
  readonly #running = new Map<string, AbortController>();
  readonly #ended = new Set<string>();
  readonly #left = new AbortController();
  #errors = 0;

  /** A session on an open socket. */
  constructor({ service, origin, socket, limits }: SessionOptions) {
    this.#service = service;
    this.#origin = origin;
    this.#socket = socket;
    this.#limits = limits;
  }

  /** Takes one frame. */
  receive(data: unknown): void {
    if (this.#left.signal.aborted) return;
    try {
      const frame = parseClientFrame(this.#textOf(data));
      if (frame.type === "response.create") this.#create(frame);
      else this.#cancel(frame.responseId);
    } catch (error) {
      const { code, message, param } = this.#service.fail(this.#origin.requestId, error).wire;
      this.#send([{ type: "error", code, message, param, sequence_number: this.#errors++ }]);
    }
  }

  /** Cancels everything; the socket is gone. */
  end(): void {
    this.#left.abort();
    for (const abort of this.#running.values()) abort.abort();
  }

  #textOf(data: unknown): string {
    if (typeof data !== "string") {
      throw new ProtocolError("invalid_json", "frame: expected text, got binary data");
    }
    const { maxFrameLength } = this.#limits;
    if (data.length <= maxFrameLength) return data;
    throw new ApiError(413, {
      code: "request_too_large",
      message: `frame: expected at most ${maxFrameLength} characters, got ${data.length}`,
    });
  }

  #create(frame: CreateFrame): void {
    this.#service.requireModel(frame.model);
    const { maxResponses } = this.#limits;
    if (this.#running.size >= maxResponses) {
      throw new ApiError(429, {
        type: "overloaded_error",
        code: "too_many_responses",
        message: `response.create: expected at most ${maxResponses} responses in progress, got one more`,
      });
    }
    const { modelId: model } = this.#service;
    const writer = new ResponseWriter(frame, { id: this.#service.newId(), createdAt: this.#service.now(), model });
    const abort = new AbortController();
    this.#running.set(writer.responseId, abort);
    void this.#respond(frame, writer, abort.signal);
  }

  #cancel(responseId: string): void {
    const abort = this.#running.get(responseId);
    if (abort) return abort.abort();
    // A cancel that crosses the terminal event on its way is no mistake of the client.
    if (this.#ended.has(responseId)) return;
    throw new ApiError(404, {
      code: "response_not_found",
      param: "response_id",
      message: "response_id: expected a response of this socket, got another",
    });
  }

  async #respond(frame: CreateFrame, writer: ResponseWriter, signal: AbortSignal): Promise<void> {
    this.#send(writer.start());
    try {
      for await (const event of this.#service.reply(this.#origin, frame, signal)) {
        if (event.type === "text") this.#send(writer.text(event.text));
        if (event.type === "done") this.#send(writer.end(endOf(event)));
        await this.#drained(signal);
      }
    } catch (error) {
      const { code, message } = this.#service.fail(this.#origin.requestId, error).wire;
      this.#send(writer.end({ status: "failed", error: { code: code ?? "failed", message } }));
    } finally {
      this.#forget(writer.responseId);
    }
  }

  #forget(responseId: string): void {
    this.#running.delete(responseId);
    this.#ended.add(responseId);
    const [oldest] = this.#ended;
    if (this.#ended.size > MAX_REMEMBERED) this.#ended.delete(oldest!);
  }

  /** Waits while the reader lags behind; a reader that does not catch up loses its socket. */
  async #drained(signal: AbortSignal): Promise<void> {
    const { highWaterBytes, lowWaterBytes, stallMs, pollMs } = this.#limits;
    if (this.#socket.bufferedAmount <= highWaterBytes) return;
    const polls = Math.ceil(stallMs / pollMs);
    for (let poll = 0; this.#socket.bufferedAmount > lowWaterBytes && !signal.aborted; poll++) {
      if (poll >= polls) return this.#drop("reader is too slow");
      await pause(pollMs, signal);
    }
  }

  #send(events: readonly ServerEvent[]): void {
    for (const event of events) {
      if (!this.#socket.isOpen || this.#left.signal.aborted) return;
      this.#socket.send(JSON.stringify(event));
    }
    if (this.#socket.bufferedAmount > this.#limits.maxUnsentBytes) this.#drop("too much is unread");
  }

  #drop(reason: string): void {
    if (this.#socket.isOpen) this.#socket.close(CLOSE_TRY_AGAIN, reason);
    this.end();
  }
}

function endOf({ reason, usage }: DoneEvent): ResponseEnd {
  const status = ({ stop: "completed", length: "incomplete", cancelled: "cancelled" } as const)[reason];
  return { status, usage: responseUsage(usage.promptTokens, usage.completionTokens) };
}
