/**
 * Who decides how tokens are chosen: the request over the flags over the model over the engine's built-in values, each
 * field by itself.
 *
 * @module
 */

import type { SamplingParams } from "../engine/engine.ts";
import { SAMPLING_FIELDS } from "../engine/request.ts";

/** What the engine does when nobody says: the core's `SamplingParams::default`. */
export const BUILT_IN_SAMPLING: Readonly<SamplingParams> = {
  temperature: 0.7,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  repeatPenalty: 1,
};

/** Of each field the first value that a layer has; a field that none has is missing, what else a layer has stays behind. */
export function resolveSampling(...layers: readonly (SamplingParams | undefined)[]): SamplingParams {
  const given = SAMPLING_FIELDS.map((field) => [field, layers.find((layer) => layer?.[field] !== undefined)?.[field]]);
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}
