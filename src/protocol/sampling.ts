/**
 * The sampling and length fields that chat completions and responses share: OpenAI's, and the extensions `top_k`,
 * `min_p`, `repeat_penalty` and `seed` under the names that other local servers use.
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

/** How tokens are chosen; each missing field takes the engine's default. */
export interface WireSampling {
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repeatPenalty?: number;
  seed?: number;
}

/** Zod fields of sampling. OpenAI clients send null for "not set", so null is absence everywhere. */
export const samplingFields = {
  temperature: numberIn(0, 2).nullish(),
  top_p: numberAbove(0, 1).nullish(),
  top_k: integerIn(0, MAX_TOKEN_COUNT).nullish(),
  min_p: numberIn(0, 1).nullish(),
  repeat_penalty: numberAbove(0, 10).nullish(),
  repetition_penalty: numberAbove(0, 10).nullish(),
  seed: integerIn(0, Number.MAX_SAFE_INTEGER).nullish(),
};

const stopText = text(1, MAX_STOP_LENGTH);

/** Zod field of stop texts: one, or a list. */
export const stopField = z.union([
  stopText,
  z.array(stopText).max(MAX_STOPS),
], wanted(`a text of 1 to ${MAX_STOP_LENGTH} characters or a list of at most ${MAX_STOPS}`)).nullish();

/** Zod field of a token limit. */
export const tokenLimit = integerIn(1, MAX_TOKEN_COUNT).nullish();

type SamplingFields = { [K in keyof typeof samplingFields]?: number | null };

/** Wire names to ours; `repeat_penalty` wins over its alias. */
export function toSampling(fields: SamplingFields): WireSampling {
  return {
    temperature: fields.temperature ?? undefined,
    topK: fields.top_k ?? undefined,
    topP: fields.top_p ?? undefined,
    minP: fields.min_p ?? undefined,
    repeatPenalty: fields.repeat_penalty ?? fields.repetition_penalty ?? undefined,
    seed: fields.seed ?? undefined,
  };
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
