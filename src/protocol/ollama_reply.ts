/**
 * Ollama's API on the wire, as it answers: the lines of replies, and what is said of the served model.
 *
 * @module
 */

import type { WireFinishReason } from "./chat.ts";
import { objectIn } from "./check.ts";
import type { ChatLogprobs } from "./logprobs.ts";

/** Nanoseconds of a millisecond: all durations are in nanoseconds. */
const NS_PER_MS = 1e6;

/** A call of a function. */
export interface OllamaCall {
  function: { name: string; arguments: Record<string, unknown> };
}

/** What a line says. */
export interface OllamaPart {
  text?: string;
  thinking?: string;
  toolCalls?: OllamaCall[];
}

/** What a line says, where each of the two replies has it. */
export type OllamaSaid =
  | { response: string; thinking?: string }
  | { message: { role: "assistant"; content: string; thinking?: string; tool_calls?: OllamaCall[] } };

/** A reply of `/api/generate`, which calls no functions. */
export function ollamaResponse({ text = "", thinking }: OllamaPart): OllamaSaid {
  return { response: text, ...(thinking ? { thinking } : {}) };
}

/** A reply of `/api/chat`. */
export function ollamaMessage({ text = "", thinking, toolCalls = [] }: OllamaPart): OllamaSaid {
  return {
    message: {
      role: "assistant",
      content: text,
      ...(thinking ? { thinking } : {}),
      ...(toolCalls.length > 0 ? { tool_calls: toolCalls } : {}),
    },
  };
}

/** The shape of a call. What is no JSON object has no place in it, and stands as a field of its own name. */
export function ollamaCall(name: string, args: string): OllamaCall {
  return { function: { name, arguments: objectIn(args) ?? { arguments: args } } };
}

/** What the last line adds. */
export interface OllamaEnd {
  done_reason: WireFinishReason | "load";
  /** Nanoseconds from the request to the last token; the sum of the three others. */
  total_duration?: number;
  /** Nanoseconds of waiting for a turn: the model itself has long been loaded. */
  load_duration?: number;
  prompt_eval_count?: number;
  prompt_eval_duration?: number;
  eval_count?: number;
  eval_duration?: number;
}

/** One line of a reply; the last one is done. A whole reply is that line alone, with all the text. */
export type OllamaLine =
  & { model: string; created_at: string; done: boolean; logprobs?: ChatLogprobs["content"] }
  & OllamaSaid
  & Partial<OllamaEnd>;

/** A failure, as a body and as the last line of a stream that has begun. */
export interface OllamaError {
  error: string;
}

/** The shape of a line, `at` in milliseconds since 1970; with an `end` it is the last. */
export function ollamaLine(
  model: string,
  at: number,
  said: OllamaSaid,
  { end, logprobs }: { end?: OllamaEnd; logprobs?: ChatLogprobs } = {},
): OllamaLine {
  const tokens = logprobs === undefined ? {} : { logprobs: logprobs.content };
  return { model, created_at: new Date(at).toISOString(), ...said, ...tokens, done: end !== undefined, ...end };
}

/** How a reply ended, in Ollama's units. */
export function ollamaEnd(
  reason: WireFinishReason,
  usage: { promptTokens: number; completionTokens: number },
  timings: { queueMs: number; prefillMs: number; decodeMs: number },
): OllamaEnd {
  const [load, prefill, decode] = [timings.queueMs, timings.prefillMs, timings.decodeMs].map(nanoseconds);
  return {
    done_reason: reason,
    total_duration: load! + prefill! + decode!,
    load_duration: load,
    prompt_eval_count: usage.promptTokens,
    prompt_eval_duration: prefill,
    eval_count: usage.completionTokens,
    eval_duration: decode,
  };
}

function nanoseconds(ms: number): number {
  return Math.round(ms * NS_PER_MS);
}

/** What there is to say of a model. */
export interface OllamaFacts {
  id: string;
  name: string;
  architecture: string;
  contextLength: number;
  vocabSize: number;
  parameters: number;
  quantization: string;
}

/** The part of a description that lists share. */
export interface OllamaDetails {
  parent_model: string;
  family: string;
  families: string[];
  /** Such as `134.52M`. */
  parameter_size: string;
  /** Such as `Q4_1`. */
  quantization_level: string;
}

/** The answer of `/api/tags`: one model; size, digest and date of its file are not known here and are left out. */
export interface OllamaTags {
  models: { name: string; model: string; details: OllamaDetails }[];
}

/** The answer of `/api/show`. Templates are Jinja here, which Ollama's clients could not run, so none is shown. */
export interface OllamaShow {
  details: OllamaDetails;
  model_info: Record<string, string | number>;
  capabilities: string[];
}

/** The shape of a list of one model. */
export function ollamaTags(facts: OllamaFacts): OllamaTags {
  return { models: [{ name: facts.id, model: facts.id, details: details(facts) }] };
}

/** The shape of a description; keys are GGUF's. */
export function ollamaShow(facts: OllamaFacts): OllamaShow {
  const { name, architecture, contextLength, vocabSize, parameters } = facts;
  return {
    details: details(facts),
    model_info: {
      "general.architecture": architecture,
      "general.name": name,
      "general.parameter_count": parameters,
      [`${architecture}.context_length`]: contextLength,
      [`${architecture}.vocab_size`]: vocabSize,
    },
    capabilities: ["completion", "tools"],
  };
}

function details({ architecture, parameters, quantization }: OllamaFacts): OllamaDetails {
  return {
    parent_model: "",
    family: architecture,
    families: [architecture],
    parameter_size: shortCount(parameters),
    quantization_level: quantization.toUpperCase(),
  };
}

/** A number of weights with its unit, as model names have it. */
function shortCount(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)}B`;
  if (count >= 1e6) return `${(count / 1e6).toFixed(2)}M`;
  return count >= 1e3 ? `${(count / 1e3).toFixed(2)}K` : String(count);
}
