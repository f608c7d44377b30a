/**
 * The engine behind the WebAssembly border: the same Rust core, driven by a loop in a Worker or in this thread
 * (wasm_core.ts). Weights are streamed into it piece by piece, so that they are never twice in memory.
 *
 * A trap ends the requests that run and throws the instance away; the next call loads the weights into a fresh one.
 *
 * Absent here: files, the generated glue, any one runtime's names.
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
  type ModelInfo,
} from "./engine.ts";
import { readModel, readRecords, readStats, type RecordSink } from "./records.ts";
import {
  checkEmbedRequest,
  checkPrompt,
  checkRequest,
  checkTokenIds,
  encodeConfig,
  encodeEmbedRequest,
  encodeRequest,
} from "./request.ts";
import { type RequestStream, RequestStreams } from "./streams.ts";
import { type Command, type CoreCalls, readRefusal, type Report } from "./wasm_core.ts";
import type { Connect, CoreLink } from "./wasm_link.ts";

/** Weights are handed over in pieces of at most this many bytes: each is copied once more on its way. */
const PIECE_BYTES = 1 << 20;

const encoder = new TextEncoder();
const IDLE: EngineStats = {
  waiting: 0,
  running: 0,
  generatedTokens: 0,
  proposedTokens: 0,
  acceptedTokens: 0,
  healthy: true,
};

/** The bytes of a model file. */
export interface Weights {
  stream: ReadableStream<Uint8Array>;
  /** Size of the whole file. */
  bytes: number;
}

/** Where a model comes from and where it runs. */
export interface WasmOptions extends LoadOptions {
  /** Starts a core. */
  connect: Connect;
  /** Opens the model file from its beginning; called again after a trap. */
  weights: () => Promise<Weights>;
}

/** An engine in WebAssembly. Made by {@linkcode WasmEngine.open}. */
export class WasmEngine implements Engine {
  readonly #options: WasmOptions;
  #instance?: Instance;
  #model?: ModelInfo;
  /** Tokens of instances that are gone. */
  #before = IDLE;
  #healthy = true;
  #closed = false;

  /**
   * Load a model and wait until it can serve.
   *
   * @throws {EngineError} when the weights cannot be read or used.
   */
  static async open(options: WasmOptions): Promise<WasmEngine> {
    const engine = new WasmEngine(options);
    engine.#model = await (await engine.#ready()).model;
    return engine;
  }

  private constructor(options: WasmOptions) {
    this.#options = options;
  }

  get model(): ModelInfo {
    if (this.#model === undefined) throw new EngineError("internal", "reading the model before it is loaded");
    return this.#model;
  }

  async *generate(request: GenerateRequest, { signal }: GenerateOptions = {}): AsyncGenerator<GenerateEvent> {
    this.#assertOpen();
    checkRequest(request);
    const instance = await this.#ready();
    const stream = await instance.submit(encodeRequest(request));
    yield* stream.read(signal);
  }

  async embed(request: EmbedRequest, { signal }: GenerateOptions = {}): Promise<Embedding> {
    this.#assertOpen();
    checkEmbedRequest(request);
    const instance = await this.#ready();
    return await instance.embed(encodeEmbedRequest(request), signal);
  }

  async tokenize(prompt: readonly string[]): Promise<number[]> {
    this.#assertOpen();
    checkPrompt(prompt);
    const instance = await this.#ready();
    return Array.from(await instance.call("tokenize", JSON.stringify(prompt)));
  }

  async detokenize(ids: readonly number[]): Promise<string> {
    this.#assertOpen();
    checkTokenIds(ids);
    const instance = await this.#ready();
    return await instance.call("detokenize", Uint32Array.from(ids));
  }

  stats(): EngineStats {
    this.#assertOpen();
    const stats = withTokens(this.#instance?.stats ?? IDLE, this.#before);
    return { ...stats, healthy: stats.healthy && this.#healthy };
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#instance?.end(new EngineError("closed", "generating: the engine was closed"));
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The instance, loaded; a fresh one when there is none. */
  async #ready(): Promise<Instance> {
    const instance = this.#instance ??= this.#start();
    await instance.model;
    this.#healthy = true;
    return instance;
  }

  #start(): Instance {
    return new Instance(this.#options, ({ stats, loaded }) => {
      this.#instance = undefined;
      this.#before = withTokens(this.#before, stats);
      // One that had been loaded is replaced at the next call; one that could not be loaded tells of worse.
      this.#healthy = loaded;
    });
  }

  #assertOpen(): void {
    if (this.#closed) throw new EngineError("closed", "calling an engine that is closed");
  }
}

/** The first stats, with the tokens of both. */
function withTokens(stats: EngineStats, others: EngineStats): EngineStats {
  return {
    ...stats,
    generatedTokens: stats.generatedTokens + others.generatedTokens,
    proposedTokens: stats.proposedTokens + others.proposedTokens,
    acceptedTokens: stats.acceptedTokens + others.acceptedTokens,
  };
}

/** A call whose answer is awaited. */
interface Pending {
  resolve(answer: unknown): void;
  reject(error: EngineError): void;
}

/** One core with the model in it, from its start to its end. */
class Instance {
  /** The model's description, once it is loaded. */
  readonly model: Promise<ModelInfo>;
  /** As of the core's last report. */
  stats = IDLE;
  loaded = false;
  readonly #onEnd: (instance: Instance) => void;
  readonly #streams = new RequestStreams();
  readonly #pending = new Map<number, Pending>();
  readonly #sink: RecordSink;
  #link?: CoreLink;
  #tickets = 0;
  #failure?: EngineError;

  constructor(options: WasmOptions, onEnd: (instance: Instance) => void) {
    this.#onEnd = onEnd;
    this.#sink = {
      ...this.#streams.sink,
      // Progress is known on this side, and loading ends with an answer.
      loading: () => {},
      ready: () => {},
      failed: (error) => this.end(error),
    };
    this.model = this.#load(options);
    // Whoever needs the model awaits it; closing an engine that is still loading need not.
    this.model.catch(() => {});
  }

  /** Queue a request. */
  submit(request: string): Promise<RequestStream> {
    // The stream is there before the first event that follows the answer.
    return this.#ask("submit", request, (id) => this.#streams.open(id, () => this.#cancel(id)));
  }

  /** Queue a text that is to become a vector, and await that. */
  embed(request: string, signal?: AbortSignal): Promise<Embedding> {
    return this.#ask("embed", request, (id) => this.#streams.embedding(id, () => this.#cancel(id), signal));
  }

  /** Call the core and await its answer. */
  call<K extends keyof CoreCalls>(call: K, argument: CoreCalls[K]["argument"]): Promise<CoreCalls[K]["answer"]> {
    return this.#ask(call, argument, (answer) => answer);
  }

  /** End what runs with `error`, and the core with it. */
  end(error: EngineError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#streams.fail(error);
    this.#link?.close();
    this.#onEnd(this);
  }

  #cancel(id: number): void {
    this.call("cancel", id).catch(() => {});
  }

  #ask<K extends keyof CoreCalls, T>(
    call: K,
    argument: CoreCalls[K]["argument"],
    take: (answer: CoreCalls[K]["answer"]) => T | Promise<T>,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      const ticket = ++this.#tickets;
      this.#pending.set(ticket, { resolve: (answer) => resolve(take(answer as CoreCalls[K]["answer"])), reject });
      this.#link!.post({ ticket, call, argument } as Command);
    });
  }

  async #load(options: WasmOptions): Promise<ModelInfo> {
    try {
      const config = (bytes: number) => encodeConfig({ file_bytes: bytes }, options);
      // Options that are wrong are found before anything is opened.
      config(0);
      this.#link = options.connect((report) => this.#take(report));
      const weights = await options.weights();
      await this.call("open", config(weights.bytes));
      await this.#feed(weights, options);
      const model = readModel(encoder.encode(await this.call("finish", undefined)));
      this.loaded = true;
      return model;
    } catch (cause) {
      const error = asEngineError(cause, "loading the model");
      this.end(error);
      throw error;
    }
  }

  /** Stream the weights into the core: one piece is taken in while the next is read. */
  async #feed({ stream, bytes }: Weights, { onProgress }: LoadOptions): Promise<void> {
    let done = 0;
    let pushed: Promise<void> = Promise.resolve();
    for await (const chunk of stream) {
      for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
        await pushed;
        const piece = chunk.subarray(at, at + PIECE_BYTES);
        pushed = this.call("push", piece);
        // Awaited above or below; a failure meanwhile is no unhandled one.
        pushed.catch(() => {});
        done += piece.length;
        onProgress?.({ done, total: bytes });
      }
    }
    await pushed;
  }

  #take(report: Report): void {
    try {
      switch (report.type) {
        case "answer":
          return this.#settle(report.ticket)?.resolve(report.answer);
        case "refusal":
          return this.#settle(report.ticket)?.reject(readRefusal(report.failure));
        case "events":
          this.stats = readStats(encoder.encode(report.stats));
          return readRecords(report.records, this.#sink);
        case "trap":
          throw new EngineError("internal", `running the WebAssembly core: it stopped with "${report.message}"`);
      }
    } catch (cause) {
      this.end(asEngineError(cause, "dispatching events"));
    }
  }

  #settle(ticket: number): Pending | undefined {
    const pending = this.#pending.get(ticket);
    this.#pending.delete(ticket);
    return pending;
  }
}

function asEngineError(cause: unknown, action: string): EngineError {
  if (cause instanceof EngineError) return cause;
  const reason = cause instanceof Error ? cause.message : cause;
  return new EngineError("internal", `${action}: ${reason}`, { cause });
}
