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
const FIELDS: Readonly<Record<keyof SamplingParams, true>> = {
  temperature: true,
  topK: true,
  topP: true,
  minP: true,
  typicalP: true,
  topNSigma: true,
  dynatempRange: true,
  dynatempExponent: true,
  repeatPenalty: true,
  repeatLastN: true,
  presencePenalty: true,
  frequencyPenalty: true,
  dryMultiplier: true,
  dryBase: true,
  dryAllowedLength: true,
  dryPenaltyLastN: true,
  drySequenceBreakers: true,
  xtcProbability: true,
  xtcThreshold: true,
  mirostat: true,
  mirostatTau: true,
  mirostatEta: true,
  samplers: true,
  logitBias: true,
  allowedTokenIds: true,
  bannedTokenIds: true,
  badWords: true,
  seed: true,
};

/** Of each field the first value that a layer has; a field that none has is missing and left to the engine. */
export function resolveSampling(...layers: readonly (SamplingParams | undefined)[]): SamplingParams {
  const found = (Object.keys(FIELDS) as (keyof SamplingParams)[]).map((field) => [
    field,
    layers.find((layer) => layer?.[field] !== undefined)?.[field],
  ]);
  return Object.fromEntries(found.filter(([, value]) => value !== undefined));
}
