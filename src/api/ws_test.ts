import assert from "node:assert/strict";
import { EngineError, type GenerateEvent } from "../engine/engine.ts";
import type { ResponseEvent, ServerEvent } from "../protocol/mod.ts";
import { MemoryStore } from "../sessions/memory_store.ts";
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
  untilAborted,
} from "./test_support.ts";
import { ResponsesSession, SOCKET_LIMITS, type SocketLimits } from "./ws.ts";

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

function open(script: Script, limits: Partial<SocketLimits> = {}) {
  let id = 0;
  const log: LogEntry[] = [];
  const engine = new ScriptedEngine(script);
  const service = new Service({
    engine,
    template: plainTemplate,
    modelId: "org/model",
    aliases: [],
    clock: () => 1_700_000_000_500,
    newId: () => String(++id),
    store: new MemoryStore(),
    log: (entry) => log.push(entry),
  });
  const socket = new FakeSocket();
  const all = { ...SOCKET_LIMITS, pollMs: 1, ...limits };
  const session = new ResponsesSession({ service, origin: { requestId: "r", caller: ANYBODY }, socket, limits: all });
  return { session, socket, engine, log };
}

function create(fields: Record<string, unknown> = {}): string {
  return JSON.stringify({ type: "response.create", model: "org/model", input: "hi", ...fields });
}

function cancel(id: string): string {
  return JSON.stringify({ type: "response.cancel", response_id: id });
}

/** The events of one response after its terminal one has come: numbered without gaps, nothing after the end. */
async function ended(socket: FakeSocket, id: string): Promise<ResponseEvent[]> {
  const own = () =>
    socket.sent.filter((event) => event.type !== "error" && event.response_id === id) as ResponseEvent[];
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
  code: string,
  param: string | null,
  message: RegExp,
  nth = 0,
): void {
  assert(event?.type === "error", JSON.stringify(event));
  assert.deepEqual([event.code, event.param, event.sequence_number], [code, param, nth]);
  assert.match(event.message, message);
}

Deno.test("a response streams and completes; its creation is announced at once", async () => {
  const { session, socket, engine } = open(events(said("Hel"), said("lo"), done()));
  session.receive(create({ instructions: "be brief", max_output_tokens: 9, temperature: 0 }));
  assert.deepEqual(socket.sent.map(({ type }) => type), ["response.created", "response.in_progress"]);
  const all = await ended(socket, "resp_1");
  const last = all.at(-1)!;
  assert(last.type === "response.completed");
  assert.equal(textOf(all), "Hello");
  assert.partialDeepStrictEqual(last.response, {
    model: "org/model",
    created_at: 1_700_000_000,
    instructions: "be brief",
    usage: { input_tokens: 3, output_tokens: 2, total_tokens: 5 },
  });
  const { prompt, maxTokens, sampling } = engine.calls[0]!.request;
  assert.deepEqual([prompt.join(""), maxTokens], ["system:be brief\nuser:hi\n", 9]);
  assert.equal(sampling?.temperature, 0);
});

Deno.test("responses on one socket interleave", async () => {
  const gate = Promise.withResolvers<void>();
  const { session, socket } = open(async function* ({ prompt }) {
    const name = prompt.join("").includes("slow") ? "slow" : "fast";
    yield said(`${name} `);
    if (name === "slow") await gate.promise;
    yield said("end");
    yield done();
  });
  session.receive(create({ input: "slow" }));
  session.receive(create({ input: "fast" }));
  assert.equal(textOf(await ended(socket, "resp_2")), "fast end");
  gate.resolve();
  assert.equal(textOf(await ended(socket, "resp_1")), "slow end");
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
  assert.deepEqual([last.response.output[0]!.content[0]!.text, last.response.usage!.output_tokens], ["x", 2]);
  session.receive(cancel("resp_1"));
  assert.deepEqual(engine.calls.map(({ signal }) => signal.aborted), [true, false]);
  assert(socket.sent.every(({ type }) => type !== "error"));
  session.receive(cancel("resp_9"));
  checkError(socket.sent.at(-1), "response_not_found", "response_id", /^response_id: /);
  session.end();
  await tick();
});

Deno.test("a refused frame is an error event, numbered, and the socket stays", async () => {
  const { session, socket } = open(events(done()), { maxFrameLength: 200 });
  const frames: [unknown, string, string | null, RegExp][] = [
    ["{oops", "invalid_json", null, /expected JSON/],
    [new ArrayBuffer(2), "invalid_json", null, /expected text, got binary data$/],
    [new Blob(), "invalid_json", null, /expected text/],
    ["{}", "invalid_value", "type", /^type: /],
    [create({ temperature: 3 }), "invalid_value", "temperature", /got 3$/],
    [create({ tools: [{}] }), "unsupported_value", "tools", /got a list of 1$/],
    [create({ model: "gpt-5" }), "model_not_found", "model", /got "gpt-5"$/],
    [create({ input: "x".repeat(200) }), "request_too_large", null, /expected at most 200 characters, got \d+$/],
  ];
  for (const [nth, [frame, code, param, message]] of frames.entries()) {
    session.receive(frame);
    checkError(socket.sent.at(-1), code, param, message, nth);
  }
  assert.equal(socket.closed, undefined);
  session.receive(create());
  await ended(socket, "resp_1");
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

Deno.test("responses in progress are limited; an ended one makes room", async () => {
  const { session, socket } = open(untilAborted(), { maxResponses: 2 });
  for (let i = 0; i < 3; i++) session.receive(create());
  checkError(socket.sent.at(-1), "too_many_responses", null, /expected at most 2 responses/);
  session.receive(cancel("resp_1"));
  await ended(socket, "resp_1");
  session.receive(create());
  assert.equal(socket.sent.at(-1)!.type, "response.in_progress");
  session.end();
  await tick();
});

Deno.test("a slow reader pauses its responses until it has caught up", async () => {
  let taken = 0;
  const { session, socket } = open(async function* () {
    for (; taken < 1000; taken++) yield said("x".repeat(100));
    yield done();
  }, { highWaterBytes: 5000, lowWaterBytes: 1000 });
  socket.unread = 0;
  session.receive(create());
  while (socket.unread < 5000) await tick();
  const paused = taken;
  for (let i = 0; i < 5; i++) await tick();
  assert.equal(taken, paused);
  assert(socket.unread < 6000, `${socket.unread} bytes unsent`);
  socket.unread = 1001;
  for (let i = 0; i < 5; i++) await tick();
  assert.equal(taken, paused);
  socket.unread = undefined;
  assert.equal(textOf(await ended(socket, "resp_1")).length, 100_000);
});

Deno.test("a reader that stays slow loses its socket, and the engine is cancelled", async () => {
  const { session, socket, engine } = open(async function* (_request, signal) {
    while (!signal.aborted) yield said("x".repeat(100));
    yield done("cancelled");
  }, { highWaterBytes: 1000, lowWaterBytes: 100, stallMs: 5 });
  socket.unread = 0;
  session.receive(create());
  while (socket.isOpen) await tick();
  assert.deepEqual(socket.closed, { code: 1013, reason: "reader is too slow" });
  await aborted(engine.calls[0]!.signal);
});

Deno.test("errors that nobody reads end the socket too", () => {
  const { session, socket } = open(events(done()), { maxUnsentBytes: 10_000 });
  socket.unread = 0;
  for (let i = 0; i < 1000; i++) session.receive("{oops");
  assert.equal(socket.closed?.code, 1013);
  assert(socket.unread < 11_000, `${socket.unread} bytes unsent`);
});
