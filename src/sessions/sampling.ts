/**
 * Who decides how tokens are chosen: the request over the flags over the model over the engine's built-in values, each
 * field by itself.
 *
 * @module
 */

import type { SamplingParams } from "../engine/engine.ts";

/** What the engine does when nobody says: the core's `SamplingParams::default`. */
export const BUILT_IN_SAMPLING: Readonly<SamplingParams> = {
  temperature: 0.7,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  repeatPenalty: 1,
};

/** Every field; what else a layer may hold stays behind. */
const FIELDS = [
  "temperature",
  "topK",
  "topP",
  "minP",
  "repeatPenalty",
  "seed",
] as const satisfies readonly (keyof SamplingParams)[];

/** Of each field the first value that a layer has; a field that none has is missing and left to the engine. */
export function resolveSampling(...layers: readonly (SamplingParams | undefined)[]): SamplingParams {
  const resolved: SamplingParams = {};
  for (const field of FIELDS) {
    const value = layers.find((layer) => layer?.[field] !== undefined)?.[field];
    if (value !== undefined) resolved[field] = value;
  }
  return resolved;
}
