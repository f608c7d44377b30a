import assert from "node:assert/strict";
import { engineContract } from "./contract.ts";
import { EngineError, type GenerateEvent } from "./engine.ts";
import { FakeEngine, type FakeOptions } from "./fake.ts";
import { LoopbackCore, packJson, packLoading, packRecord, packText } from "./loopback.ts";
import { loadLibrary, LONG_INPUT_BYTES, NativeEngine, type NativeOptions } from "./native.ts";
import { libraryName, libraryPath } from "./open.ts";
import { RECORD_KIND } from "./records.ts";

const REQUEST = { prompt: ["Hi"] };

async function open(
  fakeOptions: FakeOptions = {},
  options: Partial<NativeOptions> = {},
): Promise<{ core: LoopbackCore; engine: NativeEngine }> {
  const fake = new FakeEngine(fakeOptions);
  const core = new LoopbackCore(fake);
  core.emit(packRecord(0, RECORD_KIND.loading, packLoading(1, 2)));
  core.emit(packRecord(0, RECORD_KIND.ready, new Uint8Array()));
  return { core, engine: await NativeEngine.open(core.symbols, { model: "m.gguf", ...options }) };
}

engineContract("native engine over a loopback core", async () => (await open()).engine);

Deno.test("tells the model and the progress of loading", async () => {
  const progress: unknown[] = [];
  const chatTemplate = "{{ 'x' * 2 }}".repeat(5000);
  const { core, engine } = await open({ model: { chatTemplate } }, {
    contextLength: 512,
    maxRunning: 2,
    maxWaiting: 3,
    draft: "d.gguf",
    speculate: "auto",
    onProgress: (step) => progress.push(step),
  });
  assert.deepEqual(progress, [{ done: 1, total: 2 }]);
  assert.deepEqual(core.config, {
    path: "m.gguf",
    draft: "d.gguf",
    context_length: 512,
    max_running: 2,
    max_waiting: 3,
    speculate: "auto",
  });
  assert.deepEqual(engine.model, {
    ...new FakeEngine().model,
    chatTemplate,
    notMapped: undefined,
    defaults: undefined,
  });
  await engine.close();
});

Deno.test("refuses options that JSON would lose", async () => {
  const { symbols } = new LoopbackCore(new FakeEngine());
  const opening = NativeEngine.open(symbols, { model: "m.gguf", contextLength: NaN });
  await assert.rejects(opening, { code: "invalid_request", message: /contextLength.*got NaN/ });
});

Deno.test("fails to open with the core's sentence", async () => {
  const core = new LoopbackCore(new FakeEngine());
  core.refusal = new EngineError("io", "opening m.gguf: no such file".padEnd(3000, "!"));
  const { code, message } = core.refusal;
  await assert.rejects(NativeEngine.open(core.symbols, { model: "m.gguf" }), { code, message });
  assert.equal(core.closes, 0);
});

Deno.test("fails to open when loading fails, and closes", async () => {
  const core = new LoopbackCore(new FakeEngine());
  core.emit(packRecord(0, RECORD_KIND.failed, packJson({ code: "invalid_format", message: "no magic" })));
  await assert.rejects(NativeEngine.open(core.symbols, { model: "m.gguf" }), {
    name: "EngineError",
    code: "invalid_format",
    message: "no magic",
  });
  assert.deepEqual([core.closes, core.outstanding], [1, 0]);
});

Deno.test("passes on a refusal of submit", async () => {
  const { core, engine } = await open();
  const message = "queueing: 64 requests wait already";
  core.refusal = new EngineError("overloaded", message);
  await assert.rejects(Array.fromAsync(engine.generate(REQUEST)), { code: "overloaded", message });
  assert.equal((await Array.fromAsync(engine.generate(REQUEST))).at(-1)?.type, "done");
  await engine.close();
});

Deno.test("a dead engine ends all requests and is unhealthy", async () => {
  const { core, engine } = await open({ tokenMs: 60_000 });
  const running = [1, 2].map(() => Array.fromAsync(engine.generate(REQUEST)));
  core.emit(packRecord(0, RECORD_KIND.failed, packJson({ code: "internal", message: "the engine thread panicked" })));
  const died = { code: "internal", message: "the engine thread panicked" };
  for (const events of running) await assert.rejects(events, died);
  await assert.rejects(Array.fromAsync(engine.generate(REQUEST)), died);
  assert.equal(engine.stats().healthy, false);
  assert.equal(core.outstanding, 0);
  await engine.close();
});

Deno.test("malformed records end the engine instead of hanging its readers", async () => {
  const { core, engine } = await open({ tokenMs: 60_000 });
  const running = Array.fromAsync(engine.generate(REQUEST));
  core.emit(new Uint8Array(4));
  await assert.rejects(running, { code: "internal", message: /reading event records/ });
  await engine.close();
});

Deno.test("drops events of requests that nobody reads", async () => {
  const { core, engine } = await open();
  core.emit(packRecord(99, RECORD_KIND.text, packText(1, "x")));
  core.emit(packRecord(99, RECORD_KIND.error, packJson({ code: "internal", message: "x" })));
  core.emit(new Uint8Array()); // a wait that times out
  const events = await Array.fromAsync(engine.generate(REQUEST));
  assert.equal(events.at(-1)?.type, "done");
  await engine.close();
});

Deno.test("gives out what came before a failure", async () => {
  const error = new EngineError("internal", "decoding failed");
  const { engine } = await open({ failure: { tokens: 2, error } });
  const seen: GenerateEvent[] = [];
  await assert.rejects(async () => {
    for await (const event of engine.generate(REQUEST)) seen.push(event);
  }, { message: "decoding failed" });
  assert.deepEqual(seen.map((event) => event.type), ["started", "text", "text"]);
  await engine.close();
});

Deno.test("leaves no wait outstanding after close", async () => {
  const { core, engine } = await open();
  assert.equal(core.outstanding, 1);
  await Promise.all([engine.close(), engine.close()]);
  await engine[Symbol.asyncDispose]();
  assert.deepEqual([core.outstanding, core.closes], [0, 1]);
});

Deno.test("a dead or closed engine ends embeddings", async () => {
  for (const how of ["dies", "closes"]) {
    const { core, engine } = await open({ tokenMs: 60_000 });
    const vector = assert.rejects(engine.embed(REQUEST), { code: how === "dies" ? "internal" : "closed" });
    if (how === "dies") core.emit(packRecord(0, RECORD_KIND.failed, packJson({ code: "internal", message: "x" })));
    else await engine.close();
    await vector;
    await engine.close();
  }
});

Deno.test("long texts and their ids are read on another thread, short ones here", async () => {
  const { core, engine } = await open();
  const text = "x".repeat(LONG_INPUT_BYTES);
  const ids = await engine.tokenize([text]);
  assert.equal(core.longCalls, 1);
  assert.ok((await engine.detokenize(ids)).endsWith(text));
  assert.equal(core.longCalls, 2);
  assert.equal((await engine.detokenize(await engine.tokenize(["Hi"]))).slice(-2), "Hi");
  await assert.rejects(engine.detokenize([...ids, engine.model.vocabSize]), { code: "invalid_request" });
  assert.equal(core.longCalls, 3);
  await engine.close();
});

Deno.test("dispatches a burst of 20,000 events without growing slow", async () => {
  const { core, engine } = await open({ delay: () => new Promise(() => {}) });
  const count = 20_000;
  const events = engine.generate(REQUEST);
  const first = events.next();
  const started = performance.now();
  for (let index = 1; index <= count; index++) core.emit(packRecord(1, RECORD_KIND.text, packText(index, " word")));
  await first;
  for (let index = 2; index <= count; index++) await events.next();
  const elapsedMs = performance.now() - started;
  assert.ok(elapsedMs < 2000, `${elapsedMs} ms`);
  await engine.close();
});

Deno.test("a library that is missing says how to build it", () => {
  assert.throws(() => loadLibrary("/nonexistent/libllamero.so"), {
    name: "EngineError",
    code: "io",
    message: /^loading the engine library \/nonexistent\/libllamero\.so: .*cargo build --release/,
  });
});

Deno.test("a missing permission is named", { permissions: { ffi: false } }, () => {
  assert.throws(() => loadLibrary("/nonexistent/libllamero.so"), {
    code: "io",
    message: /run deno with --allow-ffi=\/nonexistent\/libllamero\.so$/,
  });
});

Deno.test("finds the library of the release build", { permissions: { read: true } }, () => {
  assert.match(libraryPath(), /target[/\\]release[/\\](lib)?llamero\.(so|dylib|dll)$/);
});

Deno.test("takes the library from the environment", { permissions: { env: ["LLAMERO_LIB"] } }, () => {
  Deno.env.set("LLAMERO_LIB", "/elsewhere/libllamero.so");
  try {
    assert.equal(libraryPath(), "/elsewhere/libllamero.so");
  } finally {
    Deno.env.delete("LLAMERO_LIB");
  }
});

Deno.test("names the library as cargo does", () => {
  const names = (["linux", "darwin", "windows"] as const).map(libraryName);
  assert.deepEqual(names, ["libllamero.so", "libllamero.dylib", "llamero.dll"]);
});
