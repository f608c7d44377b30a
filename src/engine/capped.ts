/**
 * An engine whose replies are never longer than an operator allows, whoever asks and whatever is left open.
 *
 * Absent here: refusing those who ask for more, which is for those who know their protocol.
 *
 * @module
 */

import type {
  Embedding,
  EmbedRequest,
  Engine,
  EngineStats,
  GenerateEvent,
  GenerateOptions,
  GenerateRequest,
  ModelInfo,
} from "./engine.ts";

/** Passes everything on; replies end after `most` tokens. */
export class CappedEngine implements Engine {
  readonly #engine: Engine;
  readonly #most: number;

  /** `engine` with a bound. */
  constructor(engine: Engine, most: number) {
    this.#engine = engine;
    this.#most = most;
  }

  get model(): ModelInfo {
    return this.#engine.model;
  }

  generate(request: GenerateRequest, options?: GenerateOptions): AsyncIterable<GenerateEvent> {
    return this.#engine.generate(
      { ...request, maxTokens: Math.min(request.maxTokens ?? Infinity, this.#most) },
      options,
    );
  }

  embed(request: EmbedRequest, options?: GenerateOptions): Promise<Embedding> {
    return this.#engine.embed(request, options);
  }

  tokenize(prompt: readonly string[]): Promise<number[]> {
    return this.#engine.tokenize(prompt);
  }

  detokenize(ids: readonly number[]): Promise<string> {
    return this.#engine.detokenize(ids);
  }

  stats(): EngineStats {
    return this.#engine.stats();
  }

  close(): Promise<void> {
    return this.#engine.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
