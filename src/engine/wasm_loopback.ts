/**
 * The glue of the WebAssembly core played over a `FakeEngine`, so that the engine, its loop and its Worker can be
 * tested without a core. A Worker imports it in the place of the generated glue. Used from test files only.
 *
 * @module
 */

import { EngineError } from "./engine.ts";
import { FakeEngine } from "./fake.ts";
import {
  packEmbedding,
  packEvent,
  packFailure,
  packModel,
  packStats,
  readEmbedRequest,
  readRequest,
} from "./loopback.ts";
import type { WasmCore } from "./wasm_core.ts";

/** A module without anything in it: the magic and version 1. */
export const EMPTY_MODULE = new WebAssembly.Module(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0));
/** A word in a prompt that makes the next step trap. */
export const TRAP = "trap!";
/** A prompt that is answered by the configuration with which the core was made. */
export const CONFIG = "config?";

/** Nothing to make. */
export function initSync(): void {}

/** Nothing to replace. */
export function __wbg_reset_state(): void {}

/** A core with scripted replies. Any file of the right size is a model. */
export class WasmEngine implements WasmCore {
  readonly #config: string;
  readonly #fileBytes: number;
  readonly #fake: FakeEngine;
  readonly #cancels = new Map<number, AbortController>();
  #records: Uint8Array[] = [];
  #bytes = 0;
  #requests = 0;
  #running = 0;
  #trap = false;

  /** Made from the configuration's JSON. */
  constructor(config: string) {
    this.#config = config;
    this.#fileBytes = (JSON.parse(config) as { file_bytes: number }).file_bytes;
    this.#fake = new FakeEngine({
      model: { constrains: false },
      reply: ({ prompt }) => prompt.includes(CONFIG) ? this.#config : "The quick brown fox jumps over the lazy dog",
    });
  }

  push(chunk: Uint8Array): void {
    this.#bytes += chunk.length;
  }

  finish(): string {
    if (this.#bytes === this.#fileBytes) return decode(packModel(this.#fake.model));
    throw refusal(
      new EngineError("invalid_format", `file ends early: wanted ${this.#fileBytes} bytes, got ${this.#bytes}`),
    );
  }

  submit(json: string): number {
    const request = readRequest(JSON.parse(json));
    this.#trap ||= request.prompt.some((part) => part.includes(TRAP));
    return this.#begin(async (id, signal) => {
      for await (const event of this.#fake.generate(request, { signal })) this.#records.push(packEvent(id, event));
    });
  }

  embed(json: string): number {
    const request = readEmbedRequest(JSON.parse(json));
    this.#trap ||= request.prompt.some((part) => part.includes(TRAP));
    return this.#begin(async (id, signal) => {
      const embedding = await this.#fake.embed(request, { signal });
      this.#records.push(packEmbedding(id, embedding));
    });
  }

  cancel(request: number): void {
    this.#cancels.get(request)?.abort();
  }

  /** The fake engine goes on by itself between two calls. */
  step(): boolean {
    if (this.#trap) throw new WebAssembly.RuntimeError("unreachable");
    return this.#running > 0 || this.#records.length > 0;
  }

  events(): Uint8Array {
    const bytes = Uint8Array.from(this.#records.flatMap((record) => [...record]));
    this.#records = [];
    return bytes;
  }

  tokenize(prompt: string): Uint32Array {
    return Uint32Array.from(answer(() => this.#fake.encode(JSON.parse(prompt))));
  }

  detokenize(ids: Uint32Array): string {
    return answer(() => this.#fake.decode([...ids]));
  }

  stats(): string {
    return decode(packStats(this.#fake.stats()));
  }

  free(): void {
    void this.#fake.close();
  }

  #begin(play: (id: number, signal: AbortSignal) => Promise<void>): number {
    const id = ++this.#requests;
    const controller = new AbortController();
    this.#cancels.set(id, controller);
    this.#running++;
    play(id, controller.signal)
      .catch((error) => this.#records.push(packFailure(id, error)))
      .finally(() => this.#running--);
    return id;
  }
}

function answer<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw refusal(error as EngineError);
  }
}

function refusal({ code, message }: EngineError): string {
  return JSON.stringify({ code, message });
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
