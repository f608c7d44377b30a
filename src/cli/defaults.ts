/**
 * The flags for sampling and length. They stand between a request and the model: whoever asks over HTTP may differ.
 *
 * @module
 */
import type { RequestLimits } from "../api/limits.ts";
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

/** What the flags allow to every request. */
export function requestLimits(values: FlagValues): RequestLimits {
  const timeout = values["request-timeout"];
  return {
    maxTokens: values["limit-tokens"],
    maxChoices: values["limit-choices"],
    timeoutMs: timeout === undefined ? undefined : timeout * 1000,
  };
}
