/**
 * Who decides how tokens are chosen: the request over the flags over the model over the engine's built-in values, each
 * field by itself.
 *
 * @module
 */

import type { Constraint, Engine, GenerateRequest, SamplingParams } from "../engine/engine.ts";
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

/** What is wished of a reply besides its prompt. */
export interface ReplyWishes {
  engine: Engine;
  maxTokens?: number;
  sampling?: SamplingParams;
  defaults?: { sampling?: SamplingParams };
  generation?: Partial<GenerateRequest>;
}

/** The rest of an engine's request, as these wishes, their defaults and the model's own settle it. */
export function settled(
  { engine, maxTokens, sampling, defaults, generation }: ReplyWishes,
  { stop, constraint }: { stop: readonly string[]; constraint: Constraint | undefined },
): Omit<GenerateRequest, "prompt" | "promptIds"> {
  return {
    maxTokens,
    sampling: resolveSampling(sampling, defaults?.sampling, engine.model.defaults),
    stop: stop.length > 0 ? stop : undefined,
    ...generation,
    ...(constraint === undefined ? {} : { constraint }),
  };
}
