/**
 * How well a model predicts a text: the exponential of the mean negative log probability of its tokens, in windows as
 * llama.cpp's `llama-perplexity` cuts them, so that figures can be compared.
 *
 * A window of `n` tokens is scored in its second half, so that each scored token has at least `n / 2` before it. The
 * first token of a window is replaced by the begin token where the model wants one. A text shorter than two windows says
 * too little and is refused; what is left behind the last whole window is not looked at.
 *
 * @module
 */

import type { ChosenLogprob, Engine } from "../engine/engine.ts";

/** Tokens of a window, unless somebody says otherwise: llama.cpp's default. */
export const WINDOW = 512;

/** What is measured. */
export interface PerplexityOptions {
  engine: Engine;
  text: string;
  /** Tokens of a window. Default {@linkcode WINDOW}. */
  window?: number;
  /** Stop after so many windows. Default: all. */
  maxWindows?: number;
  /** Told after each window. */
  onProgress?: (so: PerplexitySoFar) => void;
}

/** A figure, and how much of the text it stands for. */
export interface PerplexitySoFar {
  perplexity: number;
  /** Standard error of the perplexity. */
  error: number;
  /** Scored tokens. */
  scored: number;
  /** Windows done, and of how many. */
  windows: number;
  ofWindows: number;
}

/** The text does not fit the wish. */
export class PerplexityError extends Error {
  override readonly name = "PerplexityError";
}

/**
 * The perplexity of a text.
 *
 * @throws {PerplexityError} when the text or the window is too short, or the window longer than the context.
 * @throws {EngineError} when the engine fails.
 */
export async function perplexity(options: PerplexityOptions): Promise<PerplexitySoFar> {
  const { engine, text, window = WINDOW, maxWindows = Infinity, onProgress } = options;
  const { contextLength, addsBos } = engine.model;
  if (window < 4 || window >= contextLength) {
    throw new PerplexityError(`choosing a window: expected 4 to ${contextLength - 1} tokens, got ${window}`);
  }
  const ids = await engine.tokenize([text]);
  const ofWindows = Math.min(Math.floor(ids.length / window), maxWindows);
  if (ids.length < 2 * window) {
    throw new PerplexityError(`scoring a text: expected at least ${2 * window} tokens, got ${ids.length}`);
  }
  const losses = new Moments();
  for (let windows = 1; windows <= ofWindows; windows++) {
    const cut = ids.slice((windows - 1) * window, windows * window);
    if (addsBos) cut[0] = ids[0]!;
    for (const loss of await lossesOf(engine, cut)) losses.add(loss);
    onProgress?.(figure(losses, windows, ofWindows));
  }
  return figure(losses, ofWindows, ofWindows);
}

/** Negative log probabilities of the second half, as llama.cpp counts: the token in the middle is not scored. */
async function lossesOf(engine: Engine, promptIds: readonly number[]): Promise<number[]> {
  const request = {
    prompt: [],
    promptIds,
    maxTokens: 1,
    promptLogprobs: 0,
    sampling: { temperature: 0 },
    ignoreEos: true,
  };
  let logprobs: readonly (ChosenLogprob | null)[] = [];
  for await (const event of engine.generate(request)) {
    if (event.type === "text") logprobs = [...logprobs, ...event.promptLogprobs ?? []];
  }
  return logprobs.slice(Math.floor(promptIds.length / 2) + 1).map((each) => -each!.logprob);
}

function figure(losses: Moments, windows: number, ofWindows: number): PerplexitySoFar {
  const value = Math.exp(losses.mean);
  return { perplexity: value, error: value * losses.error, scored: losses.count, windows, ofWindows };
}

/** Mean and its standard error (Welford). */
class Moments {
  count = 0;
  mean = 0;
  #squares = 0;

  add(value: number): void {
    const delta = value - this.mean;
    this.mean += delta / ++this.count;
    this.#squares += delta * (value - this.mean);
  }

  get error(): number {
    return this.count < 2 ? 0 : Math.sqrt(this.#squares / (this.count - 1) / this.count);
  }
}
