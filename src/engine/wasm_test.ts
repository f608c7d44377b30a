import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { engineContract } from "./contract.ts";
import { type Engine, EngineError, type GenerateEvent } from "./engine.ts";
import { WasmEngine, type WasmOptions, type Weights } from "./wasm.ts";
import { CoreLoop, readRefusal, type Report } from "./wasm_core.ts";
import { type Connect, localLink, workerLink } from "./wasm_link.ts";
import * as loopback from "./wasm_loopback.ts";
import { CONFIG, EMPTY_MODULE, TRAP } from "./wasm_loopback.ts";

const GLUE = new URL("./wasm_loopback.ts", import.meta.url).href;
const LINKS: Record<string, Connect> = {
  "in a Worker": workerLink(GLUE, EMPTY_MODULE),
  "in this thread": localLink(loopback, EMPTY_MODULE),
};

function bytes(...chunks: number[]): Weights {
  const stream = ReadableStream.from(chunks.map((length) => new Uint8Array(length)));
  return { stream, bytes: chunks.reduce((sum, length) => sum + length, 0) };
}

function open(connect: Connect, options: Partial<WasmOptions> = {}): Promise<WasmEngine> {
  return WasmEngine.open({ connect, weights: () => Promise.resolve(bytes(3, 5)), ...options });
}

async function textOf(engine: Engine, prompt: string): Promise<string> {
  let text = "";
  for await (const event of engine.generate({ prompt: [prompt] })) if (event.type === "text") text += event.text;
  return text;
}

for (const [where, connect] of Object.entries(LINKS)) {
  engineContract(`wasm engine over a loopback core ${where}`, () => open(connect));

  Deno.test(`${where}: weights come in pieces of bounded size, with progress`, async () => {
    const progress: number[] = [];
    const weights = () => Promise.resolve(bytes(10, 3 * 2 ** 20, 1));
    const settings = { contextLength: 512, maxRunning: 2, maxWaiting: 3 };
    await using engine = await open(connect, { weights, ...settings, onProgress: ({ done }) => progress.push(done) });
    assert.deepEqual(progress, [10, 10 + 2 ** 20, 10 + 2 ** 21, 10 + 3 * 2 ** 20, 11 + 3 * 2 ** 20]);
    assert.deepEqual(JSON.parse(await textOf(engine, CONFIG)), {
      file_bytes: progress.at(-1),
      context_length: 512,
      max_running: 2,
      max_waiting: 3,
    });
  });

  Deno.test(`${where}: a trap fails what runs, and the next request works on a fresh instance`, async () => {
    let opened = 0;
    const weights = () => Promise.resolve(bytes(++opened));
    await using engine = await open(connect, { weights });
    await textOf(engine, "Hi");
    const before = engine.stats().generatedTokens;
    const running = Array.fromAsync(engine.generate({ prompt: ["Hi"], ignoreEos: true }));
    const trapped = {
      name: "EngineError",
      code: "internal",
      message: /WebAssembly core: it stopped with "unreachable"/,
    };
    await Promise.all([
      assert.rejects(running, trapped),
      assert.rejects(Array.fromAsync(engine.generate({ prompt: [TRAP] })), trapped),
    ]);
    assert.equal(engine.stats().healthy, true);
    assert.equal(JSON.parse(await textOf(engine, CONFIG)).file_bytes, 2);
    assert.ok(engine.stats().generatedTokens > before);
    assert.equal(opened, 2);
  });

  Deno.test(`${where}: weights that cannot be opened again make the engine unhealthy until they can`, async () => {
    const outcomes = [true, false, true];
    const weights = () => {
      return outcomes.shift() ? Promise.resolve(bytes(1)) : Promise.reject(new EngineError("io", "gone"));
    };
    await using engine = await open(connect, { weights });
    await assert.rejects(textOf(engine, TRAP), { code: "internal" });
    await assert.rejects(textOf(engine, "Hi"), { code: "io", message: "gone" });
    assert.equal(engine.stats().healthy, false);
    assert.notEqual(await textOf(engine, "Hi"), "");
    assert.equal(engine.stats().healthy, true);
  });

  Deno.test(`${where}: a file that ends early, a stream that breaks and bad options fail to open`, async () => {
    const short = () => Promise.resolve({ ...bytes(7), bytes: 8 });
    await assert.rejects(open(connect, { weights: short }), { code: "invalid_format", message: /wanted 8 .*got 7/ });
    const stream = new ReadableStream({ pull: (controller) => controller.error(new TypeError("connection lost")) });
    const broken = () => Promise.resolve({ stream, bytes: 8 });
    await assert.rejects(open(connect, { weights: broken }), { code: "internal", message: /connection lost/ });
    await assert.rejects(open(connect, { contextLength: NaN }), { code: "invalid_request", message: /contextLength/ });
  });

  Deno.test(`${where}: a request takes its turn at once while another one runs`, async () => {
    await using engine = await open(connect);
    const long = engine.generate({ prompt: ["Hi"], ignoreEos: true });
    await long.next();
    const ids = await engine.tokenize(["ab"]);
    assert.equal(await engine.detokenize(ids), "<s>ab");
    const events: GenerateEvent[] = [];
    for await (const event of engine.generate({ prompt: ["Hi"], maxTokens: 3 })) events.push(event);
    assert.equal(events.at(-1)?.type, "done");
    await long.return(undefined);
  });
}

Deno.test("closing while the weights are read ends the reading", async () => {
  const left = Promise.withResolvers<void>();
  async function* endless(): AsyncGenerator<Uint8Array> {
    try {
      for (;; await delay(1)) yield new Uint8Array(1);
    } finally {
      left.resolve();
    }
  }
  const files = [bytes(1), { stream: ReadableStream.from(endless()), bytes: 1e9 }];
  const engine = await open(LINKS["in this thread"]!, { weights: () => Promise.resolve(files.shift()!) });
  await assert.rejects(textOf(engine, TRAP));
  const waiting = assert.rejects(textOf(engine, "Hi"), { code: "closed" });
  await delay(5);
  await engine.close();
  await waiting;
  await left.promise;
});

Deno.test("a Worker that cannot load its glue fails to open", async () => {
  const connect = workerLink(new URL("./none.js", import.meta.url).href, EMPTY_MODULE);
  await assert.rejects(open(connect), { code: "internal", message: /none\.js/ });
});

Deno.test("glue that cannot be reset is not used after a trap", async () => {
  const glue = { initSync: loopback.initSync, WasmEngine: loopback.WasmEngine };
  await using engine = await open(localLink(glue, EMPTY_MODULE));
  await assert.rejects(textOf(engine, TRAP), { message: /unreachable/ });
  await assert.rejects(textOf(engine, "Hi"), { code: "internal", message: /glue holds the instance that trapped/ });
});

Deno.test("the loop hands over what a command caused before the next command", () => {
  const reports: Report[] = [];
  const loop = new CoreLoop(loopback, EMPTY_MODULE, (report) => reports.push(report));
  loop.handle({ ticket: 1, call: "open", argument: '{"file_bytes":0}' });
  loop.handle({ ticket: 2, call: "detokenize", argument: Uint32Array.of(0xFFFFFFFF) });
  assert.deepEqual(reports[0], { type: "answer", ticket: 1, answer: undefined });
  const refused = reports[1];
  assert.ok(refused?.type === "refusal" && refused.ticket === 2);
  assert.equal(readRefusal(refused.failure).code, "invalid_request");
  loop.stop();
  loop.handle({ ticket: 3, call: "finish", argument: undefined });
  assert.equal(reports.length, 2);
});

Deno.test("a refusal that is no JSON is still an error", () => {
  for (const failure of ["boom", "null", '{"code":1}']) {
    assert.match(readRefusal(failure).message, /it failed with/);
    assert.equal(readRefusal(failure).code, "internal");
  }
});
