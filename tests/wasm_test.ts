/** The core as WebAssembly: the contract of all engines, the words of the native one, and what only it can show. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { engineContract } from "../src/engine/contract.ts";
import { type Engine, openEngine } from "../src/engine/mod.ts";
import { WasmEngine, type Weights } from "../src/engine/wasm.ts";
import { localLink, workerLink } from "../src/engine/wasm_link.ts";
import { loadWasm, NO_REAL_MODEL, NO_WASM, program, REAL_MODEL, testUnless, TINY_MODEL } from "./support.ts";
import { comparePrompt, type Golden } from "./same_words.ts";

engineContract("wasm engine", () => openEngine({ engine: "wasm", model: TINY_MODEL }), { ignore: NO_WASM });
engineContract("wasm engine in this thread", openHere, { ignore: NO_WASM });

async function openHere(model = TINY_MODEL): Promise<Engine> {
  const { glue, module } = await loadWasm();
  return await WasmEngine.open({ connect: localLink(glue, module), weights: () => weightsOf(model) });
}

async function weightsOf(model: string): Promise<Weights> {
  const file = await Deno.open(model);
  return { stream: file.readable, bytes: (await file.stat()).size };
}

testUnless([NO_WASM], "wasm engine: describes its model as the native one does", async () => {
  await using native = await openEngine({ engine: "native", model: TINY_MODEL });
  await using wasm = await openEngine({ engine: "wasm", model: TINY_MODEL });
  const { device } = wasm.model;
  assert.deepEqual(wasm.model, { ...native.model, device, constrains: false });
  assert.match(device, /^cpu (scalar|simd128)/);
});

testUnless([NO_WASM], "wasm engine: a trap fails what runs, and the next request works", async () => {
  const { module } = await loadWasm();
  const connect = workerLink(new URL("./trapping_glue.ts", import.meta.url).href, module);
  await using engine = await WasmEngine.open({ connect, weights: () => weightsOf(TINY_MODEL) });
  const running = Array.fromAsync(engine.generate({ prompt: ["Once"], ignoreEos: true }));
  const trapping = Array.fromAsync(engine.generate({ prompt: ["trap!"] }));
  const trapped = { name: "EngineError", code: "internal", message: /stopped with "memory access out of bounds"/ };
  await Promise.all([assert.rejects(running, trapped), assert.rejects(trapping, trapped)]);
  const events = await Array.fromAsync(engine.generate({ prompt: ["Once"], maxTokens: 4, ignoreEos: true }));
  const done = events.at(-1);
  assert.ok(done?.type === "done" && done.usage.completionTokens === 4);
});

testUnless(
  [NO_WASM],
  "wasm engine: files that are no model are refused with what was wanted and what came",
  async () => {
    const dir = await Deno.makeTempDir();
    try {
      const model = await Deno.readFile(TINY_MODEL);
      const cases: [name: string, bytes: Uint8Array, code: string, words: RegExp][] = [
        ["text.gguf", new TextEncoder().encode("this is not a model"), "invalid_format", /GGUF/],
        ["empty.gguf", new Uint8Array(), "io", /empty/],
        ["truncated.gguf", model.subarray(0, model.length - 1000), "invalid_format", /file ends early: wanted .*got/],
        ["header.gguf", model.subarray(0, 100), "invalid_format", /file ends early: wanted .*got/],
      ];
      for (const [name, bytes, code, words] of cases) {
        await Deno.writeFile(`${dir}/${name}`, bytes);
        const opening = openEngine({ engine: "wasm", model: `${dir}/${name}` });
        await assert.rejects(opening, { name: "EngineError", code, message: words }, name);
      }
      await assert.rejects(openEngine({ engine: "wasm", model: `${dir}/none` }), {
        code: "io",
        message: /No such file/,
      });
      await assert.rejects(openEngine({ engine: "wasm", model: dir }), {
        code: "unsupported",
        message: /expected a GGUF file for the WebAssembly engine, got the folder .*; llamero convert makes one/,
      });
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  },
);

testUnless([NO_WASM], "auto: native where it can be loaded, else WebAssembly with the reason", async () => {
  const said: string[] = [];
  const onFallback = (sentence: string) => said.push(sentence);
  await using native = await openEngine({ model: TINY_MODEL, onFallback });
  assert.deepEqual([native instanceof WasmEngine, said], [false, []]);
  const library = "/nonexistent/libllamero.so";
  await using wasm = await openEngine({ model: TINY_MODEL, library, onFallback });
  assert.equal(wasm instanceof WasmEngine, true);
  assert.match(said.join("\n"), /^using the WebAssembly engine, .*loading the engine library \/nonexistent/);
});

Deno.test("auto: without any core, both reasons are said", async () => {
  const missing = { library: "/nonexistent/libllamero.so", wasm: "/nonexistent" };
  await assert.rejects(openEngine({ model: TINY_MODEL, ...missing }), {
    code: "io",
    message: /libllamero\.so: .*cargo build --release.*; nor is there .*deno task build:wasm/,
  });
  await assert.rejects(openEngine({ model: TINY_MODEL, ...missing, engine: "wasm" }), {
    code: "io",
    message: /loading the engine \/nonexistent\/llamero_bg\.wasm: .*deno task build:wasm/,
  });
});

Deno.test("auto: WebAssembly is no substitute for a device", async () => {
  const [model, library] = [TINY_MODEL, "/nonexistent/libllamero.so"];
  await assert.rejects(openEngine({ model, library, device: "cuda" }), { code: "io", message: /libllamero\.so/ });
  const opening = openEngine({ engine: "wasm", model, device: "cuda:1" });
  await assert.rejects(opening, { code: "unsupported", message: /expected the device cpu .*, got cuda:1$/ });
});

Deno.test("wasm engine: another cache than its own is refused", async () => {
  const opening = openEngine({ engine: "wasm", model: TINY_MODEL, kv: "q8_0" });
  await assert.rejects(opening, { code: "unsupported", message: /keys and values as f16, got q8_0$/ });
});

testUnless([NO_WASM, NO_REAL_MODEL], "wasm engine: a model is never twice in memory", async () => {
  const { glue, module } = await loadWasm();
  await using engine = await openHere(REAL_MODEL!);
  const prompt = ["The quick brown fox jumps over the lazy dog. ".repeat(20)];
  const tokens = (await engine.tokenize(prompt)).length;
  await Array.fromAsync(engine.generate({ prompt, maxTokens: 1 }));
  const { memory } = glue.initSync({ module }) as { memory: WebAssembly.Memory };
  // Keys and values of 30 layers, 3 heads of 64 numbers of 4 bytes.
  const cache = tokens * 2 * 30 * 3 * 64 * 4;
  const { size } = await Deno.stat(REAL_MODEL!);
  // Linear memory never shrinks, so this is the peak.
  const share = memory.buffer.byteLength / (size + cache);
  assert.ok(share <= 1.3, `${share.toFixed(2)} of file and cache`);
});

testUnless([NO_WASM, NO_REAL_MODEL], "wasm engine: cancelling takes a token at most", async () => {
  await using engine = await openEngine({ engine: "wasm", model: REAL_MODEL! });
  const left = new AbortController();
  let seen = 0;
  for await (const event of engine.generate({ prompt: ["Once"], ignoreEos: true }, { signal: left.signal })) {
    if (event.type === "text" && seen === 0) {
      seen = event.completionTokens;
      left.abort();
    }
    if (event.type !== "done") continue;
    assert.equal(event.reason, "cancelled");
    // One that was under way, and one for a message that has just missed its turn.
    assert.ok(event.usage.completionTokens <= seen + 2, `${event.usage.completionTokens} after ${seen}`);
  }
});

testUnless([NO_WASM], "wasm engine: says exactly what the native scalar kernels say", async () => {
  const golden = fileURLToPath(new URL("./golden/tiny-llama2.greedy.json", import.meta.url));
  const { success, stdout, stderr } = await program("scalar_words.ts", [TINY_MODEL, golden]).output();
  const text = new TextDecoder();
  assert.ok(success, text.decode(stderr));
  const { devices: [native, wasm], ...compared } = JSON.parse(text.decode(stdout));
  assert.deepEqual(compared, { steps: 8 * 64, differing: 0 });
  assert.equal(native, "cpu scalar");
  assert.match(wasm, /^cpu (scalar|simd128)$/);
});

testUnless([NO_WASM, NO_REAL_MODEL], "wasm engine: SmolLM2 says the same as native, but for near ties", async () => {
  const golden: Golden = JSON.parse(
    await Deno.readTextFile(new URL("./golden/smollm2.greedy.json", import.meta.url)),
  );
  await using native = await openEngine({ engine: "native", model: REAL_MODEL! });
  await using wasm = await openEngine({ engine: "wasm", model: REAL_MODEL! });
  let [steps, differing] = [0, 0];
  for (const prompt of golden.prompts) {
    const compared = await comparePrompt(native, wasm, prompt, golden.tolerance.near_tie);
    steps += compared.steps;
    differing += compared.differing;
  }
  console.log(`${differing} of ${steps} greedy steps differ, all near ties`);
  assert.ok(steps >= 8 * 64 * 0.9, `${steps} steps could be compared`);
  assert.ok(differing <= golden.tolerance.differing_steps, `${differing} steps differ`);
});
