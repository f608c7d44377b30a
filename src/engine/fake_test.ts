import assert from "node:assert/strict";
import { engineContract } from "./contract.ts";
import { EngineError, type GenerateEvent, type GenerateRequest } from "./engine.ts";
import { FakeEngine, type FakeOptions } from "./fake.ts";

engineContract("fake engine", () => Promise.resolve(new FakeEngine()));
engineContract(
  "fake engine without begin token",
  () => Promise.resolve(new FakeEngine({ model: { addsBos: false, contextLength: 512 }, maxRunning: 2, tokenMs: 0.1 })),
);

async function run(options: FakeOptions, request: Partial<GenerateRequest> = {}): Promise<GenerateEvent[]> {
  await using engine = new FakeEngine(options);
  return await Array.fromAsync(engine.generate({ prompt: ["Hi"], ...request }));
}

Deno.test("plays a text word by word", async () => {
  const events = await run({ reply: "one two\n three ", now: () => 7 });
  assert.deepEqual(events, [
    { type: "started", promptTokens: 3 },
    { type: "text", text: "one", completionTokens: 1 },
    { type: "text", text: " two", completionTokens: 2 },
    { type: "text", text: "\n three", completionTokens: 3 },
    { type: "text", text: " ", completionTokens: 4 },
    {
      type: "done",
      reason: "stop",
      stop: undefined,
      usage: { promptTokens: 3, completionTokens: 4 },
      timings: { queueMs: 0, prefillMs: 0, decodeMs: 0 },
    },
  ]);
});

Deno.test("answers as a function of the request", async () => {
  const events = await run({ reply: ({ prompt }) => [prompt.join("|"), "!"] }, { prompt: ["a", "b"] });
  assert.deepEqual(
    events.map((event) => event.type === "text" ? event.text : event.type === "done" ? event.reason : event.type),
    ["started", "a|b", "!", "stop"],
  );
});

Deno.test("an empty reply is a done without texts", async () => {
  const events = await run({ reply: "" });
  assert.deepEqual(events.map((event) => event.type), ["started", "done"]);
});

Deno.test("takes its time from the injected delay", async () => {
  const waits: number[] = [];
  await run({ reply: "a b", tokenMs: 20, delay: (ms) => Promise.resolve(void waits.push(ms)) });
  assert.deepEqual(waits, [20, 20, 20]);
});

Deno.test("fails a request at the scripted token", async () => {
  const error = new EngineError("internal", "decoding failed");
  const seen: string[] = [];
  await assert.rejects(async () => {
    const engine = new FakeEngine({ reply: "a b c", failure: { tokens: 2, error } });
    for await (const event of engine.generate({ prompt: ["x"] })) seen.push(event.type);
  }, error);
  assert.deepEqual(seen, ["started", "text", "text"]);
});

Deno.test("queues above maxRunning and refuses above maxWaiting", async () => {
  const gate = Promise.withResolvers<void>();
  await using engine = new FakeEngine({ maxRunning: 1, maxWaiting: 1, reply: "a", delay: () => gate.promise });
  const first = Array.fromAsync(engine.generate({ prompt: ["1"] }));
  const second = Array.fromAsync(engine.generate({ prompt: ["2"] }));
  assert.deepEqual([engine.stats().running, engine.stats().waiting], [1, 1]);
  await assert.rejects(Array.fromAsync(engine.generate({ prompt: ["3"] })), { code: "overloaded" });
  gate.resolve();
  assert.deepEqual((await Promise.all([first, second])).map((events) => events.length), [3, 3]);
  assert.deepEqual([engine.stats().running, engine.stats().waiting], [0, 0]);
  assert.equal(engine.requests.length, 2);
});

Deno.test("cancels a request that still waits", async () => {
  const gate = Promise.withResolvers<void>();
  await using engine = new FakeEngine({ maxRunning: 1, delay: () => gate.promise });
  const first = Array.fromAsync(engine.generate({ prompt: ["1"] }));
  const controller = new AbortController();
  const second = Array.fromAsync(engine.generate({ prompt: ["2"] }, { signal: controller.signal }));
  controller.abort();
  gate.resolve();
  const last = (await second).at(-1);
  assert.equal(last?.type === "done" && last.reason, "cancelled");
  await first;
});

Deno.test("a dead engine ends what runs and is unhealthy", async () => {
  await using engine = new FakeEngine({ tokenMs: 60_000 });
  const running = Array.fromAsync(engine.generate({ prompt: ["1"] }));
  const error = new EngineError("internal", "the engine thread panicked");
  engine.die(error);
  await assert.rejects(running, error);
  await assert.rejects(Array.fromAsync(engine.generate({ prompt: ["1"] })), error);
  assert.equal(engine.stats().healthy, false);
});
