import assert from "node:assert/strict";
import { EngineError, type GenerateEvent } from "../engine/engine.ts";
import type { Item, PingEvent, ResponseEvent, SessionEvent, SocketErrorEvent } from "../protocol/mod.ts";
import { Conversations } from "../sessions/conversations.ts";
import { MemoryStore } from "../sessions/memory_store.ts";
import { Responses, RESUME_WINDOW_MS } from "../sessions/responses.ts";
import { ANYBODY } from "./caller.ts";
import type { LogEntry } from "./log.ts";
import { Service } from "./service.ts";
import {
  aborted,
  done,
  events,
  plainTemplate,
  said,
  type Script,
  ScriptedEngine,
  TIMINGS,
  untilAborted,
} from "./test_support.ts";
import { SocketLoad } from "./socket_load.ts";
import { ResponsesSession, type SessionOptions, SOCKET_LIMITS, type SocketLimits } from "./socket_session.ts";

type ServerEvent = ResponseEvent | SocketErrorEvent | SessionEvent | PingEvent;

const TERMINAL = ["response.completed", "response.incomplete", "response.cancelled", "response.failed"];

/** A socket whose reader takes what it is told to. */
class FakeSocket {
  readonly sent: ServerEvent[] = [];
  closed?: { code: number; reason: string };
  /** Bytes that the reader has taken; everything by default. */
  unread?: number;

  get isOpen(): boolean {
    return this.closed === undefined;
  }

  get bufferedAmount(): number {
    return this.unread ?? 0;
  }

  send(text: string): void {
    assert(this.isOpen);
    if (this.unread !== undefined) this.unread += text.length;
    this.sent.push(JSON.parse(text));
  }

  close(code: number, reason: string): void {
    this.closed = { code, reason };
  }
}

interface OpenOptions extends Partial<Omit<SessionOptions, "limits">> {
  limits?: Partial<SocketLimits>;
}

/** What sockets of one server share. */
function server(script: Script) {
  let id = 0;
  let now = 1_700_000_000_500;
  const log: LogEntry[] = [];
  const engine = new ScriptedEngine(script);
  const closing = new AbortController();
  const [clock, newId, store] = [() => now, () => String(++id), new MemoryStore({ clock: () => now })];
  const service = new Service({
    engine,
    template: plainTemplate,
    modelId: "org/model",
    aliases: [],
    clock,
    newId,
    store,
    log: (entry) => log.push(entry),
    closing: closing.signal,
  });
  const conversations = new Conversations<Item>(store, { clock, newId });
  const responses = new Responses({ store, conversations, modelId: "org/model", newId, clock });
  const load = new SocketLoad();
  const connect = ({ limits = {}, ...options }: OpenOptions = {}) => {
    const socket = new FakeSocket();
    const all = { ...SOCKET_LIMITS, pollMs: 1, ...limits };
    const origin = { requestId: "r", caller: ANYBODY };
    const session = new ResponsesSession({ service, responses, origin, socket, load, ...options, limits: all });
    return { session, socket };
  };
  return { connect, engine, log, load, closing, conversations, pass: (ms: number) => now += ms };
}

function open(script: Script, limits: Partial<SocketLimits> = {}) {
  const shared = server(script);
  return { ...shared, ...shared.connect({ limits }) };
}

function create(fields: Record<string, unknown> = {}): string {
  return JSON.stringify({ type: "response.create", model: "org/model", input: "hi", ...fields });
}

function cancel(id: string): string {
  return JSON.stringify({ type: "response.cancel", response_id: id });
}

function resume(id: string, after?: number): string {
  return JSON.stringify({ type: "response.resume", response_id: id, starting_after: after });
}

/** The events of one response after its terminal one has come: numbered without gaps, nothing after the end. */
async function ended(socket: FakeSocket, id: string): Promise<ResponseEvent[]> {
  const own = () =>
    socket.sent.filter((event) => "response_id" in event && event.response_id === id) as ResponseEvent[];
  while (!own().some(({ type }) => TERMINAL.includes(type))) await tick();
  await tick();
  assert.deepEqual(own().map(({ sequence_number }) => sequence_number), [...own().keys()]);
  assert.equal(own().findIndex(({ type }) => TERMINAL.includes(type)), own().length - 1);
  return own();
}

function tick(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}

function textOf(all: ResponseEvent[]): string {
  return all.map((event) => event.type === "response.output_text.delta" ? event.delta : "").join("");
}

function checkError(
  event: ServerEvent | undefined,
  status: number,
  code: string,
  param: string | null,
  message: RegExp,
  streamId?: string,
): void {
  assert(event?.type === "error", JSON.stringify(event));
  assert.deepEqual([event.status, event.error.code, event.error.param], [status, code, param], event.error.message);
  assert.match(event.error.message, message);
  assert.equal(event.stream_id, streamId);
}

/** Once the socket has been told something. */
async function told<T extends ServerEvent["type"]>(socket: FakeSocket, type: T, nth = 0) {
  const found = () => socket.sent.filter((event) => event.type === type)[nth];
  while (!found()) await tick();
  return found() as Extract<ServerEvent, { type: T }>;
}

Deno.test("a response streams and completes", async () => {
  const { session, socket, engine } = open(events(said("Hel"), said("lo"), done()));
  session.receive(create({ instructions: "be brief", max_output_tokens: 9, temperature: 0 }));
  const all = await ended(socket, "resp_1");
  assert.deepEqual(all.slice(0, 2).map(({ type }) => type), ["response.created", "response.in_progress"]);
  const last = all.at(-1)!;
  assert(last.type === "response.completed");
  assert.equal(textOf(all), "Hello");
  assert.partialDeepStrictEqual(last.response, {
    model: "org/model",
    created_at: 1_700_000_000,
    instructions: "be brief",
    usage: { input_tokens: 3, output_tokens: 2, total_tokens: 5 },
    timings: TIMINGS,
  });
  const { prompt, maxTokens, sampling } = engine.calls[0]!.request;
  assert.deepEqual([prompt.join(""), maxTokens], ["system:be brief\nuser:hi\n", 9]);
  assert.equal(sampling?.temperature, 0);
});

/** Says what it was asked, and waits before its end where it was asked for `slow`. */
function slowly() {
  const gate = Promise.withResolvers<void>();
  const script: Script = async function* ({ prompt }) {
    const name = prompt.join("").includes("slow") ? "slow" : "fast";
    yield said(`${name} `);
    if (name === "slow") await gate.promise;
    yield said("end");
    yield done();
  };
  return { script, go: () => gate.resolve() };
}

Deno.test("responses on one socket interleave", async () => {
  const { script, go } = slowly();
  const { session, socket } = open(script);
  session.receive(create({ input: "slow" }));
  session.receive(create({ input: "fast" }));
  assert.equal(textOf(await ended(socket, "resp_2")), "fast end");
  go();
  assert.equal(textOf(await ended(socket, "resp_1")), "slow end");
});

Deno.test("responses of one lane come one after another, their events name it, and other lanes go on", async () => {
  const { script, go } = slowly();
  const { session, socket, engine } = open(script);
  session.receive(create({ input: "slow", stream_id: "a" }));
  session.receive(create({ input: "fast", stream_id: "a" }));
  session.receive(create({ input: "fast", stream_id: "b" }));
  const other = await ended(socket, "resp_2");
  assert(other.every(({ stream_id }) => stream_id === "b"));
  assert.equal(engine.calls.length, 2);
  go();
  const [first, second] = [await ended(socket, "resp_1"), await ended(socket, "resp_3")];
  assert([...first, ...second].every(({ stream_id }) => stream_id === "a"));
  assert(socket.sent.indexOf(first.at(-1)!) < socket.sent.indexOf(second[0]!));
  session.receive(create({ stream_id: "c", temperature: 3 }));
  checkError(socket.sent.at(-1), 400, "invalid_value", "temperature", /got 3$/, "c");
});

Deno.test("only new input is sent: a response continues one of the socket, stored or not", async () => {
  const { connect, engine } = server(events(said("yes"), done()));
  const { session, socket } = connect();
  session.receive(create({ input: "one", store: false }));
  await ended(socket, "resp_1");
  session.receive(create({ input: "two", previous_response_id: "resp_1" }));
  await ended(socket, "resp_2");
  session.receive(create({ input: "three", previous_response_id: "resp_2", store: false }));
  await ended(socket, "resp_3");
  const prompt = "user:one\nassistant:yes\nuser:two\nassistant:yes\nuser:three\n";
  assert.equal(engine.calls[2]!.request.prompt.join(""), prompt);
  const other = connect();
  other.session.receive(create({ previous_response_id: "resp_3", stream_id: "a" }));
  const refused = await told(other.socket, "error");
  checkError(refused, 400, "previous_response_not_found", "previous_response_id", /that is kept/, "a");
  // What it continues is looked for in the same order: the stored one leads to one that is not there.
  other.session.receive(create({ previous_response_id: "resp_2" }));
  checkError(await told(other.socket, "error", 1), 400, "previous_response_not_found", "previous_response_id", /./);
});

Deno.test("a request that only hands in is continued like any other", async () => {
  const { session, socket, engine } = open(events(said("yes"), done()));
  session.receive(create({ input: "one", generate: false }));
  const last = (await ended(socket, "resp_1")).at(-1)!;
  assert(last.type === "response.completed");
  assert.deepEqual([last.response.output, engine.calls], [[], []]);
  session.receive(create({ input: "two", previous_response_id: "resp_1" }));
  await ended(socket, "resp_2");
  assert.equal(engine.calls[0]!.request.prompt.join(""), "user:one\nuser:two\n");
});

Deno.test("response.cancel ends one response, with its partial text and counts, and is idempotent", async () => {
  const { session, socket, engine } = open(untilAborted(said("x")));
  session.receive(create());
  session.receive(create());
  while (engine.calls.length < 2) await tick();
  session.receive(cancel("resp_1"));
  session.receive(cancel("resp_1"));
  const last = (await ended(socket, "resp_1")).at(-1)!;
  assert(last.type === "response.cancelled");
  assert.partialDeepStrictEqual(last.response, { output: [{ content: [{ text: "x" }] }], usage: { output_tokens: 2 } });
  session.receive(cancel("resp_1"));
  await tick();
  assert.deepEqual(engine.calls.map(({ signal }) => signal.aborted), [true, false]);
  assert(socket.sent.every(({ type }) => type !== "error"));
  session.receive(cancel("resp_9"));
  checkError(await told(socket, "error"), 404, "response_not_found", "response_id", /^response_id: /);
  session.end();
  await tick();
});

Deno.test("a refused frame is an error event, and the socket stays", async () => {
  const { session, socket } = open(events(done()));
  const frames: [unknown, number, string, string | null, RegExp][] = [
    ["{oops", 400, "invalid_json", null, /expected JSON/],
    [new ArrayBuffer(2), 400, "invalid_json", null, /expected text, got binary data$/],
    [new Blob(), 400, "invalid_json", null, /expected text/],
    ["{}", 400, "invalid_value", "type", /^type: /],
    [create({ temperature: 3 }), 400, "invalid_value", "temperature", /got 3$/],
    [create({ tools: [{ type: "x" }] }), 400, "unsupported_value", "tools[0].type", /got "x"; /],
    [create({ model: "gpt-5" }), 404, "model_not_found", "model", /got "gpt-5"$/],
  ];
  for (const [frame, status, code, param, message] of frames) {
    session.receive(frame);
    checkError(socket.sent.at(-1), status, code, param, message);
  }
  assert(socket.isOpen);
  session.receive(create());
  await ended(socket, "resp_1");
});

Deno.test("too many refused frames in a row close the socket, and so does one that is too large", async () => {
  const { session, socket } = open(events(done()), { maxBadFrames: 2 });
  for (const frame of ["{", "{", create(), "{", "{"]) session.receive(frame);
  assert(socket.isOpen);
  await ended(socket, "resp_1");
  session.receive("{");
  assert.deepEqual(socket.closed, { code: 1008, reason: "too many bad frames" });
  const large = open(events(done()), { maxFrameLength: 200 });
  large.session.receive(create({ input: "x".repeat(200) }));
  checkError(large.socket.sent[0], 413, "request_too_large", null, /expected at most 200 characters, got \d+$/);
  assert.equal(large.socket.closed?.code, 1009);
});

Deno.test("failures of the engine are terminal events, before and after the first token", async () => {
  const failing = (message: string, ...before: GenerateEvent[]): Script =>
    async function* () {
      yield* before;
      throw new EngineError(before.length > 0 ? "internal" : "context_overflow", message);
    };
  for (const before of [[], [said("x")]]) {
    const { session, socket, log } = open(failing("expected 64, got 100", ...before));
    session.receive(create());
    const last = (await ended(socket, "resp_1")).at(-1)!;
    assert(last.type === "response.failed");
    const message = before.length > 0 ? "the server failed; its log has the reason" : "expected 64, got 100";
    const code = before.length > 0 ? "internal_error" : "context_length_exceeded";
    assert.deepEqual(last.response.error, { code, message });
    assert.equal(last.response.usage!.output_tokens, before.length);
    assert.equal(log.filter(({ event }) => event === "failure").length, before.length);
  }
});

Deno.test("closing the socket cancels all its responses, and nothing is sent after", async () => {
  const { session, socket, engine } = open(untilAborted(said("x")));
  session.receive(create());
  session.receive(create());
  while (engine.calls.length < 2) await tick();
  await tick();
  const before = socket.sent.length;
  session.end();
  await tick();
  assert.deepEqual(engine.calls.map(({ signal }) => signal.aborted), [true, true]);
  session.receive(create());
  assert.deepEqual([socket.sent.length, engine.calls.length], [before, 2]);
});

Deno.test("a response that outlives its socket is resumed on another, without a gap", async () => {
  const { script, go } = slowly();
  const { connect, pass } = server(script);
  const lost = connect();
  lost.session.receive(create({ input: "slow", on_disconnect: "continue", store: false }));
  await told(lost.socket, "response.output_text.delta");
  const before = lost.socket.sent as ResponseEvent[];
  lost.session.end();
  const { session, socket } = connect();
  session.receive(resume("resp_1", before.at(-1)!.sequence_number));
  await tick();
  go();
  await told(socket, "response.completed");
  const all = [...before, ...socket.sent as ResponseEvent[]];
  assert.deepEqual(all.map(({ sequence_number }) => sequence_number), [...all.keys()]);
  assert.equal(textOf(all), "slow end");
  const again = connect();
  again.session.receive(resume("resp_1"));
  await ended(again.socket, "resp_1");
  assert.deepEqual(again.socket.sent, all);
  pass(RESUME_WINDOW_MS);
  session.receive(resume("resp_1"));
  checkError(await told(socket, "error"), 404, "response_not_found", "response_id", /that is kept/);
});

Deno.test("a response that was stored is there, when its events no longer are", async () => {
  const { session, socket, pass } = open(events(said("x"), done()));
  session.receive(create());
  await ended(socket, "resp_1");
  pass(RESUME_WINDOW_MS);
  session.receive(resume("resp_1"));
  checkError(await told(socket, "error"), 410, "resume_gone", "response_id", /ended lately/);
});

Deno.test("nobody resumes or cancels the response of another", async () => {
  const { connect, engine } = server(untilAborted(said("x")));
  const mine = connect();
  mine.session.receive(create());
  while (engine.calls.length < 1) await tick();
  const theirs = connect({ origin: { requestId: "r", caller: { id: "eve", name: "eve" } } });
  theirs.session.receive(resume("resp_1"));
  theirs.session.receive(cancel("resp_1"));
  for (const nth of [0, 1]) {
    checkError(await told(theirs.socket, "error", nth), 404, "response_not_found", "response_id", /./);
  }
  assert.equal(engine.calls[0]!.signal.aborted, false);
  mine.session.end();
  await tick();
});

Deno.test("responses in progress are limited; an ended one makes room", async () => {
  const { session, socket } = open(untilAborted(), { maxResponses: 2 });
  session.receive(create());
  session.receive(create({ stream_id: "a" }));
  session.receive(create({ stream_id: "a" }));
  checkError(socket.sent.at(-1), 429, "too_many_responses", null, /expected at most 2 responses/, "a");
  assert.equal((socket.sent.at(-1) as SocketErrorEvent).error.retry_after_ms, 1000);
  session.receive(resume("resp_1"));
  checkError(socket.sent.at(-1), 429, "too_many_responses", null, /./);
  await told(socket, "response.in_progress");
  session.receive(cancel("resp_1"));
  await ended(socket, "resp_1");
  session.receive(create());
  await told(socket, "response.in_progress", 2);
  session.end();
  await tick();
});

Deno.test("a socket that is used up ends when nothing is in progress, and says to come again", async () => {
  const { script, go } = slowly();
  const { session, socket } = open(script, { maxRequests: 1 });
  session.receive(create({ input: "slow" }));
  session.receive(create({ input: "fast" }));
  checkError(socket.sent.at(-1), 429, "websocket_connection_limit_reached", null, /too many requests/);
  assert(socket.isOpen);
  go();
  await ended(socket, "resp_1");
  assert.equal(socket.closed?.code, 1012);
  const old = open(script, { lifeMs: 100 });
  old.pass(99);
  old.session.tick();
  assert(old.socket.isOpen);
  old.pass(1);
  old.session.tick();
  assert.deepEqual(old.socket.closed, { code: 1012, reason: "the socket is too old" });
});

Deno.test("each response of a socket is a request of its key", async () => {
  const { connect, pass } = server(events(done()));
  const caller = { id: "key:alice", name: "alice", limits: { requestsPerMinute: 1 } };
  const { session, socket } = connect({ origin: { requestId: "r", caller } });
  session.receive(create());
  session.receive(create());
  checkError(socket.sent.at(-1), 429, "rate_limit_exceeded", null, /^requests: expected at most 1 in a minute/);
  await ended(socket, "resp_1");
  pass(60_000);
  session.receive(create());
  await ended(socket, "resp_2");
});

Deno.test("a silent socket ends, unless a response is in progress", async () => {
  const { script, go } = slowly();
  const { session, socket, pass } = open(script, { idleMs: 100 });
  const wait = (ms: number) => {
    pass(ms);
    session.tick();
  };
  wait(99);
  session.receive(create({ input: "slow" }));
  wait(1000);
  assert(socket.isOpen);
  go();
  await ended(socket, "resp_1");
  wait(99);
  assert(socket.isOpen);
  wait(1);
  assert.equal(socket.closed?.code, 1000);
});

Deno.test("a server that stops takes on nothing new, lets responses end, and closes", async () => {
  const { script, go } = slowly();
  const { connect, closing } = server(script);
  const [busy, idle] = [connect(), connect()];
  busy.session.receive(create({ input: "slow" }));
  await told(busy.socket, "response.created");
  closing.abort();
  assert.deepEqual(idle.socket.closed, { code: 1012, reason: "the server is stopping" });
  busy.session.receive(create());
  checkError(busy.socket.sent.at(-1), 503, "stopping", null, /stopping/);
  go();
  assert.equal((await ended(busy.socket, "resp_1")).at(-1)!.type, "response.completed");
  assert.equal(busy.socket.closed?.code, 1012);
  assert.equal(connect().socket.closed?.code, 1012);
});

Deno.test("a heartbeat is sent to those who asked for it", () => {
  const { session, socket, pass } = open(events(done()));
  const wait = (ms: number) => {
    pass(ms);
    session.tick();
  };
  wait(60_000);
  assert.deepEqual(socket.sent, []);
  session.receive(JSON.stringify({ type: "session.update", heartbeat_ms: 5000 }));
  assert.partialDeepStrictEqual(socket.sent, [{ type: "session.updated", session: { id: "r", heartbeat_ms: 5000 } }]);
  wait(1);
  assert.deepEqual(socket.sent.slice(1), [{ type: "ping", time: 1_700_000_060_501 }]);
  wait(4999);
  assert.equal(socket.sent.length, 2);
  wait(1);
  assert.equal(socket.sent.length, 3);
  session.receive(JSON.stringify({ type: "session.update", heartbeat_ms: 0 }));
  wait(60_000);
  assert.equal(socket.sent.length, 4);
});

Deno.test("a socket without a key shows one first: until then nothing else is taken", async () => {
  const checking = Promise.withResolvers<void>();
  const authenticate = async (key: string) => {
    await checking.promise;
    return key === "right" ? { id: "alice", name: "alice" } : undefined;
  };
  const show = (key: string) => JSON.stringify({ type: "session.update", api_key: key });
  const { connect, pass } = server(events(said("x"), done()));
  const good = connect({ authenticate });
  good.session.receive(show("right"));
  good.session.receive(create());
  assert.equal(good.socket.sent.length, 0);
  checking.resolve();
  await ended(good.socket, "resp_1");
  assert.equal(good.socket.sent[0]!.type, "session.updated");
  for (const frame of [show("wrong"), create(), JSON.stringify({ type: "session.update" }), resume("resp_1")]) {
    const { session, socket } = connect({ authenticate });
    session.receive(frame);
    checkError(await told(socket, "error"), 401, "invalid_api_key", null, /expected a key/);
    assert.equal(socket.closed?.code, 1008);
  }
  const broken = connect({ authenticate: () => Promise.reject(new Error("secret")) });
  broken.session.receive(show("right"));
  broken.session.receive(create());
  checkError(await told(broken.socket, "error"), 500, "internal_error", null, /its log has the reason/);
  checkError(await told(broken.socket, "error", 1), 401, "invalid_api_key", null, /expected a key/);
  const silent = connect({ authenticate });
  pass(9_999);
  silent.session.tick();
  assert(silent.socket.isOpen);
  pass(1);
  silent.session.tick();
  assert.deepEqual(silent.socket.closed, { code: 1008, reason: "no key was shown" });
});

Deno.test("the sockets of a caller are limited; one that is gone makes room", () => {
  const { connect } = server(events(done()));
  const first = connect({ limits: { maxSockets: 1 } });
  const second = connect({ limits: { maxSockets: 1 } });
  checkError(second.socket.sent[0], 429, "too_many_sockets", null, /at most 1/);
  assert.equal(second.socket.closed?.code, 1013);
  assert(first.socket.isOpen);
  const other = { requestId: "r", caller: { id: "bob", name: "bob" } };
  assert(connect({ origin: other, limits: { maxSockets: 1 } }).socket.isOpen);
  first.session.end();
  assert(connect({ limits: { maxSockets: 1 } }).socket.isOpen);
});

Deno.test("while a reader lags, deltas become longer, and at last no more is taken from the engine", async () => {
  let taken = 0;
  const { session, socket } = open(async function* () {
    for (; taken < 10_000; taken++) yield said("x".repeat(100));
    yield done();
  }, { highWaterBytes: 5000, lowWaterBytes: 1000 });
  socket.unread = 0;
  session.receive(create());
  let paused = -1;
  while (paused !== taken) {
    paused = taken;
    for (let i = 0; i < 5; i++) await tick();
  }
  assert(taken < 1000, `${taken} tokens taken`);
  assert(socket.unread < 30_000, `${socket.unread} bytes unsent`);
  socket.unread = undefined;
  const all = await ended(socket, "resp_1");
  assert.equal(textOf(all).length, 1_000_000);
  assert(all.some((event) => event.type === "response.output_text.delta" && event.delta.length >= 16_000));
});

Deno.test("a reader that stays slow loses its socket, and the engine is cancelled", async () => {
  const { session, socket, engine, pass } = open(async function* (_request, signal) {
    while (!signal.aborted) yield said("x".repeat(100));
    yield done("cancelled");
  }, { highWaterBytes: 1000, lowWaterBytes: 100 });
  socket.unread = 0;
  session.receive(create());
  while (socket.unread < 1000) await tick();
  await tick();
  assert(socket.isOpen);
  pass(SOCKET_LIMITS.stallMs);
  while (socket.isOpen) await tick();
  assert.deepEqual(socket.closed, { code: 1013, reason: "reader is too slow" });
  await aborted(engine.calls[0]!.signal);
});

Deno.test("errors that nobody reads end the socket too", () => {
  const { session, socket } = open(events(done()), { maxUnsentBytes: 10_000, maxBadFrames: 10_000 });
  socket.unread = 0;
  for (let i = 0; i < 1000; i++) session.receive("{oops");
  assert.equal(socket.closed?.code, 1013);
  assert(socket.unread < 11_000, `${socket.unread} bytes unsent`);
});

Deno.test("when all sockets together have too much unread, one that lags goes, and others stay", () => {
  const limits = { maxTotalUnsentBytes: 10_000, highWaterBytes: 4000, maxBadFrames: 10_000 };
  const { connect, load } = server(events(done()));
  const [first, second, third] = [connect({ limits }), connect({ limits }), connect({ limits })];
  for (const { socket } of [first, second, third]) socket.unread = 0;
  const fill = ({ session, socket }: typeof first, bytes: number) => {
    while (socket.isOpen && socket.unread! < bytes) session.receive("{oops");
  };
  fill(first, 9000);
  fill(second, 500);
  fill(third, 1500);
  assert([first, second, third].every(({ socket }) => socket.isOpen));
  fill(first, 20_000);
  assert.deepEqual(first.socket.closed, { code: 1013, reason: "too much is unread" });
  fill(third, 3900);
  assert([second, third].every(({ socket }) => socket.isOpen));
  second.session.end();
  third.session.end();
  assert.equal(load.unsent, 0);
});

Deno.test("whatever a frame is, it is answered or refused, and the socket stays", async () => {
  const { session, socket, log } = open(events(done()), { maxBadFrames: 10_000 });
  const values = [-1, 2 ** 53, "", "x", null, true, [], [[]], {}, "\ud800"];
  const fields = [
    "type",
    "stream_id",
    "response_id",
    "starting_after",
    "on_disconnect",
    "generate",
    "input",
    "api_key",
  ];
  for (const type of ["response.create", "response.cancel", "response.resume", "session.update"]) {
    for (const field of [...fields, "heartbeat_ms", "model"]) {
      for (const value of values) {
        session.receive(JSON.stringify({ type, model: "org/model", input: "hi", response_id: "r", [field]: value }));
        await tick();
      }
    }
  }
  assert(socket.isOpen);
  assert(socket.sent.every((event) => event.type !== "error" || [400, 404].includes(event.status)));
  assert(log.every(({ event }) => event !== "failure"));
});
