/**
 * OpenAI chat completions on the wire: the checked request, and the shapes of replies and stream chunks.
 *
 * Absent here on purpose: HTTP, SSE framing, the model. Fields that do nothing here (`user`, `metadata`, what OpenAI adds
 * faster than servers follow) are ignored and named in `ignored`; known fields that would change the reply and are not
 * implemented are refused.
 *
 * @module
 */

import { z } from "zod";
import { check, integerIn, ProtocolError, text, wanted } from "./check.ts";
import { formatFields, nestedAtMost, toConstraint, type WireConstraint } from "./format.ts";
import { ignoredFields } from "./ignored.ts";
import { MAX_CHOICES } from "./limits.ts";
import { type ChatLogprobs, MAX_TOP_LOGPROBS } from "./logprobs.ts";
import { messageList, type WireMessage } from "./message.ts";
import {
  flag,
  offOnly,
  samplingFields,
  stopField,
  toGeneration,
  tokenLimit,
  toSampling,
  toStops,
  type WireGeneration,
  type WireSampling,
} from "./sampling.ts";
import type { WireTimings } from "./timings.ts";
import {
  toolChoiceField,
  toolsField,
  toToolWishes,
  type WireTool,
  type WireToolCall,
  type WireToolChoice,
} from "./tools.ts";

/** Most variables of a chat template. */
export const MAX_VARIABLES = 64;
/** Most lists and objects inside each other in such a variable. */
export const MAX_VARIABLE_DEPTH = 16;

/** A checked request for a chat completion. */
export interface ChatRequest {
  model: string;
  messages: WireMessage[];
  /** Replies to the same messages. */
  n: number;
  sampling: WireSampling;
  generation: WireGeneration & { logprobs?: number };
  /** Most new tokens; missing means until the context is full. */
  maxTokens?: number;
  stop: string[];
  tools: WireTool[];
  toolChoice: WireToolChoice;
  parallelToolCalls: boolean;
  /** What a reply must be that calls no function. */
  constraint?: WireConstraint;
  /** Variables of the chat template. */
  variables: Record<string, unknown>;
  /** Whether thoughts are told apart from what is said. */
  reasoning: boolean;
  stream: boolean;
  /** Whether a stream ends with a chunk that carries the token counts. */
  includeUsage: boolean;
  /** Fields that were sent and do nothing. */
  ignored: string[];
}

const variables = wanted(`an object of at most ${MAX_VARIABLES} variables, not nested deeply`);
/** Zod field of variables of a chat template. */
export const variablesField = z.record(z.string(), z.unknown(), variables).refine(
  (given) => Object.keys(given).length <= MAX_VARIABLES && nestedAtMost(given, MAX_VARIABLE_DEPTH),
  variables,
).nullish();

/** How hard a model may be told to think. */
const efforts = ["none", "minimal", "low", "medium", "high", "xhigh"] as const;

/** Zod field of how hard to think. */
export const effortField = z.enum(efforts, wanted(`one of ${efforts.join(", ")}`)).nullish();

/** What the request must be. */
export const chatSchema = z.object({
  ...samplingFields,
  ...formatFields,
  model: text(1, 256),
  messages: messageList(),
  n: integerIn(1, MAX_CHOICES).nullish(),
  stop: stopField,
  max_tokens: tokenLimit,
  max_completion_tokens: tokenLimit,
  logprobs: flag,
  top_logprobs: integerIn(0, MAX_TOP_LOGPROBS).nullish(),
  tools: toolsField,
  tool_choice: toolChoiceField,
  parallel_tool_calls: flag,
  reasoning_effort: effortField,
  reasoning_format: z.enum(["none", "auto", "deepseek"], wanted('"none", "auto" or "deepseek"')).nullish(),
  chat_template_kwargs: variablesField,
  stream: flag,
  stream_options: z.object({ include_usage: flag }, wanted("an object")).nullish(),
}, wanted("an object"));

const refusedFields = {
  functions: offOnly(z.array(z.unknown()).max(0), "an empty list (tools are their successors)"),
  function_call: offOnly(z.enum(["none", "auto"]), '"none" or "auto" (tool_choice is its successor)'),
  modalities: offOnly(z.tuple([z.literal("text")]), '["text"]'),
  audio: offOnly(z.never(), "nothing"),
  web_search_options: offOnly(z.never(), "nothing"),
};
const refusedSchema = z.looseObject(refusedFields, wanted("an object"));

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
    n: fields.n ?? 1,
    sampling: toSampling(fields),
    generation: { ...toGeneration(fields), ...wantedLogprobs(fields) },
    maxTokens: fields.max_completion_tokens ?? fields.max_tokens ?? undefined,
    stop: toStops(fields.stop),
    ...toToolWishes(fields.tools, fields.tool_choice),
    parallelToolCalls: fields.parallel_tool_calls ?? true,
    constraint: toConstraint(fields),
    variables: { ...effortVariables(fields.reasoning_effort), ...fields.chat_template_kwargs },
    reasoning: fields.reasoning_format !== "none",
    stream: fields.stream ?? false,
    includeUsage: fields.stream_options?.include_usage ?? false,
    ignored: ignoredFields(value, { ...chatSchema.shape, ...refusedFields }),
  };
}

function wantedLogprobs({ logprobs, top_logprobs }: z.output<typeof chatSchema>): { logprobs?: number } {
  if (logprobs) return { logprobs: top_logprobs ?? 0 };
  if (!top_logprobs) return {};
  const message = `top_logprobs: expected logprobs to be true beside it, got ${logprobs ?? "nothing"}`;
  throw new ProtocolError("invalid_value", message, "top_logprobs");
}

/** How much to think, under the names that templates know. */
export function effortVariables(effort: (typeof efforts)[number] | null | undefined): Record<string, unknown> {
  if (effort == null) return {};
  return { reasoning_effort: effort, enable_thinking: effort !== "none" && effort !== "minimal" };
}

/** Why a choice ended: an end token or stop text, a limit on tokens, or calls of functions. */
export type WireFinishReason = "stop" | "length";

/** The same of a chat, where functions may be called. */
export type ChatFinishReason = WireFinishReason | "tool_calls";

/** Token counts as chat completions report them. */
export interface ChatUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** A call of a function. */
export interface ChatToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

/** A message of the model. */
export interface ChatReplyMessage {
  role: "assistant";
  /** Null where there are only calls. */
  content: string | null;
  refusal: null;
  /** What it thought before it spoke. */
  reasoning_content?: string;
  tool_calls?: ChatToolCall[];
}

/** One choice of a whole reply. */
export interface ChatChoice {
  index: number;
  message: ChatReplyMessage;
  logprobs: ChatLogprobs | null;
  finish_reason: ChatFinishReason;
}

/** A whole reply. */
export interface ChatCompletion extends ReplyHead {
  object: "chat.completion";
  choices: ChatChoice[];
  usage: ChatUsage;
  /** Of the first choice. */
  timings: WireTimings;
}

/** What one stream chunk adds to a call. */
export interface ChatCallDelta {
  index: number;
  id?: string;
  type?: "function";
  function: { name?: string; arguments: string };
}

/** What one stream chunk adds. */
export interface ChatDelta {
  role?: "assistant";
  content?: string;
  reasoning_content?: string;
  tool_calls?: ChatCallDelta[];
}

/** A piece of a streamed reply; a chunk without choices carries the token counts. */
export interface ChatCompletionChunk extends ReplyHead {
  object: "chat.completion.chunk";
  choices: {
    index: number;
    delta: ChatDelta;
    logprobs: ChatLogprobs | null;
    finish_reason: ChatFinishReason | null;
  }[];
  /** Present only when the request asked for it, and then null on every chunk but the last. */
  usage?: ChatUsage | null;
  /** Of a choice, on its last chunk. */
  timings?: WireTimings;
}

/** What all chunks of one reply share. */
export interface ReplyHead {
  id: string;
  /** Unix time in seconds. */
  created: number;
  model: string;
}

/** What there is to say of one choice. */
export interface ChatSaid {
  content: string;
  reasoning: string;
  toolCalls: readonly WireToolCall[];
  logprobs: ChatLogprobs | null;
  finishReason: ChatFinishReason;
}

/** The shape of one choice of a whole reply. */
export function chatChoice(index: number, said: ChatSaid): ChatChoice {
  const { content, reasoning, toolCalls, logprobs, finishReason } = said;
  const message: ChatReplyMessage = {
    role: "assistant",
    content: content === "" && toolCalls.length > 0 ? null : content,
    refusal: null,
    ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
    ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls.map(chatToolCall) }),
  };
  return { index, message, logprobs, finish_reason: finishReason };
}

/** The shape of a call. */
function chatToolCall({ id, name, arguments: args }: WireToolCall): ChatToolCall {
  return { id, type: "function", function: { name, arguments: args } };
}

/** The shape of a whole reply. */
export function chatCompletion(
  head: ReplyHead,
  { choices, usage, timings }: Pick<ChatCompletion, "choices" | "usage" | "timings">,
): ChatCompletion {
  const { id, created, model } = head;
  return { id, object: "chat.completion", created, model, choices, usage, timings };
}

/** What one chunk says: a delta or an end of a choice, or (with `usage` alone) the token counts. */
export interface ChatPiece {
  index?: number;
  delta?: ChatDelta;
  logprobs?: ChatLogprobs;
  finishReason?: ChatFinishReason;
  usage?: ChatUsage | null;
  timings?: WireTimings;
}

/** The shape of one chunk. */
export function chatChunk(head: ReplyHead, piece: ChatPiece): ChatCompletionChunk {
  const { id, created, model } = head;
  const { index = 0, delta, logprobs = null, finishReason = null, usage, timings } = piece;
  const choices: ChatCompletionChunk["choices"] = delta
    ? [{ index, delta, logprobs, finish_reason: finishReason }]
    : [];
  return {
    id,
    object: "chat.completion.chunk",
    created,
    model,
    choices,
    ...(usage === undefined ? {} : { usage }),
    ...(timings === undefined ? {} : { timings }),
  };
}

/** Token counts in the shape of chat completions. */
export function chatUsage(promptTokens: number, completionTokens: number): ChatUsage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}
