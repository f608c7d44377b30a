/**
 * One completion of a raw prompt: what the request leaves open is settled as for a turn, and nothing is rendered or
 * appended.
 *
 * Absent here: conversations, several choices.
 *
 * @module
 */

import type { Engine, GenerateEvent, GenerateRequest, SamplingParams } from "../engine/engine.ts";
import { resolveSampling } from "./sampling.ts";
import type { TurnDefaults } from "./turn.ts";

/** What a completion needs. */
export interface RunCompletionOptions extends Pick<GenerateRequest, "prompt" | "promptIds"> {
  engine: Engine;
  sampling?: SamplingParams;
  maxTokens?: number;
  /** For what the request leaves open; what these leave open as well, the model decides. */
  defaults?: TurnDefaults;
  /** The limit when nobody else says. */
  fallbackMaxTokens: number;
  /** Texts that end the completion. */
  stop: readonly string[];
  /** Aborting ends the completion. */
  signal: AbortSignal;
}

/** Run one completion; throws `EngineError` when the request does not fit or the engine fails. */
export async function* runCompletion(options: RunCompletionOptions): AsyncGenerator<GenerateEvent> {
  const { engine, prompt, promptIds, stop, defaults = {}, fallbackMaxTokens, signal } = options;
  const sampling = resolveSampling(options.sampling, defaults.sampling, engine.model.defaults);
  const maxTokens = options.maxTokens ?? defaults.maxTokens ?? fallbackMaxTokens;
  const request = { prompt, promptIds, maxTokens, sampling, stop: stop.length > 0 ? stop : undefined };
  yield* engine.generate(request, { signal });
}
