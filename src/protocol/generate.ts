/**
 * Hugging Face's text generation API on the wire (that of Text Generation Inference): checked requests for `/generate`
 * and `/generate_stream`, and the shapes of their replies.
 *
 * Absent here on purpose: ids and log probabilities of tokens, which the engine does not tell. A stream's `token` is a
 * piece of text that may be several tokens, without `id` and `logprob`, and `details` have no list of `tokens`. What would
 * change the reply and is not implemented is refused.
 *
 * @module
 */

import { z } from "zod";
import { check, integerIn, numberAbove, text, wanted, wantedTag } from "./check.ts";
import { MAX_GRAMMAR_LENGTH, schemaObject, type WireConstraint } from "./format.ts";
import {
  flag,
  MAX_TOKEN_COUNT,
  offOnly,
  samplingFields,
  stopField,
  tokenLimit,
  toSampling,
  toStops,
  type WireSampling,
} from "./sampling.ts";

/** A checked request. */
export interface GenerateRequest {
  /** The prompt, rendered by whoever asks. */
  inputs: string;
  sampling: WireSampling;
  /** Most new tokens; missing means what the operator says. */
  maxTokens?: number;
  stop: string[];
  /** What the text must be. */
  constraint?: WireConstraint;
  /** Whether `generated_text` begins with the prompt. */
  returnFullText: boolean;
  /** Whether a whole reply says how it came about; a stream's end always does. */
  details: boolean;
}

const object = wanted("an object");
const grammarField = z.discriminatedUnion("type", [
  z.object({ type: z.literal("json"), value: schemaObject }),
  z.object({ type: z.literal("regex"), value: text(1, MAX_GRAMMAR_LENGTH) }),
  z.object({ type: z.literal("json_schema"), value: z.object({ schema: schemaObject }, object) }),
], wantedTag("type", '"json", "regex" or "json_schema"', "an object"));

const parametersSchema = z.object({
  max_new_tokens: tokenLimit,
  do_sample: flag,
  temperature: numberAbove(0, 100).nullish(),
  top_k: integerIn(1, MAX_TOKEN_COUNT).nullish(),
  top_p: numberAbove(0, 1).nullish(),
  repetition_penalty: numberAbove(0, 10).nullish(),
  typical_p: samplingFields.typical_p,
  frequency_penalty: samplingFields.frequency_penalty,
  seed: samplingFields.seed,
  stop: stopField,
  grammar: grammarField.nullish(),
  return_full_text: flag,
  details: flag,
}, wanted("an object"));

const refusedParameters = z.looseObject({
  best_of: offOnly(z.literal(1), "1"),
  decoder_input_details: offOnly(z.literal(false), "false"),
  top_n_tokens: offOnly(z.literal(0), "0"),
  truncate: offOnly(z.null(), "null (prompts are never cut)"),
  watermark: offOnly(z.literal(false), "false"),
  adapter_id: offOnly(z.null(), "null"),
}, wanted("an object"));

/** What the request must be. */
export const hfGenerateSchema = z.object(
  { inputs: text(1), parameters: parametersSchema.nullish() },
  wanted("an object"),
);
const refusedSchema = z.looseObject({ parameters: refusedParameters.nullish() }, wanted("an object"));

/**
 * The request inside a JSON value. As with Hugging Face, nothing is left to chance unless one of `do_sample`,
 * `temperature`, `top_k`, `top_p` and `typical_p` asks for it.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseGenerateRequest(value: unknown): GenerateRequest {
  check(refusedSchema, value, "unsupported_value");
  const { inputs, parameters } = check(hfGenerateSchema, value);
  const fields = parameters ?? {};
  const samples = fields.do_sample ||
    [fields.temperature, fields.top_k, fields.top_p, fields.typical_p].some((field) => field != null);
  return {
    inputs,
    sampling: toSampling(samples ? fields : { ...fields, temperature: 0 }),
    maxTokens: fields.max_new_tokens ?? undefined,
    stop: toStops(fields.stop),
    constraint: fields.grammar ? constraintOf(fields.grammar) : undefined,
    returnFullText: fields.return_full_text ?? false,
    details: fields.details ?? false,
  };
}

function constraintOf(grammar: z.output<typeof grammarField>): WireConstraint {
  if (grammar.type === "regex") return { type: "regex", pattern: grammar.value };
  return { type: "json_schema", schema: grammar.type === "json" ? grammar.value : grammar.value.schema };
}

/** Why a reply ended. */
export type GenerateFinishReason = "length" | "eos_token" | "stop_sequence";

/** How a reply came about. */
export interface GenerateDetails {
  finish_reason: GenerateFinishReason;
  generated_tokens: number;
  /** The seed of the request; null when it had none. */
  seed: number | null;
}

/** A whole reply. */
export interface GenerateReply {
  generated_text: string;
  /** `prefill` is empty, as it is with Hugging Face unless the prompt's tokens are asked for. */
  details?: GenerateDetails & { prefill: [] };
}

/** A piece of a streamed reply; the last one has the whole text. */
export interface GeneratePiece {
  /** Tokens generated so far. */
  index: number;
  /** The last piece is special when an end token or a limit ended the reply, and the stop text when that did. */
  token: { text: string; special: boolean };
  generated_text: string | null;
  details: (GenerateDetails & { input_length: number }) | null;
}

/** A failure, as a body and as the last event of a stream that has begun. */
export interface GenerateError {
  error: string;
  error_type: "validation" | "overloaded" | "generation";
}

/** The shape of a whole reply. */
export function generateReply(text: string, details?: GenerateDetails): GenerateReply {
  return { generated_text: text, ...details && { details: { ...details, prefill: [] } } };
}

/** The shape of one piece. */
export function generatePiece(index: number, text: string): GeneratePiece {
  return { index, token: { text, special: false }, generated_text: null, details: null };
}

/** The shape of the last piece; `stop` is the text that ended the reply. */
export function generateEnd(
  text: string,
  { details, promptTokens, stop }: { details: GenerateDetails; promptTokens: number; stop?: string },
): GeneratePiece {
  return {
    index: details.generated_tokens,
    token: { text: stop ?? "", special: stop === undefined },
    generated_text: text,
    details: { ...details, input_length: promptTokens },
  };
}

/** The shape of a failure of a given HTTP status. */
export function generateError(message: string, status: number): GenerateError {
  const type = status === 429 ? "overloaded" : status < 500 ? "validation" : "generation";
  return { error: message, error_type: type };
}
