/**
 * An engine without a model: replies are scripted, time is injectable, limits and failures are those of a real one.
 * Everything above the engine is tested with it, and it passes the same contract as the real engines.
 *
 * Its vocabulary is Unicode itself: the special tokens come first, then one id per code point.
 *
 * @module
 */

import { setImmediate } from "node:timers/promises";
import {
  type ChosenLogprob,
  type DoneEvent,
  type Embedding,
  type EmbedRequest,
  type Engine,
  EngineError,
  type EngineStats,
  type FinishReason,
  type GenerateEvent,
  type GenerateOptions,
  type GenerateRequest,
  type ModelInfo,
  type TextEvent,
  type TokenLogprob,
} from "./engine.ts";
import { checkEmbedRequest, checkPrompt, checkRequest, checkTokenIds, MAX_BIAS } from "./request.ts";

/** What a request is answered with: a text that is cut into words, or the tokens themselves. */
export type FakeReply = string | readonly string[];

/** Options of {@linkcode FakeEngine}; all have defaults. */
export interface FakeOptions {
  /**
   * The reply, or a function of the request that gives it or throws; constraints are checked and not followed. Default:
   * a short sentence, the first choice of a constraint, or an empty object for those that ask for JSON.
   */
  reply?: FakeReply | ((request: GenerateRequest) => FakeReply);
  /** Milliseconds each token takes. Default 0. */
  tokenMs?: number;
  /** Waits for `ms`, or less when `signal` aborts; never rejects. Default: timers. */
  delay?: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Milliseconds of a monotonic clock, for timings. Default: `performance.now`. */
  now?: () => number;
  /** Fields of the model description that differ from the default one. */
  model?: Partial<ModelInfo>;
  /** Requests that generate at the same time. Default 4. */
  maxRunning?: number;
  /** Requests that wait for their turn; more are refused as `overloaded`. Default 64. */
  maxWaiting?: number;
  /** Fail each request with `error` instead of giving token number `tokens` (from 0). */
  failure?: { tokens: number; error: EngineError };
}

const DEFAULT_REPLY = "The quick brown fox jumps over the lazy dog; 你好, 🦙!";
const CODE_POINTS = 0x110000;

const DEFAULT_MODEL: ModelInfo = {
  name: "fake",
  architecture: "fake",
  contextLength: 2048,
  vocabSize: 0,
  parameters: 0,
  quantization: "none",
  bosToken: "<s>",
  eosToken: "</s>",
  addsBos: true,
  specialTokens: ["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
  device: "fake",
  embeddingLength: 8,
  constrains: true,
};

function defaultReply({ constraint }: GenerateRequest): FakeReply {
  if (constraint?.type === "choice") return constraint.choices[0]!;
  return constraint?.type.startsWith("json") ? "{}" : DEFAULT_REPLY;
}

/** A scripted engine. */
export class FakeEngine implements Engine {
  readonly model: ModelInfo;
  /** Every request that passed validation, in order of arrival. */
  readonly requests: GenerateRequest[] = [];
  readonly #reply: Required<FakeOptions>["reply"];
  readonly #tokenMs: number;
  readonly #delay: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly #now: () => number;
  readonly #maxRunning: number;
  readonly #maxWaiting: number;
  readonly #failure?: { tokens: number; error: EngineError };
  /** Aborted by `close` and `die`, with the error that ends what runs. */
  readonly #end = new AbortController();
  readonly #waiting: (() => void)[] = [];
  #closed = false;
  #running = 0;
  #generated = 0;

  /** An engine that is ready at once. */
  constructor(options: FakeOptions = {}) {
    const model = { ...DEFAULT_MODEL, ...options.model };
    const named = [model.bosToken, model.eosToken].filter((token) => token !== undefined);
    const specialTokens = [...new Set([...model.specialTokens, ...named])];
    this.model = { ...model, specialTokens, vocabSize: specialTokens.length + CODE_POINTS };
    this.#reply = options.reply ?? defaultReply;
    this.#tokenMs = options.tokenMs ?? 0;
    this.#delay = options.delay ?? sleep;
    this.#now = options.now ?? (() => performance.now());
    this.#maxRunning = options.maxRunning ?? 4;
    this.#maxWaiting = options.maxWaiting ?? 64;
    this.#failure = options.failure;
  }

  async *generate(request: GenerateRequest, options: GenerateOptions = {}): AsyncGenerator<GenerateEvent> {
    this.#assertOpen();
    checkRequest(request);
    const promptTokens = this.#admit(request, 1);
    const left = new AbortController();
    const signal = AbortSignal.any([this.#end.signal, left.signal, ...(options.signal ? [options.signal] : [])]);
    const asked = this.#now();
    const turn = this.#takeTurn(signal);
    try {
      yield { type: "started", promptTokens };
      await turn;
      const started = this.#now();
      const { reason, stop, completionTokens } = yield* this.#write(request, promptTokens, signal);
      const timings = { queueMs: started - asked, prefillMs: 0, decodeMs: this.#now() - started };
      yield { type: "done", reason, stop, usage: { promptTokens, completionTokens }, timings } satisfies DoneEvent;
    } finally {
      left.abort();
      await turn;
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  // deno-lint-ignore require-await -- failures reach the caller as rejections
  async tokenize(prompt: readonly string[]): Promise<number[]> {
    return this.encode(prompt);
  }

  // deno-lint-ignore require-await -- failures reach the caller as rejections
  async detokenize(ids: readonly number[]): Promise<string> {
    return this.decode(ids);
  }

  /** `tokenize` at once, for those who play a core. */
  encode(prompt: readonly string[]): number[] {
    this.#assertOpen();
    checkPrompt(prompt);
    const { specialTokens, addsBos, bosToken } = this.model;
    const ids = addsBos && bosToken !== undefined ? [specialTokens.indexOf(bosToken)] : [];
    for (const part of prompt) {
      for (let at = 0; at < part.length;) {
        const special = specialTokens.findIndex((token) => part.startsWith(token, at));
        const char = String.fromCodePoint(part.codePointAt(at)!);
        ids.push(special >= 0 ? special : specialTokens.length + char.codePointAt(0)!);
        at += special >= 0 ? specialTokens[special]!.length : char.length;
      }
    }
    return ids;
  }

  /** A vector that depends on each token, or on the last, and nothing else. */
  async embed(request: EmbedRequest, options: GenerateOptions = {}): Promise<Embedding> {
    this.#assertOpen();
    checkEmbedRequest(request);
    const promptTokens = this.#admit(request, 0);
    const { signal = new AbortController().signal } = options;
    const turn = this.#takeTurn(AbortSignal.any([signal, this.#end.signal]));
    try {
      await turn;
      await this.#delay(this.#tokenMs, signal);
      this.#end.signal.throwIfAborted();
      if (signal.aborted) throw new EngineError("closed", "embedding: the request was cancelled");
      const ids = this.#ids(request);
      const pooled = request.pooling === "last" ? ids.slice(-1) : ids;
      return { values: vectorOf(pooled, this.model.embeddingLength), promptTokens };
    } finally {
      await turn;
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  /** `detokenize` at once. */
  decode(ids: readonly number[]): string {
    this.#assertOpen();
    checkTokenIds(ids);
    const { specialTokens, vocabSize } = this.model;
    return ids.map((id) => {
      if (id >= vocabSize) throw invalid(`decoding token ids: expected ids below ${vocabSize}, got ${id}`);
      return specialTokens[id] ?? String.fromCodePoint(id - specialTokens.length);
    }).join("");
  }

  stats(): EngineStats {
    this.#assertOpen();
    return {
      waiting: this.#waiting.length,
      running: this.#running,
      generatedTokens: this.#generated,
      proposedTokens: 0,
      acceptedTokens: 0,
      healthy: !this.#end.signal.aborted,
    };
  }

  /** End all requests with `error` and stay unhealthy, as a real engine does when its thread dies. */
  die(error: EngineError): void {
    this.#stop(error);
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#stop(new EngineError("closed", "generating: the engine was closed"));
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #stop(error: EngineError): void {
    this.#end.abort(error);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Check a request as the core does, whose prompt leaves room for `more` tokens; gives the length of its prompt. */
  #admit(request: GenerateRequest, more: number): number {
    this.#end.signal.throwIfAborted();
    this.#checkIds(request);
    const { contextLength, constrains } = this.model;
    if (request.constraint && !constrains) {
      throw new EngineError("unsupported", "checking constraint: not by this engine");
    }
    const count = this.#ids(request).length;
    if (count === 0) throw invalid("checking prompt: expected at least one token, got none");
    if (count + more > contextLength) {
      throw new EngineError(
        "context_overflow",
        `checking prompt: expected fewer than ${contextLength + 1 - more} tokens, got ${count}`,
      );
    }
    if (this.#running >= this.#maxRunning && this.#waiting.length >= this.#maxWaiting) {
      throw new EngineError(
        "overloaded",
        `queueing: expected at most ${this.#maxWaiting} waiting requests, got one more`,
      );
    }
    this.requests.push(request);
    return count;
  }

  #checkIds({ stopTokenIds = [], sampling = {} }: GenerateRequest): void {
    const { logitBias = [], allowedTokenIds = [], bannedTokenIds = [] } = sampling;
    this.decode([...stopTokenIds, ...logitBias.map(([id]) => id), ...allowedTokenIds, ...bannedTokenIds]);
  }

  /** Wait for a free place; an abort takes one at once, to end there. */
  async #takeTurn(signal: AbortSignal): Promise<void> {
    while (this.#running >= this.#maxRunning && !signal.aborted) {
      const turn = Promise.withResolvers<void>();
      this.#waiting.push(turn.resolve);
      signal.addEventListener("abort", () => turn.resolve(), { once: true });
      await turn.promise;
      const place = this.#waiting.indexOf(turn.resolve);
      if (place >= 0) this.#waiting.splice(place, 1);
    }
    this.#running++;
  }

  /** Play the script through the stop texts. */
  async *#write(request: GenerateRequest, promptTokens: number, signal: AbortSignal): AsyncGenerator<GenerateEvent, {
    reason: FinishReason;
    stop?: string;
    completionTokens: number;
  }> {
    const stops = new StopTexts(request.stop ?? []);
    const limit = Math.min(request.maxTokens ?? Infinity, this.model.contextLength - promptTokens);
    const script = this.#script(request);
    let said = "";
    let completionTokens = 0;
    let reason: FinishReason = "stop";
    for (;; completionTokens++) {
      if (completionTokens >= limit) reason = "length";
      else await this.#delay(this.#tokenMs, signal);
      this.#end.signal.throwIfAborted();
      if (signal.aborted) reason = "cancelled";
      const ended = completionTokens >= Math.max(script.length, request.minTokens ?? 0);
      if (reason !== "stop" || (ended && !request.ignoreEos)) break;
      if (completionTokens === this.#failure?.tokens) throw this.#failure.error;
      this.#generated++;
      const token = this.#choose(request, script, completionTokens, said);
      if (request.stopTokenIds?.includes(this.#idOf(token))) {
        completionTokens++;
        break;
      }
      said += token;
      const { text, stop } = stops.push(token);
      const reported = {
        ...(request.logprobs === undefined ? {} : { logprobs: [this.#chosen(token, request.logprobs)] }),
        ...(completionTokens === 0 ? this.#promptLogprobs(request) : {}),
      };
      const counted = { completionTokens: completionTokens + 1, ...reported };
      if (text !== "" || Object.keys(reported).length > 0) yield { type: "text", text, ...counted };
      if (stop !== undefined) return { reason: "stop", stop, completionTokens: completionTokens + 1 };
    }
    const rest = stops.held;
    if (rest !== "") yield { type: "text", text: rest, completionTokens };
    return { reason, completionTokens };
  }

  /** The next word of the script that may be chosen; a token with the largest bias comes before it. */
  #choose(request: GenerateRequest, script: readonly string[], at: number, said: string): string {
    const { sampling = {}, stopTokenIds = [], minTokens = 0 } = request;
    const { logitBias = [], allowedTokenIds, bannedTokenIds = [], badWords = [] } = sampling;
    const never = new Set([...bannedTokenIds, ...(at < minTokens ? stopTokenIds : [])]);
    for (const [id, bias] of logitBias) if (bias === -Infinity) never.add(id);
    const favourites = logitBias.filter(([, bias]) => bias === MAX_BIAS).map(([id]) => this.decode([id]));
    const words = [
      ...favourites,
      ...script.map((_, index) => script[(at + index) % script.length]!),
      ...(allowedTokenIds ?? []).map((id) => this.decode([id])),
    ];
    const chosen = words.find((word) => {
      const id = this.#idOf(word);
      if (never.has(id) || allowedTokenIds?.includes(id) === false) return false;
      return !badWords.some((bad) => (said + word).includes(bad));
    });
    if (chosen === undefined) throw invalid("choosing: expected at least one token that may be chosen, got none");
    return chosen;
  }

  /** A word has the id of its first character. */
  #idOf(word: string): number {
    return this.model.specialTokens.length + word.codePointAt(0)!;
  }

  /** A word as if it were one token of probability 1/2; the others in its place halve on. */
  #chosen(word: string, top: number): ChosenLogprob {
    const place = (token: string, rank: number): TokenLogprob => ({
      id: this.#idOf(word) + rank,
      token,
      bytes: [...new TextEncoder().encode(token)],
      logprob: -(rank + 1) * Math.LN2,
    });
    const others = Array.from({ length: top }, (_, rank) => place(rank === 0 ? word : `${word}${rank}`, rank));
    return { ...place(word, 0), top: others };
  }

  #promptLogprobs(request: GenerateRequest): Pick<TextEvent, "promptLogprobs"> {
    const { promptLogprobs: top } = request;
    if (top === undefined) return {};
    const ids = this.#ids(request);
    return { promptLogprobs: ids.map((id, at) => at === 0 ? null : this.#chosen(this.decode([id]), top)) };
  }

  #ids({ prompt, promptIds }: EmbedRequest): readonly number[] {
    if (promptIds === undefined) return this.encode(prompt);
    this.decode(promptIds);
    return promptIds;
  }

  #script(request: GenerateRequest): readonly string[] {
    const reply = typeof this.#reply === "function" ? this.#reply(request) : this.#reply;
    const script = typeof reply === "string" ? reply.match(/\s*\S+|\s+$/g) ?? [] : reply;
    return script.length === 0 && request.ignoreEos ? [" "] : script;
  }

  #assertOpen(): void {
    if (this.#closed) throw new EngineError("closed", "calling an engine that is closed");
  }
}

/** Looks for stop texts in a stream and holds back what may become one. */
class StopTexts {
  readonly #stops: readonly string[];
  /** The end of the text so far that is the start of a stop text. */
  held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** What may be shown after `piece`, and the stop text that it completed. */
  push(piece: string): { text: string; stop?: string } {
    const text = this.held + piece;
    const [hit] = this.#stops.map((stop) => ({ stop, at: text.indexOf(stop) })).filter(({ at }) => at >= 0)
      .sort((a, b) => a.at - b.at);
    if (hit !== undefined) return { text: text.slice(0, hit.at), stop: hit.stop };
    let from = 0;
    while (!this.#stops.some((stop) => stop.startsWith(text.slice(from))) && from < text.length) from++;
    this.held = this.#stops.length > 0 ? text.slice(from) : "";
    return { text: text.slice(0, text.length - this.held.length) };
  }
}

/** Waits by timers; 0 gives other tasks a turn. */
async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  if (ms <= 0) return await setImmediate();
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => resolve(), { once: true });
  await promise;
  clearTimeout(timer);
}

function invalid(message: string): EngineError {
  return new EngineError("invalid_request", message);
}

/** Sums of powers of the ids, so that equal texts and no others are equal; of length 1. */
function vectorOf(ids: readonly number[], length: number): Float32Array {
  const values = Float32Array.from({ length }, (_, at) => ids.reduce((sum, id) => sum + Math.cos(id * (at + 1)), 0));
  const norm = Math.hypot(...values) || 1;
  return values.map((value) => value / norm);
}
