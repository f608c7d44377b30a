/**
 * A response as OpenAI's clients read it: what was asked for, what came of it, what it cost.
 *
 * Absent here on purpose: how it came about.
 *
 * @module
 */

import type { Item } from "./items.ts";
import type { Metadata } from "./metadata.ts";
import type { WireTimings } from "./timings.ts";

/** How a response stands; the last four are final. */
export type ResponseStatus = "queued" | "in_progress" | "completed" | "incomplete" | "cancelled" | "failed";

/** Whether nothing more will come of a response. */
export function isFinal(status: ResponseStatus): boolean {
  return status !== "queued" && status !== "in_progress";
}

/** A function that the model may call, as responses show it. */
export interface WireFunction {
  type: "function";
  name: string;
  description: string | null;
  parameters: Record<string, unknown> | null;
  strict: boolean | null;
}

/** Which functions must or may be called. */
export type ResponseToolChoice =
  | "none"
  | "auto"
  | "required"
  | { type: "function"; name: string }
  | { type: "allowed_tools"; mode: "auto" | "required"; tools: { type: "function"; name: string }[] };

/** What the text of a response must be. */
export type WireTextFormat =
  | { type: "text" }
  | { type: "json_object" }
  | {
    type: "json_schema";
    name: string;
    schema: Record<string, unknown>;
    description?: string;
    strict?: boolean | null;
  };

/** Token counts as responses report them. */
export interface ResponseUsage {
  input_tokens: number;
  input_tokens_details: { cached_tokens: number };
  output_tokens: number;
  output_tokens_details: { reasoning_tokens: number };
  total_tokens: number;
}

/** Why a response failed. */
export interface ResponseFailure {
  code: string;
  message: string;
}

/** What of a request its response repeats. */
export interface ResponseEcho {
  background: boolean;
  conversation: { id: string } | null;
  instructions: string | null;
  max_output_tokens: number | null;
  max_tool_calls: number | null;
  metadata: Metadata;
  parallel_tool_calls: boolean;
  previous_response_id: string | null;
  prompt_cache_key: string | null;
  reasoning: { effort: string | null; summary: string | null };
  safety_identifier: string | null;
  service_tier: "default";
  store: boolean;
  temperature: number | null;
  text: { format: WireTextFormat; verbosity: "medium" };
  tool_choice: ResponseToolChoice;
  tools: WireFunction[];
  top_logprobs: number;
  top_p: number | null;
  truncation: "auto" | "disabled";
  user: string | null;
}

/** A response as a whole, at one moment. */
export interface WireResponse extends ResponseEcho {
  id: string;
  object: "response";
  created_at: number;
  completed_at: number | null;
  status: ResponseStatus;
  error: ResponseFailure | null;
  incomplete_details: { reason: "max_output_tokens" } | null;
  model: string;
  output: Item[];
  usage: ResponseUsage | null;
  /** An extension. */
  timings?: WireTimings;
}

/** Token counts in the shape of responses. */
export function responseUsage(inputTokens: number, outputTokens: number): ResponseUsage {
  return {
    input_tokens: inputTokens,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: outputTokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: inputTokens + outputTokens,
  };
}

/** Said of a response that was taken away. */
export function responseDeleted(id: string): { id: string; object: "response"; deleted: true } {
  return { id, object: "response", deleted: true };
}
