import assert from "node:assert/strict";
import type { ChosenLogprob, DoneEvent } from "../engine/engine.ts";
import { parseResponseRequest, type ResponseEvent, ResponseWriter, type WireResponse } from "../protocol/mod.ts";
import { MAX_HELD_LENGTH, ResponseRun, type ResponseRunOptions } from "./response_run.ts";
import type { TurnEvent } from "./turn_event.ts";

const done: DoneEvent = {
  type: "done",
  reason: "stop",
  usage: { promptTokens: 3, completionTokens: 2 },
  timings: { queueMs: 1, prefillMs: 2, decodeMs: 3 },
};

function text(text: string, logprobs?: ChosenLogprob[]): TurnEvent {
  return { type: "text", text, completionTokens: 1, ...(logprobs ? { logprobs } : {}) };
}

function chosen(token: string): ChosenLogprob {
  return { id: 1, token, bytes: [...new TextEncoder().encode(token)], logprob: -1, top: [] };
}

function run(generate: ResponseRunOptions["generate"], options: Partial<ResponseRunOptions> = {}) {
  const { echo } = parseResponseRequest({ input: "hi", ...(options.background ? { background: true } : {}) });
  const writer = new ResponseWriter(echo, { unique: "1", createdAt: 5, model: "m", firstItem: 0 });
  const kept: { response: WireResponse; hasBegun: boolean; told: string[] }[] = [];
  const told: string[] = [];
  const made: ResponseRun = new ResponseRun({
    caller: "c",
    writer,
    background: false,
    answers: true,
    generate,
    keep: async (response, hasBegun) => void await kept.push({ response, hasBegun, told: [...told] }),
    failure: (error) => ({ code: "failed", message: (error as Error).message }),
    now: () => 7,
    ...options,
  });
  return { run: made, kept, told };
}

function scripted(...events: (TurnEvent | Error)[]): ResponseRunOptions["generate"] {
  return async function* () {
    for (const event of events) {
      await Promise.resolve();
      if (event instanceof Error) throw event;
      yield event;
    }
  };
}

async function eventsOf({ log }: ResponseRun): Promise<ResponseEvent[]> {
  return (await Array.fromAsync(log.read(-1))).flat().map(({ json }) => JSON.parse(json));
}

Deno.test("a thought, a text and a call become items; the response has them all", async () => {
  const events: TurnEvent[] = [
    { type: "started", promptTokens: 3 },
    { type: "reasoning", text: "hm" },
    text("wait"),
    { type: "tool_call", index: 0, id: "call_1", name: "f" },
    { type: "tool_arguments", index: 0, text: '{"a":' },
    { type: "tool_arguments", index: 0, text: "1}" },
    { type: "tool_call", index: 1, id: "call_2", name: "g" },
    done,
  ];
  const { run: made } = run(scripted(...events));
  const { output, status, usage, timings } = await made.finished;
  assert.equal(status, "completed");
  assert.partialDeepStrictEqual(output, [
    { type: "reasoning", content: [{ text: "hm" }] },
    { type: "message", content: [{ text: "wait" }] },
    { type: "function_call", call_id: "call_1", name: "f", arguments: '{"a":1}' },
    { type: "function_call", call_id: "call_2", name: "g", arguments: "" },
  ]);
  assert.deepEqual([usage!.total_tokens, timings!.queue_ms, timings!.prompt_per_second], [5, 1, 1500]);
  const all = await eventsOf(made);
  assert.deepEqual(all.map(({ sequence_number }) => sequence_number), [...all.keys()]);
});

Deno.test("a response is kept before its end is told; when that fails, so does the response", async () => {
  const good = run(scripted(text("x"), done));
  await good.run.finished;
  assert.deepEqual(good.kept.map(({ response, hasBegun }) => [response.status, hasBegun]), [["completed", true]]);
  const bad = run(scripted(text("x"), done), { keep: () => Promise.reject(new Error("no room")) });
  const response = await bad.run.finished;
  assert.deepEqual([response.status, response.error, response.completed_at], [
    "failed",
    { code: "failed", message: "no room" },
    null,
  ]);
  assert.equal((await eventsOf(bad.run)).at(-1)!.type, "response.failed");
});

Deno.test("who waits for the begin learns of a refusal, and nobody else has to", async () => {
  const refused = run(scripted(new Error("too long")));
  await assert.rejects(refused.run.begun, /^Error: too long$/);
  assert.deepEqual([refused.kept[0]!.hasBegun, (await refused.run.finished).status], [false, "failed"]);
  const late = run(scripted({ type: "started", promptTokens: 3 }, new Error("died")));
  await late.run.begun;
  const { status, usage } = await late.run.finished;
  assert.deepEqual([status, usage!.input_tokens, late.kept[0]!.hasBegun], ["failed", 3, true]);
  const endless = run(scripted(text("x")));
  assert.match((await endless.run.finished).error!.message, /without a done event$/);
});

Deno.test("cancelled by its owner it is cancelled, by the server it has failed", async () => {
  const cancelled = run(async function* (signal) {
    yield text("x");
    while (!signal.aborted) await Promise.resolve();
    yield { ...done, reason: "cancelled" };
  });
  await cancelled.run.begun;
  cancelled.run.cancel();
  assert.equal((await cancelled.run.finished).status, "cancelled");
  const closed = run(scripted(text("x"), { ...done, reason: "cancelled" }));
  assert.match((await closed.run.finished).error!.message, /the server is closing$/);
});

Deno.test("while a reader lags its deltas grow, the text stays the same, and at last no more is taken from the engine", async () => {
  const piece = "x".repeat(100);
  let taken = 0;
  const { run: made } = run(async function* () {
    for (; taken < 1000; taken++) yield text(piece);
    yield done;
  }, { limits: { maxLength: 1000, maxLag: 4 } });
  const reading = made.log.read(-1, { holdsBack: true });
  const first = await reading.next();
  let before = -1;
  while (before !== taken) {
    before = taken;
    for (let i = 0; i < 20; i++) await Promise.resolve();
  }
  assert(taken * 100 > MAX_HELD_LENGTH && taken * 100 < MAX_HELD_LENGTH + 2000, `${taken} pieces taken`);
  const rest = (await Array.fromAsync(reading)).flat();
  const all: ResponseEvent[] = [...first.value, ...rest].map(({ json }: { json: string }) => JSON.parse(json));
  const deltas = all.flatMap((event) => event.type === "response.output_text.delta" ? [event.delta] : []);
  assert.equal(deltas.join(""), piece.repeat(1000));
  assert.deepEqual(all.map(({ sequence_number }) => sequence_number), [...all.keys()]);
});

Deno.test("log probabilities wait for their text; those of what came to nothing are left out", async () => {
  const [a, b] = [chosen("a"), chosen("b")];
  const half = { ...chosen("\ufffd"), bytes: [0xc3] };
  const events = [text("", [chosen("</think>")]), text("a", [a]), text("", [half]), text("ü", [half]), text("", [b])];
  const { run: made } = run(scripted(...events, done));
  const { output } = await made.finished;
  const message = output[0]!;
  assert(message.type === "message" && message.role === "assistant");
  const [part] = message.content;
  assert(part?.type === "output_text");
  assert.deepEqual([part.text, part.logprobs!.map(({ token }) => token)], ["aü", ["a", "\ufffd", "\ufffd"]]);
});

Deno.test("in the background it is queued until it begins", async () => {
  const gate = Promise.withResolvers<void>();
  const { run: made } = run(async function* () {
    await gate.promise;
    yield { type: "started", promptTokens: 1 };
    yield done;
  }, { background: true });
  assert.equal(made.response.status, "queued");
  gate.resolve();
  await made.begun;
  assert.equal(made.response.status, "in_progress");
  await made.finished;
  const types = (await eventsOf(made)).map(({ type }) => type);
  assert.deepEqual(types.slice(0, 3), ["response.created", "response.queued", "response.in_progress"]);
});

Deno.test("a request that is longer than what is kept of events does not drive its own out", async () => {
  const { echo } = parseResponseRequest({ input: "hi", instructions: "i".repeat(5000) });
  const writer = new ResponseWriter(echo, { unique: "1", createdAt: 5, model: "m", firstItem: 0 });
  const { run: made } = run(scripted(text("x"), done), { writer, limits: { maxLength: 1000, maxLag: 4 } });
  const reading = made.log.read(-1, { holdsBack: true });
  await made.finished;
  assert.equal((await reading.next()).value[0].type, "response.created");
});
