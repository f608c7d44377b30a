/**
 * What happens on one socket: any number of interleaved responses, each with exactly one terminal event; responses that
 * name the same lane (`stream_id`) come one after another. A refused frame is answered by an error event, and the socket
 * stays unless it is refused too often.
 *
 * A socket's `send` never waits, so a reader that is slower than the model would grow memory without limit. While too
 * much is unsent, events are not taken from a response's log, whose deltas then become longer; a socket that stays full
 * is closed.
 *
 * Close codes: 1000 idle, 1008 refused (no key, too many bad frames), 1009 frame too large, 1012 the server stops or the
 * socket is used up: come again, 1013 too slow or too many: come later.
 *
 * Absent here on purpose: the upgrade, timers; `tick` is called about once a second.
 *
 * @module
 */

import {
  type CreateFrame,
  type PingEvent,
  ProtocolError,
  receiveFrame,
  type ResumeFrame,
  type SessionEvent,
  type SessionFrame,
  type SocketErrorEvent,
} from "../protocol/mod.ts";
import { BoundedMemory } from "../sessions/response_memory.ts";
import type { ResponseRun } from "../sessions/response_run.ts";
import { type Responses, RESUME_WINDOW_MS } from "../sessions/responses.ts";
import type { Caller, Origin } from "./caller.ts";
import { ApiError, RETRY_AFTER_S } from "./errors.ts";
import { isOver } from "./keys.ts";
import { generation } from "./responses.ts";
import { type Service, stopping } from "./service.ts";
import type { SocketLoad } from "./socket_load.ts";
import { pause } from "./timing.ts";

/** Limits of sockets. */
export interface SocketLimits {
  /** Longest text frame, in UTF-16 code units. */
  maxFrameLength: number;
  /** Most responses that may be in progress at once, those that wait in their lane among them. */
  maxResponses: number;
  /** Most responses of one socket. */
  maxRequests: number;
  /** Most refused frames in a row. */
  maxBadFrames: number;
  /** Most sockets of one caller. */
  maxSockets: number;
  /** Longest time that a socket without a response in progress may be silent. */
  idleMs: number;
  /** Longest life of a socket; OpenAI has the same. */
  lifeMs: number;
  /** Longest time until a socket that was opened without a key shows one. */
  authMs: number;
  /** Unsent bytes above which events wait. */
  highWaterBytes: number;
  /** Unsent bytes at which they go on. */
  lowWaterBytes: number;
  /** Unsent bytes above which the socket is closed; events that do not wait (errors) meet this limit. */
  maxUnsentBytes: number;
  /** Unsent bytes of all sockets above which those that are above their high water are closed. */
  maxTotalUnsentBytes: number;
  /** Longest wait for a reader before the socket is closed. */
  stallMs: number;
  /** How often a wait for a reader looks again: sockets have no event for it. */
  pollMs: number;
}

/** The limits of a served socket. */
export const SOCKET_LIMITS: Readonly<SocketLimits> = {
  maxFrameLength: 4 * 1024 * 1024,
  maxResponses: 16,
  maxRequests: 10_000,
  maxBadFrames: 32,
  maxSockets: 256,
  idleMs: 10 * 60_000,
  lifeMs: 60 * 60_000,
  authMs: 10_000,
  highWaterBytes: 256 * 1024,
  lowWaterBytes: 64 * 1024,
  maxUnsentBytes: 16 * 1024 * 1024,
  maxTotalUnsentBytes: 256 * 1024 * 1024,
  stallMs: 30_000,
  pollMs: 20,
};

const CLOSE_IDLE = 1000;
const CLOSE_REFUSED = 1008;
const CLOSE_TOO_LARGE = 1009;
const CLOSE_RESTART = 1012;
const CLOSE_TRY_LATER = 1013;

/** The few things that a session does with a socket. */
export interface TextSocket {
  /** Whether `send` may be called. */
  readonly isOpen: boolean;
  /** Bytes that were sent and have not left. */
  readonly bufferedAmount: number;
  send(text: string): void;
  close(code: number, reason: string): void;
}

/** Whose key it is, if it is one. */
export type Authenticate = (key: string) => Promise<Caller | undefined>;

/** The parts of a session. */
export interface SessionOptions {
  service: Service;
  responses: Responses;
  /** Of the request that opened the socket. */
  origin: Origin;
  /** Set where the socket was opened without a key and has to show one in a frame. */
  authenticate?: Authenticate;
  socket: TextSocket;
  limits: SocketLimits;
  load: SocketLoad;
}

/** What happens on one socket. */
export class ResponsesSession {
  readonly #options: SessionOptions;
  readonly #memory = new BoundedMemory();
  readonly #left = new AbortController();
  readonly #openedAt: number;
  /** Responses that end with the socket. */
  readonly #owned = new Set<ResponseRun>();
  readonly #lanes = new Map<string, Promise<void>>();
  /** Who is known; while nobody is, only a key is taken. */
  #caller: Caller | undefined;
  /** As whose the socket is counted. */
  #counted: Caller | undefined;
  #authenticating: Promise<void> | undefined;
  #inProgress = 0;
  #requests = 0;
  #badFrames = 0;
  #usedAt: number;
  #heartbeatMs = 0;
  #pingedAt: number;
  /** Bytes that were sent and had not left when it was last looked at, which costs a call into the runtime. */
  #unsent = 0;
  /** Why the socket ends when nothing is in progress any more. */
  #retired: string | undefined;

  /** A session on an open socket. */
  constructor(options: SessionOptions) {
    this.#options = options;
    this.#openedAt = this.#usedAt = this.#pingedAt = options.service.clock();
    this.#take(options.origin.caller);
    if (!options.authenticate) this.#caller = this.#counted;
    options.service.closing.addEventListener("abort", this.#onClosing, { signal: this.#left.signal });
    if (options.service.closing.aborted) this.#onClosing();
  }

  /** Takes one frame. */
  receive(data: unknown): void {
    if (this.#left.signal.aborted) return;
    if (this.#authenticating) return void this.#authenticating.then(() => this.receive(data));
    const { service, limits: { maxFrameLength } } = this.#options;
    this.#usedAt = service.clock();
    let streamId: string | undefined;
    try {
      if (typeof data !== "string") throw new ProtocolError("invalid_json", "frame: expected text, got binary data");
      if (data.length > maxFrameLength) return this.#overflow(data.length);
      const received = receiveFrame(data);
      streamId = received.streamId;
      const frame = received.read();
      this.#badFrames = 0;
      if (frame.type === "session.update") return this.#update(frame);
      if (!this.#caller) throw noKey();
      if (frame.type === "response.create") this.#create(frame);
      else if (frame.type === "response.resume") this.#resume(frame, this.#caller);
      else this.#answer(this.#options.responses.end(this.#caller.id, frame.responseId));
    } catch (error) {
      this.#refuse(error, streamId);
    }
  }

  /** Looks at the clock. */
  tick(): void {
    if (this.#left.signal.aborted) return;
    const { idleMs, lifeMs, authMs } = this.#options.limits;
    const now = this.#options.service.clock();
    this.#count();
    if (!this.#caller && now - this.#openedAt >= authMs) return this.#drop(CLOSE_REFUSED, "no key was shown");
    if (this.#caller && isOver(this.#caller, now)) return this.#drop(CLOSE_REFUSED, "the key has ended");
    if (now - this.#openedAt >= lifeMs) this.#retire("the socket is too old");
    if (this.#inProgress === 0 && now - this.#usedAt >= idleMs) return this.#drop(CLOSE_IDLE, "idle");
    if (this.#heartbeatMs > 0 && now - this.#pingedAt >= this.#heartbeatMs) {
      this.#pingedAt = now;
      this.#tell({ type: "ping", time: now });
    }
  }

  /** The socket is gone: what belongs to it ends. */
  end(): void {
    if (this.#left.signal.aborted) return;
    this.#left.abort();
    const { load } = this.#options;
    load.unsent -= this.#unsent;
    if (this.#counted) load.close(this.#counted.id);
    for (const run of this.#owned) run.cancel();
  }

  readonly #onClosing = () => this.#retire("the server is stopping");

  #overflow(length: number): void {
    const message = `frame: expected at most ${this.#options.limits.maxFrameLength} characters, got ${length}`;
    this.#refuse(new ApiError(413, { code: "request_too_large", message }));
    this.#drop(CLOSE_TOO_LARGE, "the frame is too large");
  }

  /** Counts the socket as one of a caller who has not too many yet. */
  #take(caller: Caller): void {
    const { load, limits: { maxSockets } } = this.#options;
    if (this.#counted) load.close(this.#counted.id);
    this.#counted = load.open(caller.id, maxSockets) ? caller : undefined;
    if (this.#counted) return;
    this.#refuse(tooMany("too_many_sockets", `sockets: expected at most ${maxSockets}, got one more`));
    this.#drop(CLOSE_TRY_LATER, "too many sockets");
  }

  #update({ apiKey, heartbeatMs }: SessionFrame): void {
    const { authenticate } = this.#options;
    this.#heartbeatMs = heartbeatMs ?? this.#heartbeatMs;
    if (this.#caller) return this.#greet();
    if (!authenticate || apiKey === undefined) throw noKey();
    this.#authenticating = this.#identify(authenticate, apiKey);
  }

  async #identify(authenticate: Authenticate, key: string): Promise<void> {
    try {
      const caller = await authenticate(key);
      if (this.#left.signal.aborted) return;
      if (!caller) throw noKey();
      this.#take(caller);
      this.#caller = this.#counted;
      this.#greet();
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.#authenticating = undefined;
    }
  }

  #greet(): void {
    const { origin, limits } = this.#options;
    this.#tell({
      type: "session.updated",
      session: {
        id: origin.requestId,
        heartbeat_ms: this.#heartbeatMs,
        max_frame_length: limits.maxFrameLength,
        max_responses: limits.maxResponses,
        resume_window_ms: RESUME_WINDOW_MS,
      },
    });
  }

  #create(frame: CreateFrame): void {
    const { service, limits: { maxResponses, maxRequests } } = this.#options;
    if (service.closing.aborted) throw stopping();
    service.limits.request(this.#caller!);
    if (frame.request.model !== undefined) service.requireModel(frame.request.model);
    if (this.#inProgress >= maxResponses) {
      const message = `response.create: expected at most ${maxResponses} responses in progress, got one more`;
      throw tooMany("too_many_responses", message);
    }
    if (++this.#requests > maxRequests) this.#retire("the socket had too many requests");
    if (this.#retired !== undefined) throw tooMany("websocket_connection_limit_reached", this.#retired);
    this.#inProgress++;
    const { streamId } = frame;
    const turn = (streamId === undefined ? undefined : this.#lanes.get(streamId)) ?? Promise.resolve();
    const work = turn.then(() => this.#respond(frame)).finally(() => {
      if (streamId !== undefined && this.#lanes.get(streamId) === work) this.#lanes.delete(streamId);
      this.#inProgress--;
      this.#usedAt = service.clock();
      this.#settle();
    });
    if (streamId !== undefined) this.#lanes.set(streamId, work);
  }

  async #respond({ request, streamId, onDisconnect }: CreateFrame): Promise<void> {
    const { service, responses, origin } = this.#options;
    if (this.#left.signal.aborted) return;
    try {
      const parts = generation(service, { ...origin, caller: this.#caller! }, request);
      const run = await responses.create(request, { ...parts, memory: this.#memory, streamId });
      if (onDisconnect === "cancel") {
        this.#owned.add(run);
        void run.finished.then(() => this.#owned.delete(run));
        if (this.#left.signal.aborted) run.cancel();
      }
      await this.#relay(run, -1);
    } catch (error) {
      this.#refuse(error, streamId);
    }
  }

  #resume({ responseId, startingAfter }: ResumeFrame, caller: Caller): void {
    const { limits: { maxResponses }, responses } = this.#options;
    if (this.#inProgress >= maxResponses) {
      throw tooMany("too_many_responses", `response.resume: expected at most ${maxResponses}, got one more`);
    }
    this.#inProgress++;
    const relayed = responses.run(caller.id, responseId).then((run) => this.#relay(run, startingAfter));
    this.#answer(relayed.finally(() => {
      this.#inProgress--;
      this.#settle();
    }));
  }

  /** Sends the events of a response, from one on, as fast as they are read. */
  async #relay(run: ResponseRun, after: number): Promise<void> {
    const read = run.log.read(after, { holdsBack: !run.background });
    for await (const events of read) {
      for (const { json } of events) this.#send(json);
      await this.#drained();
      if (this.#left.signal.aborted) return;
    }
  }

  /** Tells of a failure of something that goes on by itself. */
  #answer(work: Promise<unknown>): void {
    work.catch((error) => this.#refuse(error));
  }

  /** Tells a client that and why it did not get what it asked for. */
  #refuse(error: unknown, streamId?: string): void {
    const { service, origin, limits: { maxBadFrames } } = this.#options;
    const { status, wire, headers } = service.fail(origin.requestId, error);
    const retryAfter = headers["retry-after"];
    this.#tell({
      type: "error",
      status,
      error: { ...wire, ...(retryAfter ? { retry_after_ms: Number(retryAfter) * 1000 } : {}) },
      ...(streamId === undefined ? {} : { stream_id: streamId }),
    });
    if (status === 401) this.#drop(CLOSE_REFUSED, "no key was shown");
    if (error instanceof ProtocolError && ++this.#badFrames > maxBadFrames) {
      this.#drop(CLOSE_REFUSED, "too many bad frames");
    }
  }

  /** Takes no more requests, and ends when nothing is in progress. */
  #retire(reason: string): void {
    this.#retired ??= reason;
    this.#settle();
  }

  #settle(): void {
    if (this.#retired !== undefined && this.#inProgress === 0) this.#drop(CLOSE_RESTART, this.#retired);
  }

  /** Waits while the reader lags behind; a reader that does not catch up loses its socket. */
  async #drained(): Promise<void> {
    const { service, limits } = this.#options;
    if (this.#unsent <= limits.highWaterBytes) return;
    const { signal } = this.#left;
    const deadline = service.clock() + limits.stallMs;
    while (this.#unsent > limits.lowWaterBytes && !signal.aborted) {
      if (service.clock() >= deadline) return this.#drop(CLOSE_TRY_LATER, "reader is too slow");
      await pause(limits.pollMs, signal);
      this.#count();
    }
  }

  #tell(event: SocketErrorEvent | SessionEvent | PingEvent): void {
    this.#send(JSON.stringify(event));
  }

  #send(json: string): void {
    const { socket, load, limits } = this.#options;
    if (!socket.isOpen || this.#left.signal.aborted) return;
    socket.send(json);
    this.#count();
    const tooMuch = this.#unsent > limits.maxUnsentBytes;
    const allTooMuch = load.unsent > limits.maxTotalUnsentBytes && this.#unsent > limits.highWaterBytes;
    if (tooMuch || allTooMuch) this.#drop(CLOSE_TRY_LATER, "too much is unread");
  }

  #count(): void {
    const { socket: { bufferedAmount }, load } = this.#options;
    if (this.#left.signal.aborted) return;
    load.unsent += bufferedAmount - this.#unsent;
    this.#unsent = bufferedAmount;
  }

  #drop(code: number, reason: string): void {
    const { socket } = this.#options;
    if (socket.isOpen) socket.close(code, reason);
    this.end();
  }
}

function noKey(): ApiError {
  return new ApiError(401, {
    code: "invalid_api_key",
    message: "api_key: expected a key in a session.update before anything else, got none or a wrong one",
  });
}

function tooMany(code: string, message: string): ApiError {
  return new ApiError(429, { type: "overloaded_error", code, message }, {
    headers: { "retry-after": String(RETRY_AFTER_S) },
  });
}
