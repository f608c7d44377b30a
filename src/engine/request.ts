/**
 * The one reading of what a valid request is on this side of the border. The core checks ranges again; this check
 * comes first because JSON would turn NaN and Infinity into null, which reads as "not given".
 *
 * Absent here: token counts, models, wire names of any API.
 *
 * @module
 */

import { EngineError, type GenerateRequest, type LoadOptions } from "./engine.ts";

/** Most stop texts of one request. */
export const MAX_STOPS = 16;
/** Longest stop text, in characters (code points). */
export const MAX_STOP_LENGTH = 1024;
/** Largest token count that may be asked for; the core holds counts in 32 bits. */
export const MAX_COUNT = 2 ** 31 - 1;

/** The numbers a parameter may take. */
interface Range {
  min: number;
  max: number;
  /** `min` itself is not allowed. */
  above?: boolean;
  integer?: boolean;
}

const SAMPLING_RANGES: Readonly<Record<string, Range>> = {
  temperature: { min: 0, max: 100 },
  topK: { min: 0, max: MAX_COUNT, integer: true },
  topP: { min: 0, max: 1, above: true },
  minP: { min: 0, max: 1 },
  repeatPenalty: { min: 0, max: 10, above: true },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true },
};
const COUNT_RANGE: Range = { min: 1, max: MAX_COUNT, integer: true };
const TOKEN_ID_RANGE: Range = { min: 0, max: 2 ** 32 - 1, integer: true };

/**
 * Check every field of `request` against the ranges documented in engine.ts.
 *
 * @throws {EngineError} `invalid_request`, naming the field, what was expected and what came.
 */
export function checkRequest(request: GenerateRequest): void {
  checkObject(request, "request");
  checkPrompt(request.prompt);
  checkCount(request.maxTokens, "maxTokens");
  checkStops(request.stop);
  if (request.ignoreEos !== undefined && typeof request.ignoreEos !== "boolean") {
    throw invalid("ignoreEos", "true or false", request.ignoreEos);
  }
  if (request.sampling === undefined) return;
  const sampling = checkObject(request.sampling, "sampling");
  for (const [name, range] of Object.entries(SAMPLING_RANGES)) {
    if (sampling[name] !== undefined) checkRange(sampling[name], `sampling.${name}`, range);
  }
}

/** Check that `prompt` is an array of well-formed texts. */
export function checkPrompt(prompt: unknown): void {
  checkTexts(prompt, "prompt");
}

/** Check an optional token count: a whole number of 1 or more. */
export function checkCount(value: unknown, name: string): void {
  if (value !== undefined) checkRange(value, name, COUNT_RANGE);
}

/** Check that `ids` are numbers a token id can be; whether the vocabulary has them is for the engine to say. */
export function checkTokenIds(ids: unknown): void {
  if (!Array.isArray(ids)) throw invalid("ids", "an array of token ids", ids);
  ids.forEach((id, index) => checkRange(id, `ids[${index}]`, TOKEN_ID_RANGE));
}

/** The core's JSON of what to load: `source` says where from, in its own fields. */
export function encodeConfig(source: Record<string, unknown>, options: LoadOptions): string {
  const { contextLength, maxRunning, maxWaiting } = options;
  checkCount(contextLength, "contextLength");
  checkCount(maxRunning, "maxRunning");
  checkCount(maxWaiting, "maxWaiting");
  return JSON.stringify({
    ...source,
    context_length: contextLength,
    max_running: maxRunning,
    max_waiting: maxWaiting,
  });
}

/** The request as the core's JSON: snake_case, flat. */
export function encodeRequest(request: GenerateRequest): string {
  const { prompt, maxTokens, stop, ignoreEos, sampling = {} } = request;
  return JSON.stringify({
    prompt,
    max_tokens: maxTokens,
    stop,
    ignore_eos: ignoreEos,
    temperature: sampling.temperature,
    top_k: sampling.topK,
    top_p: sampling.topP,
    min_p: sampling.minP,
    repeat_penalty: sampling.repeatPenalty,
    seed: sampling.seed,
  });
}

function checkStops(stop: unknown): void {
  if (stop === undefined) return;
  const texts = checkTexts(stop, "stop");
  if (texts.length > MAX_STOPS) throw invalid("stop", `at most ${MAX_STOPS} texts`, texts.length);
  texts.forEach((text, index) => {
    const length = [...text].length;
    if (length < 1 || length > MAX_STOP_LENGTH) {
      throw invalid(`stop[${index}]`, `1 to ${MAX_STOP_LENGTH} characters`, length);
    }
  });
}

function checkTexts(value: unknown, name: string): readonly string[] {
  if (!Array.isArray(value)) throw invalid(name, "an array of texts", value);
  value.forEach((text: unknown, index) => {
    if (typeof text !== "string") throw invalid(`${name}[${index}]`, "a text", text);
    if (!text.isWellFormed()) throw invalid(`${name}[${index}]`, "well-formed Unicode", text);
  });
  return value;
}

function checkObject(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalid(name, "an object", value);
  return value as Record<string, unknown>;
}

function checkRange(value: unknown, name: string, range: Range): void {
  const { min, max, above = false, integer = false } = range;
  const inside = typeof value === "number" && value <= max && (above ? value > min : value >= min);
  if (inside && (!integer || Number.isSafeInteger(value))) return;
  const kind = integer ? "a whole number" : "a number";
  throw invalid(name, `${kind} ${above ? "above" : "from"} ${min} ${above ? "up to" : "to"} ${max}`, value);
}

function invalid(name: string, expected: string, got: unknown): EngineError {
  return new EngineError("invalid_request", `checking ${name}: expected ${expected}, got ${describe(got)}`);
}

/** A value in a sentence: short ones as they are, others by their type. */
function describe(value: unknown): string {
  if (typeof value === "number" || typeof value === "boolean" || value === null) return String(value);
  if (typeof value === "string") {
    return value.length <= 40 ? JSON.stringify(value) : `a text of ${value.length} characters`;
  }
  return Array.isArray(value) ? "an array" : typeof value;
}
