/**
 * OpenAI text completions on the wire: prompts without roles, several choices, and the one shape that replies and
 * stream chunks share.
 *
 * Absent here on purpose: HTTP, SSE framing, the model. Fields that do nothing here (`user`, `metadata`, ...) are ignored
 * and named in `ignored`; known fields that would change the reply and are not implemented are refused.
 *
 * @module
 */

import { z } from "zod";
import type { ChatUsage, ReplyHead, WireFinishReason } from "./chat.ts";
import { MAX_CHOICES } from "./limits.ts";
import { check, integerIn, ProtocolError, text, wanted } from "./check.ts";
import { formatFields, toConstraint, type WireConstraint } from "./format.ts";
import { ignoredFields } from "./ignored.ts";
import { type CompletionLogprobs, MAX_TOP_LOGPROBS, type PromptLogprobs } from "./logprobs.ts";
import { promptReader, type WirePrompt } from "./prompts.ts";
import {
  flag,
  MAX_TOKEN_COUNT,
  offOnly,
  samplingFields,
  stopField,
  toGeneration,
  toSampling,
  toStops,
  type WireGeneration,
  type WireSampling,
} from "./sampling.ts";
import type { WireTimings } from "./timings.ts";

/** New tokens of each choice when neither the request nor the operator says: OpenAI's default. */
export const DEFAULT_MAX_TOKENS = 16;

/** A checked request for text completions. */
export interface CompletionRequest {
  model: string;
  /** One or more; choices are numbered prompt by prompt. */
  prompts: WirePrompt[];
  /** Choices of each prompt that are given back. */
  n: number;
  /** Choices of each prompt that are made; the most probable are given back. */
  bestOf: number;
  sampling: WireSampling;
  generation: WireGeneration & { logprobs?: number; promptLogprobs?: number };
  /**
   * Most new tokens of each choice; missing means the operator's limit, or `DEFAULT_MAX_TOKENS`. 0 is an echo and nothing
   * more, to see how probable a text is.
   */
  maxTokens?: number;
  stop: string[];
  /** What each choice must be. */
  constraint?: WireConstraint;
  /** Whether each choice begins with its prompt. */
  echo: boolean;
  /** Whether log probabilities of tokens are given back, and of a prompt's tokens apart from them. */
  logprobs: boolean;
  promptLogprobs: boolean;
  stream: boolean;
  /** Whether a stream ends with a chunk that carries the token counts. */
  includeUsage: boolean;
  /** Fields that were sent and do nothing. */
  ignored: string[];
}

/** Most alternatives of each token; false is none at all, as clients of chat completions send it. */
const logprobsField = z.union(
  [integerIn(0, MAX_TOP_LOGPROBS), z.literal(false)],
  wanted(`an integer from 0 to ${MAX_TOP_LOGPROBS}`),
).transform((count) => count === false ? null : count).nullish();

/** What the request must be. */
export const completionSchema = z.object({
  ...samplingFields,
  ...formatFields,
  model: text(1, 256),
  n: integerIn(1, MAX_CHOICES).nullish(),
  best_of: integerIn(1, MAX_CHOICES).nullish(),
  max_tokens: integerIn(0, MAX_TOKEN_COUNT).nullish(),
  stop: stopField,
  echo: flag,
  logprobs: logprobsField,
  prompt_logprobs: logprobsField,
  stream: flag,
  stream_options: z.object({ include_usage: flag }, wanted("an object")).nullish(),
}, wanted("an object"));

const refusedFields = {
  suffix: offOnly(z.literal(""), "an empty text (the model has no tokens for a gap)"),
  use_beam_search: offOnly(z.literal(false), "false"),
};
const refusedSchema = z.looseObject(refusedFields, wanted("an object"));

const readPrompts = promptReader("prompt", { most: MAX_CHOICES });

/**
 * The request inside a JSON value.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseCompletionRequest(value: unknown): CompletionRequest {
  check(refusedSchema, value, "unsupported_value");
  const fields = check(completionSchema, value);
  const prompts = readPrompts(value);
  const n = fields.n ?? 1;
  const bestOf = fields.best_of ?? n;
  const stream = fields.stream ?? false;
  checkChoices(prompts.length, n, bestOf, stream);
  const shown = fields.logprobs ?? undefined;
  const echo = fields.echo ?? false;
  if (fields.max_tokens === 0 && !echo) {
    throw new ProtocolError("invalid_value", "max_tokens: expected at least 1 without echo, got 0", "max_tokens");
  }
  return {
    model: fields.model,
    prompts,
    n,
    bestOf,
    sampling: toSampling(fields),
    generation: {
      ...toGeneration(fields),
      ...given("logprobs", shown ?? (bestOf > n ? 0 : undefined)),
      ...given("promptLogprobs", fields.prompt_logprobs ?? (echo ? shown : undefined)),
    },
    maxTokens: fields.max_tokens ?? undefined,
    stop: toStops(fields.stop),
    constraint: toConstraint(fields),
    echo,
    logprobs: shown !== undefined,
    promptLogprobs: fields.prompt_logprobs != null,
    stream,
    includeUsage: fields.stream_options?.include_usage ?? false,
    ignored: ignoredFields(value, { ...completionSchema.shape, ...refusedFields, prompt: true }),
  };
}

function given<K extends string>(name: K, value: number | undefined): { [_ in K]?: number } {
  return value === undefined ? {} : { [name]: value } as { [_ in K]?: number };
}

function checkChoices(prompts: number, n: number, bestOf: number, stream: boolean): void {
  const refuse = (param: string, expected: string, got: string | number) =>
    new ProtocolError("invalid_value", `${param}: expected ${expected}, got ${got}`, param);
  if (bestOf < n) throw refuse("best_of", `at least ${n}, the value of n`, bestOf);
  if (bestOf > n && stream) {
    throw refuse("best_of", "the value of n in a stream, as choices are compared whole", bestOf);
  }
  if (prompts * bestOf > MAX_CHOICES) {
    const param = bestOf > n ? "best_of" : "n";
    throw refuse(param, `at most ${MAX_CHOICES} choices over all prompts`, `${bestOf} for each of ${prompts}`);
  }
}

/** One choice, whole or what a chunk adds to it. */
export interface CompletionChoice<Reason = WireFinishReason> {
  index: number;
  text: string;
  logprobs: CompletionLogprobs | null;
  finish_reason: Reason;
  /** Only when asked for; in a stream with the first piece of a choice. */
  prompt_logprobs?: PromptLogprobs;
}

/** A whole reply. */
export interface Completion extends ReplyHead {
  object: "text_completion";
  choices: CompletionChoice[];
  usage: ChatUsage;
  /** Of the first choice. */
  timings: WireTimings;
}

/** A piece of a streamed reply; a chunk without choices carries the token counts. */
export interface CompletionChunk extends ReplyHead {
  object: "text_completion";
  choices: CompletionChoice<WireFinishReason | null>[];
  /** Present only when the request asked for it, and then null on every chunk but the last. */
  usage?: ChatUsage | null;
  /** Of a choice, on its last chunk. */
  timings?: WireTimings;
}

/** What there is to say of one choice. */
export type CompletionSaid = Omit<CompletionChoice, "index">;

/** The shape of a whole reply; the place of a choice is its index. */
export function completion(
  head: ReplyHead,
  { choices, usage, timings }: { choices: readonly CompletionSaid[]; usage: ChatUsage; timings: WireTimings },
): Completion {
  const { id, created, model } = head;
  const numbered = choices.map((choice, index) => ({ index, ...choice }));
  return { id, object: "text_completion", created, model, choices: numbered, usage, timings };
}

/** What one chunk says: a text or an end of one choice, or (with `usage` alone) the token counts. */
export interface CompletionPiece {
  index?: number;
  text?: string;
  logprobs?: CompletionLogprobs;
  promptLogprobs?: PromptLogprobs;
  finishReason?: WireFinishReason;
  usage?: ChatUsage | null;
  timings?: WireTimings;
}

/** The shape of one chunk. */
export function completionChunk(head: ReplyHead, piece: CompletionPiece): CompletionChunk {
  const { id, created, model } = head;
  const { index, text = "", logprobs = null, promptLogprobs, finishReason = null, usage, timings } = piece;
  const asked = promptLogprobs === undefined ? {} : { prompt_logprobs: promptLogprobs };
  return {
    id,
    object: "text_completion",
    created,
    model,
    choices: index === undefined ? [] : [{ index, text, logprobs, finish_reason: finishReason, ...asked }],
    ...(usage === undefined ? {} : { usage }),
    ...(timings === undefined ? {} : { timings }),
  };
}
