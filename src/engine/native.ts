/**
 * The engine behind the C border: the Rust core loaded by Deno's FFI. Commands are calls that return at once; events
 * come back through one outstanding nonblocking wait per engine, whose batches are handed to per-request queues.
 * (Callbacks per token would stall the engine thread, a blocked call per stream would use up Deno's thread pool.)
 *
 * Absent here: what the bytes mean (records.ts), which values are valid (request.ts), where the library lies (open.ts).
 *
 * @module
 */

import {
  type Embedding,
  type EmbedRequest,
  type Engine,
  EngineError,
  type EngineStats,
  type GenerateEvent,
  type GenerateOptions,
  type GenerateRequest,
  type LoadOptions,
  type LoadProgress,
  type ModelInfo,
} from "./engine.ts";
import { ERROR_NAMES, readModel, readRecords, readStats, type RecordSink } from "./records.ts";
import {
  checkEmbedRequest,
  checkPrompt,
  checkRequest,
  checkTokenIds,
  encodeConfig,
  encodeEmbedRequest,
  encodeRequest,
} from "./request.ts";
import { RequestStreams } from "./streams.ts";
import { ABI_VERSION, SYMBOLS, type Symbols, VERSION_SYMBOL } from "./symbols.ts";

/** Room for one batch of event records; the least that the core takes. */
export const EVENT_BUFFER_BYTES = 256 * 1024;
/** How long one wait sleeps when nothing happens. Only a heartbeat: events and close end it at once. */
const WAIT_TIMEOUT_MS = 1000;
/** First guess for sentences and statistics; a longer answer costs a second call. */
const ANSWER_BYTES = 1024;

/**
 * From this size in bytes on, a text (or its ids) is read on another thread: the event loop may stand still for 3 ms, as
 * long as a text just below takes, while a nonblocking call costs some 50 us.
 */
export const LONG_INPUT_BYTES = 16 * 1024;

const encoder = new TextEncoder();
// ignoreBOM keeps a U+FEFF at the start of a text.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** What to load and how much of it to use. */
export interface NativeOptions extends LoadOptions {
  /** Path of the model's folder, or of one of its files. */
  model: string;
  /** Folders of adapters to merge into its weights, in order. */
  lora?: readonly string[] | undefined;
  /** A smaller model with the same vocabulary that guesses ahead: its folder, or one of its files. */
  draft?: string | undefined;
  /**
   * Instruction set of the kernels, such as `scalar` or `avx2`; default: the fastest of this machine. The first engine
   * settles it for the process.
   */
  cpu?: string | undefined;
  /** How conversations keep keys and values: `f16`, which is the default, `q8_0` or `f32`. */
  kv?: string | undefined;
  /** Where the model runs: `cpu`, which is the default, or in a core that was built for it `cuda` or `cuda:N`. */
  device?: string;
  /** A folder where packed weights are kept, for the CPU; without one they are packed in memory at each start. */
  packed?: string | undefined;
}

/**
 * Load the core's library from `path` and check that it speaks our ABI.
 *
 * It stays loaded for the life of the process: the core's worker threads outlive engines, and unmapping code under
 * a running thread crashes.
 *
 * @throws {EngineError} `io` when the file or the permission is missing, `unsupported` on another ABI.
 */
export function loadLibrary(path: string): Symbols {
  const known = libraries.get(path);
  if (known !== undefined) return known;
  const { symbols: { llamero_abi_version } } = dlopen(path, VERSION_SYMBOL);
  const version = llamero_abi_version();
  if (version !== ABI_VERSION) {
    throw new EngineError(
      "unsupported",
      `loading ${path}: expected ABI version ${ABI_VERSION}, got ${version}; ${BUILD_HINT}`,
    );
  }
  const { symbols } = dlopen(path, SYMBOLS);
  libraries.set(path, symbols);
  return symbols;
}

const libraries = new Map<string, Symbols>();
const BUILD_HINT = "build it with `cargo build --release`";

function dlopen<T extends Deno.ForeignLibraryInterface>(path: string, symbols: T): Deno.DynamicLibrary<T> {
  try {
    return Deno.dlopen(path, symbols);
  } catch (cause) {
    const reason = cause instanceof Deno.errors.NotCapable
      ? `no permission; run deno with --allow-ffi=${path}`
      : `${cause instanceof Error ? cause.message : cause}; ${BUILD_HINT}`;
    throw new EngineError("io", `loading the engine library ${path}: ${reason}`, { cause });
  }
}

/** A call that reads a buffer into another. */
type ReadCall = Symbols["llamero_tokenize" | "llamero_tokenize_long"];

/** An engine in the core. Made by {@linkcode NativeEngine.open}. */
export class NativeEngine implements Engine {
  readonly #symbols: Symbols;
  readonly #id: number;
  readonly #streams = new RequestStreams();
  /** Buffers of calls on other threads, which must not be collected meanwhile. */
  readonly #lent = new Set<unknown>();
  readonly #ready = Promise.withResolvers<void>();
  readonly #pumping: Promise<void>;
  #model?: ModelInfo;
  #failure?: EngineError;
  #closing?: Promise<void>;

  /**
   * Open a model file and wait until it can serve.
   *
   * @throws {EngineError} when the file cannot be read or used.
   */
  static async open(symbols: Symbols, options: NativeOptions): Promise<NativeEngine> {
    const { model: path, lora, draft, cpu, kv, device, packed } = options;
    const config = encoder.encode(encodeConfig({ path, lora, draft, cpu, kv, device, packed }, options));
    const id = symbols.llamero_open(config, size(config));
    if (id < 0) throw lastError(symbols, 0, id);
    const engine = new NativeEngine(symbols, id, options.onProgress);
    try {
      await engine.#ready.promise;
      engine.#model = readModel(engine.#answer((out) => symbols.llamero_describe(id, out, size(out))));
      return engine;
    } catch (error) {
      await engine.close();
      throw error;
    }
  }

  private constructor(symbols: Symbols, id: number, onProgress?: (progress: LoadProgress) => void) {
    this.#symbols = symbols;
    this.#id = id;
    this.#pumping = this.#pump(this.#sink(onProgress));
  }

  get model(): ModelInfo {
    if (this.#model === undefined) throw new EngineError("internal", "reading the model before it is loaded");
    return this.#model;
  }

  async *generate(request: GenerateRequest, { signal }: GenerateOptions = {}): AsyncGenerator<GenerateEvent> {
    this.#assertServing();
    checkRequest(request);
    const id = this.#submit(this.#symbols.llamero_submit, encodeRequest(request));
    yield* this.#streams.open(id, () => this.#cancel(id)).read(signal);
  }

  async embed(request: EmbedRequest, { signal }: GenerateOptions = {}): Promise<Embedding> {
    this.#assertServing();
    checkEmbedRequest(request);
    const id = this.#submit(this.#symbols.llamero_embed, encodeEmbedRequest(request));
    return await this.#streams.embedding(id, () => this.#cancel(id), signal);
  }

  async tokenize(prompt: readonly string[]): Promise<number[]> {
    this.#assertOpen();
    checkPrompt(prompt);
    const json = encoder.encode(JSON.stringify(prompt));
    // No token is shorter than a byte, so this fits at the first call but for begin and end tokens.
    const { llamero_tokenize, llamero_tokenize_long } = this.#symbols;
    const call = json.length < LONG_INPUT_BYTES ? llamero_tokenize : llamero_tokenize_long;
    return Array.from(await this.#read(call, json, new Uint32Array(json.length)));
  }

  async detokenize(ids: readonly number[]): Promise<string> {
    this.#assertOpen();
    checkTokenIds(ids);
    const packed = Uint32Array.from(ids);
    const { llamero_detokenize, llamero_detokenize_long } = this.#symbols;
    const call = packed.byteLength < LONG_INPUT_BYTES ? llamero_detokenize : llamero_detokenize_long;
    return decoder.decode(await this.#read(call, packed, new Uint8Array(packed.byteLength + ANSWER_BYTES)));
  }

  stats(): EngineStats {
    this.#assertOpen();
    const stats = readStats(this.#answer((out) => this.#symbols.llamero_stats(this.#id, out, size(out))));
    return { ...stats, healthy: stats.healthy && this.#failure === undefined };
  }

  close(): Promise<void> {
    return this.#closing ??= this.#shutDown();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #shutDown(): Promise<void> {
    await this.#symbols.llamero_close(this.#id);
    await this.#pumping;
  }

  #submit(call: Symbols["llamero_submit"], request: string): number {
    const json = encoder.encode(request);
    return this.#check(call(this.#id, json, size(json)));
  }

  #cancel(request: number): void {
    this.#symbols.llamero_cancel(this.#id, request);
  }

  /**
   * What the core makes of `input`: `out`, or a larger one where that is too small. The sentence of a failed long call may
   * be that of another call which failed meanwhile.
   */
  async #read<Out extends Uint8Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>(
    call: ReadCall,
    input: Uint8Array<ArrayBuffer> | Uint32Array<ArrayBuffer>,
    out: Out,
  ): Promise<Out> {
    const lent = [input, out];
    this.#lent.add(lent);
    try {
      const count = this.#check(await call(this.#id, input, size(input), out, size(out)));
      if (count <= out.length) return out.subarray(0, count) as Out;
      return await this.#read(call, input, new (out.constructor as new (length: number) => Out)(count));
    } finally {
      this.#lent.delete(lent);
    }
  }

  /** The one outstanding wait. Ends when the engine is closed or has failed; never rejects. */
  async #pump(sink: RecordSink): Promise<void> {
    const buffer = new Uint8Array(EVENT_BUFFER_BYTES);
    try {
      while (this.#failure === undefined && this.#closing === undefined) {
        const written = await this.#symbols.llamero_wait(this.#id, buffer, size(buffer), WAIT_TIMEOUT_MS);
        readRecords(buffer.subarray(0, this.#check(written)), sink);
      }
    } catch (error) {
      // Closing ends the wait with an error of its own, which says less than ours.
      if (this.#closing === undefined) this.#fail(asEngineError(error));
    }
    this.#fail(new EngineError("closed", "generating: the engine was closed"));
  }

  #sink(onProgress?: (progress: LoadProgress) => void): RecordSink {
    return {
      loading: (done, total) => onProgress?.({ done, total }),
      ready: () => this.#ready.resolve(),
      failed: (error) => this.#fail(error),
      ...this.#streams.sink,
    };
  }

  /** No more events will come: end everything that waits for one. */
  #fail(error: EngineError): void {
    this.#failure ??= error;
    this.#ready.reject(error);
    this.#streams.fail(error);
  }

  #assertServing(): void {
    this.#assertOpen();
    if (this.#failure !== undefined) throw this.#failure;
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new EngineError("closed", "calling an engine that is closed");
  }

  #answer(call: (out: Uint8Array<ArrayBuffer>) => number): Uint8Array {
    return readAnswer((out) => this.#check(call(out)));
  }

  #check(result: number): number {
    if (result < 0) throw lastError(this.#symbols, this.#id, result);
    return result;
  }
}

/** Bytes of an answer whose length the core knows: asked again when the first buffer is too small. */
export function readAnswer(call: (out: Uint8Array<ArrayBuffer>) => number): Uint8Array {
  let out = new Uint8Array(ANSWER_BYTES);
  for (;;) {
    const needed = call(out);
    if (needed <= out.length) return out.subarray(0, Math.max(needed, 0));
    out = new Uint8Array(needed);
  }
}

/** A length as Deno's FFI wants a `usize`. */
export function size(buffer: { length: number }): bigint {
  return BigInt(buffer.length);
}

/** The sentence of an engine's (0: any) last failed call as an error. */
export function lastError(symbols: Symbols, engine: number, code: number): EngineError {
  const sentence = decoder.decode(readAnswer((out) => symbols.llamero_last_error(engine, out, size(out))));
  const name = ERROR_NAMES[-code - 1] ?? "internal";
  return new EngineError(name, sentence || `calling the core: it answered with code ${code} (${name})`);
}

function asEngineError(cause: unknown): EngineError {
  if (cause instanceof EngineError) return cause;
  const reason = cause instanceof Error ? cause.message : cause;
  return new EngineError("internal", `dispatching events: ${reason}`, { cause });
}
