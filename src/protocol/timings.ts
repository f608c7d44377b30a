/**
 * Where the time of a reply went, under the names of llama.cpp's server.
 *
 * @module
 */

/** Times in milliseconds, and rates in tokens a second. */
export interface WireTimings {
  /** Waiting for a turn. */
  queue_ms: number;
  prompt_n: number;
  prompt_ms: number;
  prompt_per_second: number;
  predicted_n: number;
  predicted_ms: number;
  predicted_per_second: number;
}

/** The shape of the times of one reply. */
export function wireTimings(
  usage: { promptTokens: number; completionTokens: number },
  timings: { queueMs: number; prefillMs: number; decodeMs: number },
): WireTimings {
  const { promptTokens, completionTokens } = usage;
  const { queueMs, prefillMs, decodeMs } = timings;
  return {
    queue_ms: queueMs,
    prompt_n: promptTokens,
    prompt_ms: prefillMs,
    prompt_per_second: rate(promptTokens, prefillMs),
    predicted_n: completionTokens,
    predicted_ms: decodeMs,
    predicted_per_second: rate(completionTokens, decodeMs),
  };
}

/** Tokens a second; 0 where no time was measured. */
function rate(tokens: number, ms: number): number {
  return ms > 0 ? tokens * 1000 / ms : 0;
}
