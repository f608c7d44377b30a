/**
 * OpenAI text completions on the wire: prompts without roles, several choices, and the one shape that replies and
 * stream chunks share.
 *
 * Absent here on purpose: HTTP, SSE framing, the model. Fields that only describe the caller (`user`, `metadata`) are
 * ignored; known fields that would change the reply and are not implemented are refused. `best_of` ranks by
 * probabilities, which the engine does not give yet, so it may only ask for as many replies as are returned.
 *
 * @module
 */

import { z } from "zod";
import { type ChatUsage, flag, type ReplyHead, unsupportedSampling, type WireFinishReason } from "./chat.ts";
import { check, integerIn, ProtocolError, text, wanted } from "./check.ts";
import { promptReader, type WirePrompt } from "./prompts.ts";
import { offOnly, samplingFields, stopField, tokenLimit, toSampling, toStops, type WireSampling } from "./sampling.ts";

/** Most choices of one request over all its prompts: each takes a place in the engine's queue. */
export const MAX_CHOICES = 16;
/** New tokens of each choice when neither the request nor the operator says: OpenAI's default. */
export const DEFAULT_MAX_TOKENS = 16;

/** A checked request for text completions. */
export interface CompletionRequest {
  model: string;
  /** One or more; choices are numbered prompt by prompt. */
  prompts: WirePrompt[];
  /** Choices of each prompt. */
  n: number;
  sampling: WireSampling;
  /** Most new tokens of each choice; missing means the operator's limit, or `DEFAULT_MAX_TOKENS`. */
  maxTokens?: number;
  stop: string[];
  /** Whether each choice begins with its prompt. */
  echo: boolean;
  stream: boolean;
  /** Whether a stream ends with a chunk that carries the token counts. */
  includeUsage: boolean;
}

/** What the request must be. */
export const completionSchema = z.object({
  ...samplingFields,
  model: text(1, 256),
  n: integerIn(1, MAX_CHOICES).nullish(),
  best_of: integerIn(1, MAX_CHOICES).nullish(),
  max_tokens: tokenLimit,
  stop: stopField,
  echo: flag,
  stream: flag,
  stream_options: z.object({ include_usage: flag }, wanted("an object")).nullish(),
}, wanted("an object"));

const refusedSchema = z.looseObject({
  ...unsupportedSampling,
  suffix: offOnly(z.literal(""), "an empty text"),
  logprobs: offOnly(z.literal(false), "null"),
  use_beam_search: offOnly(z.literal(false), "false"),
}, wanted("an object"));

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
  checkChoices(prompts.length, n, fields.best_of ?? n);
  return {
    model: fields.model,
    prompts,
    n,
    sampling: toSampling(fields),
    maxTokens: fields.max_tokens ?? undefined,
    stop: toStops(fields.stop),
    echo: fields.echo ?? false,
    stream: fields.stream ?? false,
    includeUsage: fields.stream_options?.include_usage ?? false,
  };
}

function checkChoices(prompts: number, n: number, bestOf: number): void {
  if (prompts * n > MAX_CHOICES) {
    const message = `n: expected at most ${MAX_CHOICES} choices over all prompts, got ${n} for each of ${prompts}`;
    throw new ProtocolError("invalid_value", message, "n");
  }
  if (bestOf !== n) {
    const message = `best_of: expected ${n}, the value of n, as nothing else is supported, got ${bestOf}`;
    throw new ProtocolError("unsupported_value", message, "best_of");
  }
}

/** One choice, whole or what a chunk adds to it. */
export interface CompletionChoice<Reason = WireFinishReason> {
  index: number;
  text: string;
  logprobs: null;
  finish_reason: Reason;
}

/** A whole reply. */
export interface Completion extends ReplyHead {
  object: "text_completion";
  choices: CompletionChoice[];
  usage: ChatUsage;
}

/** A piece of a streamed reply; a chunk without choices carries the token counts. */
export interface CompletionChunk extends ReplyHead {
  object: "text_completion";
  choices: CompletionChoice<WireFinishReason | null>[];
  /** Present only when the request asked for it, and then null on every chunk but the last. */
  usage?: ChatUsage | null;
}

/** The shape of a whole reply; the place of a choice is its index. */
export function completion(
  head: ReplyHead,
  choices: readonly { text: string; finishReason: WireFinishReason }[],
  usage: ChatUsage,
): Completion {
  const { id, created, model } = head;
  const shaped = choices.map(({ text, finishReason }, index) => choice(index, text, finishReason));
  return { id, object: "text_completion", created, model, choices: shaped, usage };
}

/** The shape of one chunk: a text or an end of one choice, or (with `usage` alone) the token counts. */
export function completionChunk(
  head: ReplyHead,
  piece: { index?: number; text?: string; finishReason?: WireFinishReason; usage?: ChatUsage | null },
): CompletionChunk {
  const { id, created, model } = head;
  const { index, text = "", finishReason = null, usage } = piece;
  const choices = index === undefined ? [] : [choice(index, text, finishReason)];
  const chunk: CompletionChunk = { id, object: "text_completion", created, model, choices };
  return usage === undefined ? chunk : { ...chunk, usage };
}

function choice<Reason>(index: number, text: string, reason: Reason): CompletionChoice<Reason> {
  return { index, text, logprobs: null, finish_reason: reason };
}
