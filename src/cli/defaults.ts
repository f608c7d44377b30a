/**
 * The flags for sampling and length. They stand between a request and the model: whoever asks over HTTP may differ.
 *
 * @module
 */
import type { TurnDefaults } from "../sessions/turn.ts";
import type { FlagValues } from "./flags.ts";

/** What the flags set for replies; absent ones are left to the model and the engine. */
export function replyDefaults(values: FlagValues): TurnDefaults {
  return {
    sampling: {
      temperature: values.temperature,
      topP: values["top-p"],
      topK: values["top-k"],
      minP: values["min-p"],
      repeatPenalty: values["repeat-penalty"],
      seed: values.seed,
    },
    maxTokens: values["max-tokens"],
  };
}
