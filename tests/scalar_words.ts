/**
 * A program, started by wasm_test.ts: compares the core as WebAssembly with the native one on its scalar kernels, which
 * add in the same order. A process of its own, since the first engine of a process settles its kernels.
 *
 * Arguments: the model, its greedy golden file. Writes `{ devices, steps, differing }` as JSON.
 *
 * @module
 */
import { openEngine } from "../src/engine/mod.ts";
import { comparePrompt, type Golden } from "./same_words.ts";

const [model, file] = Deno.args as [string, string];
const golden: Golden = JSON.parse(await Deno.readTextFile(file));
await using native = await openEngine({ engine: "native", model, cpu: "scalar" });
await using wasm = await openEngine({ engine: "wasm", model });
let [steps, differing] = [0, 0];
for (const prompt of golden.prompts) {
  const compared = await comparePrompt(native, wasm, prompt, golden.tolerance.near_tie);
  steps += compared.steps;
  differing += compared.differing;
}
console.log(JSON.stringify({ devices: [native.model.device, wasm.model.device], steps, differing }));
