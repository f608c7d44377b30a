/**
 * The real glue with one word that makes the core trap for real: an address that memory does not have. Workers import
 * it in the place of the generated one.
 *
 * @module
 */
import { pathToFileURL } from "node:url";
import type { Glue } from "../src/engine/wasm_core.ts";
import { WASM_FILES } from "./support.ts";

/** A prompt with this word traps. */
export const TRAP = "trap!";

/** The functions of the instance, as wasm-bindgen names them. */
interface Exports {
  wasmengine_step(address: number): number;
}

const real: Glue = await import(pathToFileURL(WASM_FILES.glue).href);
let exports: Exports;

/** Makes the instance and keeps its functions. */
export function initSync(input: { module: WebAssembly.Module }): void {
  exports = real.initSync(input) as Exports;
}

/** The core, with the word. */
export class WasmEngine extends real.WasmEngine {
  #armed = false;

  override submit(request: string): number {
    this.#armed ||= request.includes(TRAP);
    return super.submit(request);
  }

  override step(): boolean {
    return this.#armed ? exports.wasmengine_step(-16) !== 0 : super.step();
  }
}
