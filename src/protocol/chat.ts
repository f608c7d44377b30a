/**
 * OpenAI chat completions on the wire: the checked request, and the shapes of replies and stream chunks.
 *
 * Absent here on purpose: HTTP, SSE framing, the model. Unknown fields (`user`, `metadata`, ...) are ignored, as OpenAI
 * adds new ones faster than servers follow; known fields that would change the reply and are not implemented are refused.
 *
 * @module
 */

import { z } from "zod";
import { check, text, wanted } from "./check.ts";
import { messageList, type WireMessage } from "./message.ts";
import { offOnly, samplingFields, stopField, tokenLimit, toSampling, toStops, type WireSampling } from "./sampling.ts";

/** A checked request for a chat completion. */
export interface ChatRequest {
  model: string;
  messages: WireMessage[];
  sampling: WireSampling;
  /** Most new tokens; missing means until the context is full. */
  maxTokens?: number;
  stop: string[];
  stream: boolean;
  /** Whether a stream ends with a chunk that carries the token counts. */
  includeUsage: boolean;
}

/** Zod field of a switch. */
export const flag = z.boolean(wanted("true or false")).nullish();

/** What the request must be. */
export const chatSchema = z.object({
  ...samplingFields,
  model: text(1, 256),
  messages: messageList(["text"]),
  stop: stopField,
  max_tokens: tokenLimit,
  max_completion_tokens: tokenLimit,
  stream: flag,
  stream_options: z.object({ include_usage: flag }, wanted("an object")).nullish(),
}, wanted("an object"));

/** Fields of sampling that are not implemented, chat or not, at the values that mean off. */
export const unsupportedSampling = {
  logit_bias: offOnly(z.strictObject({}), "an empty object"),
  presence_penalty: offOnly(z.literal(0), "0"),
  frequency_penalty: offOnly(z.literal(0), "0"),
};

const emptyList = z.array(z.unknown()).max(0);
const refusedSchema = z.looseObject({
  ...unsupportedSampling,
  n: offOnly(z.literal(1), "1"),
  tools: offOnly(emptyList, "an empty list"),
  tool_choice: offOnly(z.enum(["none", "auto"]), '"none" or "auto"'),
  functions: offOnly(emptyList, "an empty list"),
  function_call: offOnly(z.enum(["none", "auto"]), '"none" or "auto"'),
  response_format: offOnly(z.object({ type: z.literal("text") }), '{"type": "text"}'),
  modalities: offOnly(z.tuple([z.literal("text")]), '["text"]'),
  logprobs: offOnly(z.literal(false), "false"),
  top_logprobs: offOnly(z.literal(0), "0"),
}, wanted("an object"));

/**
 * The request inside a JSON value. `max_completion_tokens` wins over its older name `max_tokens`.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseChatRequest(value: unknown): ChatRequest {
  check(refusedSchema, value, "unsupported_value");
  const fields = check(chatSchema, value);
  return {
    model: fields.model,
    messages: fields.messages,
    sampling: toSampling(fields),
    maxTokens: fields.max_completion_tokens ?? fields.max_tokens ?? undefined,
    stop: toStops(fields.stop),
    stream: fields.stream ?? false,
    includeUsage: fields.stream_options?.include_usage ?? false,
  };
}

/** Why a choice ended: an end token or stop text, or a limit on tokens. */
export type WireFinishReason = "stop" | "length";

/** Token counts as chat completions report them. */
export interface ChatUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** A whole reply. */
export interface ChatCompletion extends ReplyHead {
  object: "chat.completion";
  choices: [{
    index: 0;
    message: { role: "assistant"; content: string; refusal: null };
    logprobs: null;
    finish_reason: WireFinishReason;
  }];
  usage: ChatUsage;
}

/** What one stream chunk adds. */
export interface ChatDelta {
  role?: "assistant";
  content?: string;
}

/** A piece of a streamed reply; a chunk without choices carries the token counts. */
export interface ChatCompletionChunk extends ReplyHead {
  object: "chat.completion.chunk";
  choices: { index: 0; delta: ChatDelta; logprobs: null; finish_reason: WireFinishReason | null }[];
  /** Present only when the request asked for it, and then null on every chunk but the last. */
  usage?: ChatUsage | null;
}

/** What all chunks of one reply share. */
export interface ReplyHead {
  id: string;
  /** Unix time in seconds. */
  created: number;
  model: string;
}

/** The shape of a whole reply. */
export function chatCompletion(
  head: ReplyHead,
  reply: { content: string; finishReason: WireFinishReason; usage: ChatUsage },
): ChatCompletion {
  const { id, created, model } = head;
  const message = { role: "assistant", content: reply.content, refusal: null } as const;
  const choice = { index: 0, message, logprobs: null, finish_reason: reply.finishReason } as const;
  return { id, object: "chat.completion", created, model, choices: [choice], usage: reply.usage };
}

/** The shape of one chunk: a delta, an end, or (with `usage` alone) the token counts. */
export function chatChunk(
  head: ReplyHead,
  piece: { delta?: ChatDelta; finishReason?: WireFinishReason; usage?: ChatUsage | null },
): ChatCompletionChunk {
  const { id, created, model } = head;
  const { delta, finishReason = null, usage } = piece;
  const choices: ChatCompletionChunk["choices"] = delta
    ? [{ index: 0, delta, logprobs: null, finish_reason: finishReason }]
    : [];
  const chunk: ChatCompletionChunk = { id, object: "chat.completion.chunk", created, model, choices };
  return usage === undefined ? chunk : { ...chunk, usage };
}

/** Token counts in the shape of chat completions. */
export function chatUsage(promptTokens: number, completionTokens: number): ChatUsage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}
