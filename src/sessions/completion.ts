/**
 * One completion of a raw prompt: what the request leaves open is settled as for a turn, and nothing is rendered or
 * appended.
 *
 * Absent here: conversations, several choices.
 *
 * @module
 */

import type { Constraint, Engine, GenerateEvent, GenerateRequest, SamplingParams } from "../engine/engine.ts";
import { requireConstrains } from "./reply_grammar.ts";
import { settled } from "./sampling.ts";
import type { Generation, TurnDefaults } from "./turn.ts";

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
  generation?: Generation;
  /** What the completion must be. */
  constraint?: Constraint;
  /** Aborting ends the completion. */
  signal: AbortSignal;
}

/** Run one completion; throws `EngineError` when the request does not fit or the engine fails. */
export async function* runCompletion(options: RunCompletionOptions): AsyncGenerator<GenerateEvent> {
  const { engine, prompt, promptIds, stop, constraint, defaults = {}, fallbackMaxTokens, signal } = options;
  if (constraint !== undefined) requireConstrains(engine);
  const maxTokens = options.maxTokens ?? defaults.maxTokens ?? fallbackMaxTokens;
  const request = { prompt, promptIds, ...settled({ ...options, maxTokens }, { stop, constraint }) };
  yield* engine.generate(request, { signal });
}
