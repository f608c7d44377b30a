/**
 * The fields that say how tokens are chosen and when a reply ends, shared by all of OpenAI's endpoints: OpenAI's own, and
 * the engine's further samplers under the names that llama.cpp and vLLM use.
 *
 * Absent here on purpose: defaults. A missing field stays missing, so that the engine alone decides.
 *
 * @module
 */

import { z } from "zod";
import { integerIn, numberAbove, numberIn, text, wanted } from "./check.ts";

/** Most stop texts of one request; OpenAI allows 4. */
export const MAX_STOPS = 16;
/** Longest stop text, in UTF-16 code units. */
export const MAX_STOP_LENGTH = 1024;
/** Upper end of fields that count tokens: the largest signed 32-bit integer. */
export const MAX_TOKEN_COUNT = 2 ** 31 - 1;
/** Most token ids of a list that bans or allows: more than any vocabulary. */
export const MAX_TOKEN_IDS = 2 ** 18;
/** Most pairs of `logit_bias`. */
export const MAX_BIASES = 1024;
/** Most token ids that end a reply. */
export const MAX_STOP_IDS = 64;
/** Most texts that may never come about. */
export const MAX_BAD_WORDS = 64;
/** Longest of them, in UTF-16 code units. */
export const MAX_BAD_WORD_LENGTH = 256;
/** Most texts over which DRY does not match. */
export const MAX_BREAKERS = 32;
/** Longest of them, in UTF-16 code units. */
export const MAX_BREAKER_LENGTH = 256;

/** The filters that `samplers` orders, under the engine's names. */
export const SAMPLER_NAMES = [
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

/** How tokens are chosen; each missing field takes the engine's default. */
export interface WireSampling {
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  typicalP?: number;
  topNSigma?: number;
  dynatempRange?: number;
  dynatempExponent?: number;
  repeatPenalty?: number;
  repeatLastN?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  dryMultiplier?: number;
  dryBase?: number;
  dryAllowedLength?: number;
  dryPenaltyLastN?: number;
  drySequenceBreakers?: string[];
  xtcProbability?: number;
  xtcThreshold?: number;
  mirostat?: 0 | 1 | 2;
  mirostatTau?: number;
  mirostatEta?: number;
  samplers?: (typeof SAMPLER_NAMES)[number][];
  logitBias?: [id: number, bias: number][];
  allowedTokenIds?: number[];
  bannedTokenIds?: number[];
  badWords?: string[];
  seed?: number;
}

/** When a reply ends, besides its stop texts. */
export interface WireGeneration {
  minTokens?: number;
  ignoreEos?: boolean;
  stopTokenIds?: number[];
}

/** Zod field of a switch. */
export const flag = z.boolean(wanted("true or false")).nullish();

/** A token id as far as it can be checked without a vocabulary. */
export const tokenId: z.ZodType<number> = integerIn(0, MAX_TOKEN_COUNT);

/** A number of last tokens; -1 is all of them, which is also what a missing one means. */
const lastN = integerIn(-1, MAX_TOKEN_COUNT).transform((count) => count === -1 ? undefined : count);
/** Numbers that others turn off by -1. */
const topK = integerIn(-1, MAX_TOKEN_COUNT).transform((count) => Math.max(count, 0));

/** A list of at most `most` of something. */
function listOf<T>(each: z.ZodType<T>, most: number, what: string, least = 0): z.ZodType<T[]> {
  return z.array(each, wanted(`a list of ${least} to ${most} ${what}`)).min(least).max(most);
}

const bias = numberIn(-100, 100);
const biases = wanted(`at most ${MAX_BIASES} token ids, each with a number from -100 to 100`);
const logitBias = z.union([
  z.record(z.string(), bias, biases)
    .refine((map) => Object.keys(map).every((id) => /^\d{1,10}$/.test(id) && Number(id) <= MAX_TOKEN_COUNT), biases)
    .transform((map) => Object.entries(map).map(([id, bias]): [number, number] => [Number(id), bias])),
  z.array(z.tuple([tokenId, z.union([bias, z.literal(false)], biases)], biases), biases)
    .transform((list) => list.map(([id, bias]): [number, number] => [id, bias === false ? -Infinity : bias])),
], biases).refine((list) => list.length <= MAX_BIASES, biases);

const samplers = z.array(
  z.enum([...SAMPLER_NAMES, "typ_p"], wanted(`one of ${SAMPLER_NAMES.join(", ")}`)),
  wanted("a list of samplers, each at most once"),
)
  .transform((names) => names.map((name) => name === "typ_p" ? "typical_p" : name))
  .refine((names) => new Set(names).size === names.length, wanted("a list of samplers, each at most once"));

/** Zod fields of sampling. OpenAI clients send null for "not set", so null is absence everywhere. */
export const samplingFields = {
  temperature: numberIn(0, 2).nullish(),
  top_p: numberAbove(0, 1).nullish(),
  top_k: topK.nullish(),
  min_p: numberIn(0, 1).nullish(),
  typical_p: numberAbove(0, 1).nullish(),
  top_n_sigma: numberIn(0, 100).nullish(),
  dynatemp_range: numberIn(0, 100).nullish(),
  dynatemp_exponent: numberIn(0, 100).nullish(),
  repeat_penalty: numberAbove(0, 10).nullish(),
  repetition_penalty: numberAbove(0, 10).nullish(),
  repeat_last_n: lastN.nullish(),
  presence_penalty: numberIn(-2, 2).nullish(),
  frequency_penalty: numberIn(-2, 2).nullish(),
  dry_multiplier: numberIn(0, 100).nullish(),
  dry_base: numberIn(1, 100).nullish(),
  dry_allowed_length: integerIn(0, MAX_TOKEN_COUNT).nullish(),
  dry_penalty_last_n: lastN.nullish(),
  dry_sequence_breakers: listOf(text(1, MAX_BREAKER_LENGTH), MAX_BREAKERS, "texts").nullish(),
  xtc_probability: numberIn(0, 1).nullish(),
  xtc_threshold: numberIn(0, 1).nullish(),
  mirostat: z.literal([0, 1, 2], wanted("0, 1 or 2")).nullish(),
  mirostat_tau: numberIn(0, 100).nullish(),
  mirostat_eta: numberIn(0, 1).nullish(),
  samplers: samplers.nullish(),
  logit_bias: logitBias.nullish(),
  allowed_token_ids: listOf(tokenId, MAX_TOKEN_IDS, "token ids", 1).nullish(),
  banned_token_ids: listOf(tokenId, MAX_TOKEN_IDS, "token ids").nullish(),
  bad_words: listOf(text(1, MAX_BAD_WORD_LENGTH), MAX_BAD_WORDS, "texts").nullish(),
  seed: integerIn(0, Number.MAX_SAFE_INTEGER).nullish(),
  min_tokens: integerIn(0, MAX_TOKEN_COUNT).nullish(),
  ignore_eos: flag,
  stop_token_ids: listOf(tokenId, MAX_STOP_IDS, "token ids").nullish(),
};

const stopText = text(1, MAX_STOP_LENGTH);

/** Zod field of stop texts: one, or a list. */
export const stopField = z.union([
  stopText,
  z.array(stopText).max(MAX_STOPS),
], wanted(`a text of 1 to ${MAX_STOP_LENGTH} characters or a list of at most ${MAX_STOPS}`)).nullish();

/** Zod field of a token limit. */
export const tokenLimit = integerIn(1, MAX_TOKEN_COUNT).nullish();

/** Fields of sampling as zod has checked them. */
export type SamplingFields = { [K in keyof typeof samplingFields]?: z.output<(typeof samplingFields)[K]> };

/** Wire names and ours; of two names for one thing the later wins. */
const SAMPLING_NAMES = {
  temperature: "temperature",
  top_p: "topP",
  top_k: "topK",
  min_p: "minP",
  typical_p: "typicalP",
  top_n_sigma: "topNSigma",
  dynatemp_range: "dynatempRange",
  dynatemp_exponent: "dynatempExponent",
  repetition_penalty: "repeatPenalty",
  repeat_penalty: "repeatPenalty",
  repeat_last_n: "repeatLastN",
  presence_penalty: "presencePenalty",
  frequency_penalty: "frequencyPenalty",
  dry_multiplier: "dryMultiplier",
  dry_base: "dryBase",
  dry_allowed_length: "dryAllowedLength",
  dry_penalty_last_n: "dryPenaltyLastN",
  dry_sequence_breakers: "drySequenceBreakers",
  xtc_probability: "xtcProbability",
  xtc_threshold: "xtcThreshold",
  mirostat: "mirostat",
  mirostat_tau: "mirostatTau",
  mirostat_eta: "mirostatEta",
  samplers: "samplers",
  logit_bias: "logitBias",
  allowed_token_ids: "allowedTokenIds",
  banned_token_ids: "bannedTokenIds",
  bad_words: "badWords",
  seed: "seed",
} as const satisfies Partial<Record<keyof SamplingFields, keyof WireSampling>>;

const GENERATION_NAMES = {
  min_tokens: "minTokens",
  ignore_eos: "ignoreEos",
  stop_token_ids: "stopTokenIds",
} as const satisfies Partial<Record<keyof SamplingFields, keyof WireGeneration>>;

/** How tokens are chosen; what the fields leave open is missing. */
export function toSampling(fields: SamplingFields): WireSampling {
  return renamed(fields, SAMPLING_NAMES);
}

/** When the reply ends; what the fields leave open is missing. */
export function toGeneration(fields: SamplingFields): WireGeneration {
  return renamed(fields, GENERATION_NAMES);
}

function renamed<T>(fields: SamplingFields, names: Partial<Record<keyof SamplingFields, keyof T>>): T {
  const given = Object.entries(names).map(([wire, ours]) => [ours, fields[wire as keyof SamplingFields]]);
  return Object.fromEntries(given.filter(([, value]) => value != null)) as T;
}

/** Stop texts as a list. */
export function toStops(stop: string | string[] | null | undefined): string[] {
  return typeof stop === "string" ? [stop] : stop ?? [];
}

/**
 * A field whose only accepted values mean "off": clients send such values by habit, and any other would change the
 * reply in a way that is not implemented, which must not be ignored silently.
 */
export function offOnly(off: z.ZodType, phrase: string): z.ZodType {
  const isOff = (value: unknown) => value === null || off.safeParse(value).success;
  return z.unknown().refine(isOff, wanted(`${phrase}, as nothing else is supported`)).optional();
}
