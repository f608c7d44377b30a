/**
 * The one interface through which everything above drives a model: a request and an `AbortSignal` in, an async
 * iterable of events out. Native (FFI), WebAssembly and fake engines implement it and pass the same contract suite.
 *
 * Absent here on purpose: HTTP, chat roles, templates, model files.
 *
 * @module
 */

/** Sampling parameters. Each missing field takes its default; ranges are checked by the core as well. */
export interface SamplingParams {
  /** Softmax temperature, 0 to 100. 0 is greedy: the most probable token, no randomness. Default 0.7. */
  temperature?: number;
  /** Keep the `topK` most probable tokens; 0 keeps all. Default 40. */
  topK?: number;
  /** Keep the smallest set whose probability reaches `topP`, above 0 up to 1; 1 keeps all. Default 0.95. */
  topP?: number;
  /** Drop tokens below `minP` times the highest probability, 0 to 1; 0 keeps all. Default 0.05. */
  minP?: number;
  /** Keep the locally typical tokens whose probability reaches this (Meister et al. 2022), above 0 up to 1; 1 is off. */
  typicalP?: number;
  /** Keep logits within this many standard deviations of the highest, 0 to 100; 0 is off. */
  topNSigma?: number;
  /** The temperature varies by entropy between itself minus and plus this, 0 to 100; 0 is off. */
  dynatempRange?: number;
  /** How entropy becomes a dynamic temperature, 0 to 100. Default 1. */
  dynatempExponent?: number;
  /** Divide (positive) or multiply (negative) logits of tokens seen in prompt and reply, above 0 to 10. Default 1 (off). */
  repeatPenalty?: number;
  /** How many of the last tokens the three penalties look at, 0 (off) up; missing: all of them. */
  repeatLastN?: number;
  /** Subtracted from logits of tokens seen, -2 to 2. Default 0. */
  presencePenalty?: number;
  /** Subtracted from logits of tokens for each time seen, -2 to 2. Default 0. */
  frequencyPenalty?: number;
  /** Strength of DRY against repeated sequences, 0 to 100. Default 0 (off). */
  dryMultiplier?: number;
  /** How fast DRY's penalty grows with the length repeated, 1 to 100. Default 1.75. */
  dryBase?: number;
  /** Repeated sequences up to this length are free, 0 up. Default 2. */
  dryAllowedLength?: number;
  /** How many of the last tokens DRY looks at, 0 (off) up; missing: all of them. */
  dryPenaltyLastN?: number;
  /**
   * Texts over which DRY does not match, at most 32, each 1 to 256 characters. Default: line break, colon, double quote,
   * asterisk.
   */
  drySequenceBreakers?: readonly string[];
  /** How likely XTC drops the most probable tokens, 0 to 1. Default 0 (off). */
  xtcProbability?: number;
  /** XTC drops all but the last of the tokens at least this probable, 0 to 1; above 0.5 it does nothing. Default 0.1. */
  xtcThreshold?: number;
  /** Mirostat of this version instead of all filters but the temperature (Basu et al. 2021); 0 is off. */
  mirostat?: 0 | 1 | 2;
  /** The surprise that mirostat holds, 0 to 100. Default 5. */
  mirostatTau?: number;
  /** How fast mirostat learns, 0 to 1. Default 0.1. */
  mirostatEta?: number;
  /** The filters in the order in which they are applied; those left out are off. Default: all, as in `SAMPLERS`. */
  samplers?: readonly SamplerName[];
  /** Added to logits of tokens, each -100 to 100 or `-Infinity`; at most 1024 pairs of id and bias. */
  logitBias?: readonly (readonly [id: number, bias: number])[];
  /** Only these tokens may be chosen, at least one. */
  allowedTokenIds?: readonly number[];
  /** These tokens are never chosen. */
  bannedTokenIds?: readonly number[];
  /** Texts that never come about, at most 64, each 1 to 256 characters. */
  badWords?: readonly string[];
  /** Seed of the sampler, an integer from 0 to 2^53-1. The same seed and request give the same text. Default: random. */
  seed?: number;
}

/** The filters that `samplers` orders, in their default order. */
export const SAMPLERS = [
  "penalties",
  "dry",
  "top_n_sigma",
  "top_k",
  "typical_p",
  "top_p",
  "min_p",
  "xtc",
  "temperature",
] as const;

/** One of the filters. */
export type SamplerName = (typeof SAMPLERS)[number];

/** What the whole reply must be. Engines that cannot constrain refuse it as `unsupported`. */
export type Constraint =
  | { type: "json_schema"; schema: unknown }
  /** Any JSON object. */
  | { type: "json_object" }
  /** A regular expression without look-around or back references, in Rust's syntax; the whole reply matches. */
  | { type: "regex"; pattern: string }
  | { type: "choice"; choices: readonly string[] }
  /** A context-free grammar: `lark` in the dialect of llguidance, `gbnf` in llama.cpp's. */
  | { type: "grammar"; syntax: "lark" | "gbnf"; grammar: string };

/** What to generate. */
export interface GenerateRequest {
  /**
   * The prompt as text parts. Special tokens (`</s>`, `<|im_end|>`) are recognised inside a part and never across the
   * border of two parts; the text on both sides of a border is tokenised as one. Chat templates use that to keep
   * special tokens that a user typed as plain text.
   */
  prompt: readonly string[];
  /** The prompt as token ids, around which nothing is put; `prompt` must then be empty. */
  promptIds?: readonly number[];
  /** At most this many new tokens, 1 or more; default: until the context is full. */
  maxTokens?: number;
  /** How each token is chosen. */
  sampling?: SamplingParams;
  /** Texts that end the reply; the reply is cut before the earliest. At most 16, each 1 to 1024 characters. */
  stop?: readonly string[];
  /** Token ids that end the reply as the model's own end tokens do; at most 64. */
  stopTokenIds?: readonly number[];
  /** End tokens are not chosen before this many tokens. Default 0. */
  minTokens?: number;
  /** Go on after the model's end-of-turn tokens (for benchmarks). Default false. */
  ignoreEos?: boolean;
  /** What the reply must be. */
  constraint?: Constraint;
  /** Report each token's log probability, and those of the `logprobs` most probable tokens, 0 to 20. Default: none. */
  logprobs?: number;
  /** The same for the tokens of the prompt, with the reply's first text; at most 2^18 numbers over all of them. */
  promptLogprobs?: number;
}

/** A token and its log probability (natural, of the model's own distribution: before bias, filters and temperature). */
export interface TokenLogprob {
  id: number;
  /** The token's text; bytes that are no UTF-8 by themselves become U+FFFD. */
  token: string;
  bytes: readonly number[];
  logprob: number;
}

/** A chosen token and the most probable ones in its place, most probable first. */
export interface ChosenLogprob extends TokenLogprob {
  top: readonly TokenLogprob[];
}

/** What to embed. */
export interface EmbedRequest {
  /** As in `GenerateRequest`. */
  prompt: readonly string[];
  promptIds?: readonly number[];
  /** How the last hidden states of all tokens become one vector: their mean, or the last one. Default mean. */
  pooling?: "mean" | "last";
}

/** A text as a vector. */
export interface Embedding {
  /** `embeddingLength` numbers of Euclidean length 1. */
  values: Float32Array;
  promptTokens: number;
}

/** Why a reply ended: end token or stop text, token limit or full context, or the caller's abort. */
export type FinishReason = "stop" | "length" | "cancelled";

/** Token counts of one request. */
export interface Usage {
  promptTokens: number;
  completionTokens: number;
}

/** Where the time of one request went, in milliseconds. */
export interface Timings {
  queueMs: number;
  prefillMs: number;
  decodeMs: number;
}

/** The engine has taken the request on: the prompt is valid and fits. Comes before prefill, so usually at once. */
export interface StartedEvent {
  type: "started";
  /** Tokens of the prompt. */
  promptTokens: number;
}

/**
 * A piece of the reply: whole UTF-8 characters, possibly several tokens; empty only where it brings log probabilities of
 * tokens without text.
 */
export interface TextEvent {
  type: "text";
  text: string;
  /** Tokens generated so far, counting those whose text is held back. */
  completionTokens: number;
  /** The tokens that this text is made of, when they were asked for; those that a stop text cuts off are left out. */
  logprobs?: readonly ChosenLogprob[];
  /** With the first text, when asked for: one for each token of the prompt, none for the first, which follows nothing. */
  promptLogprobs?: readonly (ChosenLogprob | null)[];
}

/** The last event of a request that did not fail. */
export interface DoneEvent {
  type: "done";
  reason: FinishReason;
  /** The stop text that ended the reply, when one did. */
  stop?: string;
  usage: Usage;
  timings: Timings;
}

/** What `generate` yields: started, any number of texts, then one done. A failure is thrown as `EngineError`. */
export type GenerateEvent = StartedEvent | TextEvent | DoneEvent;

/** What a model's own `generation_config.json` recommends; each field that it leaves out is missing. */
export interface ModelDefaults extends Omit<SamplingParams, "seed"> {
  /** Most tokens of prompt and reply together that replies should reach by themselves, 1 or more. */
  maxLength?: number;
}

/** One of several Jinja chat templates. */
export interface ChatTemplateSource {
  /** Such as `default` or `tool_use`. */
  name: string;
  template: string;
}

/** What an engine says about its model. */
export interface ModelInfo {
  /** The name inside the file, or the file's name. */
  name: string;
  /** GGUF architecture, such as `llama`. */
  architecture: string;
  /** Most tokens of prompt and reply together. */
  contextLength: number;
  /** Size of the vocabulary. */
  vocabSize: number;
  /** Length of an embedding. */
  embeddingLength: number;
  /** Whether `GenerateRequest.constraint` is supported. */
  constrains: boolean;
  /** Number of weights. */
  parameters: number;
  /** Most frequent weight type, such as `q4_1`. */
  quantization: string;
  /** The Jinja chat template that comes with the model, if there is one, or several by name. */
  chatTemplate?: string | readonly ChatTemplateSource[];
  /** Text of the begin-of-sequence token, if the vocabulary has one. */
  bosToken?: string;
  /** Text of the end-of-sequence token, if the vocabulary has one. */
  eosToken?: string;
  /** Whether the engine itself puts the begin-of-sequence token in front of every prompt. */
  addsBos: boolean;
  /** Texts that the tokenizer turns into control tokens; chat code guards them in what users type. */
  specialTokens: readonly string[];
  /** Where the arithmetic runs, such as `cpu avx2` or `cuda:0`. */
  device: string;
  /** Why packed weights could be neither found nor kept, where that was wanted. */
  notMapped?: string;
  /** What the model recommends, if it does: what requests and the operator leave open. */
  defaults?: ModelDefaults;
}

/** How busy an engine is. */
export interface EngineStats {
  waiting: number;
  running: number;
  /** Tokens generated since the engine was opened. */
  generatedTokens: number;
  /** Tokens guessed ahead since then, and those of them that came true. */
  proposedTokens: number;
  acceptedTokens: number;
  /** Whether the engine can still serve requests. */
  healthy: boolean;
}

/** Options of `Engine.generate`. */
export interface GenerateOptions {
  /** Aborting ends the reply within one token; the iterable then yields a done event with reason `cancelled`. */
  signal?: AbortSignal;
}

/** Bytes of the weights read so far, and of the whole. */
export interface LoadProgress {
  done: number;
  total: number;
}

/** Whether replies guess ahead: see {@linkcode LoadOptions}. */
export const SPECULATE = ["auto", "off"] as const;
/** One of {@linkcode SPECULATE}. */
export type Speculate = (typeof SPECULATE)[number];

/** How much of a model to use, wherever it comes from, and how. */
export interface LoadOptions {
  /** At most this many tokens of prompt and reply together; default: what the model was made for. */
  contextLength?: number;
  /** Requests that generate at the same time; default: the core's. */
  maxRunning?: number;
  /** Requests that may wait for their turn; default: the core's. */
  maxWaiting?: number;
  /** Whether replies guess ahead, which changes their speed alone; default `auto`: where it pays. */
  speculate?: Speculate;
  /** Called while the weights are read. */
  onProgress?: (progress: LoadProgress) => void;
}

/** A loaded model that many callers may use at once. */
export interface Engine extends AsyncDisposable {
  /** What was loaded. */
  readonly model: ModelInfo;
  /**
   * Generate a reply. Leaving the iteration early (`break`, `return`) cancels the request.
   *
   * @throws {EngineError} when the request is invalid, does not fit, or the engine fails.
   */
  generate(request: GenerateRequest, options?: GenerateOptions): AsyncIterable<GenerateEvent>;
  /**
   * One text as a vector; it waits for its turn as a reply does.
   *
   * @throws {EngineError} when the request is invalid, does not fit, is aborted (`closed`), or the engine fails.
   */
  embed(request: EmbedRequest, options?: GenerateOptions): Promise<Embedding>;
  /** Token ids of a prompt, with the begin-of-sequence token where the model wants one. */
  tokenize(prompt: readonly string[]): Promise<number[]>;
  /** Text of token ids. */
  detokenize(ids: readonly number[]): Promise<string>;
  /** How busy the engine is, as of its last piece of work. Never waits. */
  stats(): EngineStats;
  /** Cancel what runs, free the model; later calls throw `closed`. Idempotent. */
  close(): Promise<void>;
}

/** Stable names of engine failures; the same as `ErrorKind::name` in core-rs/src/error.rs. */
export type EngineErrorCode =
  | "io"
  | "invalid_format"
  | "unsupported"
  | "invalid_request"
  | "context_overflow"
  | "overloaded"
  | "not_found"
  | "closed"
  | "internal"
  | "insufficient_resources";

/** A failure of the engine: a stable code and a sentence. */
export class EngineError extends Error {
  override readonly name = "EngineError";
  /** What went wrong, as far as a caller can act on it. */
  readonly code: EngineErrorCode;

  /** A failure with its stable `code` and a sentence. */
  constructor(code: EngineErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
