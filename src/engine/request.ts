/**
 * The one reading of what a valid request is on this side of the border. The core checks ranges again; this check
 * comes first because JSON would turn NaN and Infinity into null, which reads as "not given".
 *
 * Absent here: token counts, models, wire names of any API.
 *
 * @module
 */

import {
  type Constraint,
  type EmbedRequest,
  EngineError,
  type GenerateRequest,
  type LoadOptions,
  SAMPLERS,
  type SamplingParams,
} from "./engine.ts";

/** Most stop texts of one request. */
export const MAX_STOPS = 16;
/** Longest stop text, in characters (code points). */
export const MAX_STOP_LENGTH = 1024;
/** Largest token count that may be asked for; the core holds counts in 32 bits. */
export const MAX_COUNT = 2 ** 31 - 1;

/** Most token ids that end a reply. */
export const MAX_STOP_IDS = 64;
/** Most tokens whose bias may be given. */
export const MAX_BIASES = 1024;
/** Largest bias that is a number. */
export const MAX_BIAS = 100;
/** Most token ids that are allowed or banned: those of any vocabulary. */
export const MAX_IDS = 2 ** 18;
/** Most texts that must not come about, and the longest, in characters. */
export const MAX_BAD_WORDS = 64;
export const MAX_BAD_WORD_LENGTH = 256;
/** Most sequence breakers of DRY, and the longest, in characters. */
export const MAX_BREAKERS = 32;
export const MAX_BREAKER_LENGTH = 256;
/** Most tokens whose log probabilities are told for each place. */
export const MAX_LOGPROBS = 20;

/** Most bytes of a JSON schema. */
export const MAX_SCHEMA_BYTES = 512 * 1024;
/** Most bytes of a grammar. */
export const MAX_GRAMMAR_BYTES = 256 * 1024;
/** Most bytes of a regular expression, or of all choices together. */
export const MAX_PATTERN_BYTES = 64 * 1024;
/** Most texts to choose from. */
export const MAX_CHOICES = 1024;

/** The numbers a parameter may take. */
interface Range {
  min: number;
  max: number;
  /** `min` itself is not allowed. */
  above?: boolean;
  integer?: boolean;
}

const COUNT_RANGE: Range = { min: 1, max: MAX_COUNT, integer: true };
const ANY_COUNT: Range = { min: 0, max: MAX_COUNT, integer: true };
const TOKEN_ID_RANGE: Range = { min: 0, max: 2 ** 32 - 1, integer: true };
const LOGPROBS_RANGE: Range = { min: 0, max: MAX_LOGPROBS, integer: true };

/** Checks one field; throws what is wrong with it. */
type Check = (value: unknown, name: string) => void;

/** What each sampling parameter must be. Their order is that of `SamplingParams`. */
const SAMPLING: Readonly<Record<keyof SamplingParams, Range | Check>> = {
  temperature: { min: 0, max: 100 },
  topK: ANY_COUNT,
  topP: { min: 0, max: 1, above: true },
  minP: { min: 0, max: 1 },
  typicalP: { min: 0, max: 1, above: true },
  topNSigma: { min: 0, max: 100 },
  dynatempRange: { min: 0, max: 100 },
  dynatempExponent: { min: 0, max: 100 },
  repeatPenalty: { min: 0, max: 10, above: true },
  repeatLastN: ANY_COUNT,
  presencePenalty: { min: -2, max: 2 },
  frequencyPenalty: { min: -2, max: 2 },
  dryMultiplier: { min: 0, max: 100 },
  dryBase: { min: 1, max: 100 },
  dryAllowedLength: ANY_COUNT,
  dryPenaltyLastN: ANY_COUNT,
  drySequenceBreakers: (value, name) => checkShortTexts(value, name, MAX_BREAKERS, MAX_BREAKER_LENGTH),
  xtcProbability: { min: 0, max: 1 },
  xtcThreshold: { min: 0, max: 1 },
  mirostat: { min: 0, max: 2, integer: true },
  mirostatTau: { min: 0, max: 100 },
  mirostatEta: { min: 0, max: 1 },
  samplers: checkSamplers,
  logitBias: checkBiases,
  allowedTokenIds: (value, name) => checkIds(value, name, MAX_IDS, 1),
  bannedTokenIds: (value, name) => checkIds(value, name, MAX_IDS),
  badWords: (value, name) => checkShortTexts(value, name, MAX_BAD_WORDS, MAX_BAD_WORD_LENGTH),
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true },
};

/** What each constraint has besides its type. */
const CONSTRAINTS: Readonly<Record<Constraint["type"], Readonly<Record<string, Check>>>> = {
  json_schema: { schema: (value, name) => checkSize(jsonText(value, name), name, MAX_SCHEMA_BYTES) },
  json_object: {},
  regex: { pattern: (value, name) => checkSource(value, name, MAX_PATTERN_BYTES) },
  choice: { choices: checkChoices },
  grammar: {
    syntax: (value, name) => checkOneOf(value, name, ["lark", "gbnf"]),
    grammar: (value, name) => checkSource(value, name, MAX_GRAMMAR_BYTES),
  },
};

/** The names of all sampling parameters. */
export const SAMPLING_FIELDS = Object.keys(SAMPLING) as (keyof SamplingParams)[];
const POOLINGS = ["mean", "last"] as const satisfies EmbedRequest["pooling"][];

/**
 * Check every field of `request` against the ranges documented in engine.ts.
 *
 * @throws {EngineError} `invalid_request`, naming the field, what was expected and what came.
 */
export function checkRequest(request: GenerateRequest): void {
  checkObject(request, "request");
  checkPrompts(request);
  checkCount(request.maxTokens, "maxTokens");
  const { stop, stopTokenIds, minTokens, ignoreEos, logprobs, promptLogprobs, sampling, constraint } = request;
  if (stop !== undefined) checkShortTexts(stop, "stop", MAX_STOPS, MAX_STOP_LENGTH);
  if (stopTokenIds !== undefined) checkIds(stopTokenIds, "stopTokenIds", MAX_STOP_IDS);
  if (minTokens !== undefined) checkRange(minTokens, "minTokens", ANY_COUNT);
  if (ignoreEos !== undefined && typeof ignoreEos !== "boolean") throw invalid("ignoreEos", "true or false", ignoreEos);
  if (logprobs !== undefined) checkRange(logprobs, "logprobs", LOGPROBS_RANGE);
  if (promptLogprobs !== undefined) checkRange(promptLogprobs, "promptLogprobs", LOGPROBS_RANGE);
  if (constraint !== undefined) checkConstraint(checkObject(constraint, "constraint"));
  if (sampling !== undefined) checkSampling(checkObject(sampling, "sampling"));
}

function checkConstraint(constraint: Record<string, unknown>): void {
  const { type, ...fields } = constraint;
  const checks: Readonly<Record<string, Check>> =
    CONSTRAINTS[checkOneOf(type, "constraint.type", Object.keys(CONSTRAINTS)) as Constraint["type"]];
  for (const [field, check] of Object.entries(checks)) check(fields[field], `constraint.${field}`);
  for (const field in fields) {
    if (!Object.hasOwn(checks, field)) throw invalid(`constraint.${field}`, `nothing in a ${type}`, fields[field]);
  }
}

function checkSampling(sampling: Record<string, unknown>): void {
  for (const [field, check] of Object.entries(SAMPLING)) {
    const [value, name] = [sampling[field], `sampling.${field}`];
    if (value === undefined) continue;
    if (typeof check === "function") check(value, name);
    else checkRange(value, name, check);
  }
}

/**
 * Check every field of `request`.
 *
 * @throws {EngineError} `invalid_request`, naming the field, what was expected and what came.
 */
export function checkEmbedRequest(request: EmbedRequest): void {
  const { pooling } = checkObject(request, "request");
  checkPrompts(request);
  if (pooling !== undefined && !POOLINGS.some((known) => known === pooling)) {
    throw invalid("pooling", POOLINGS.join(" or "), pooling);
  }
}

/** Check that a request has one prompt: texts, or token ids. */
export function checkPrompts({ prompt, promptIds }: Pick<GenerateRequest, "prompt" | "promptIds">): void {
  checkPrompt(prompt);
  if (promptIds === undefined) return;
  checkIds(promptIds, "promptIds");
  if (prompt.length > 0) throw invalid("prompt", "no parts besides promptIds", prompt);
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
  checkIds(ids, "ids");
}

/** The core's JSON of what to load: `source` says where from, in its own fields. */
export function encodeConfig(source: Record<string, unknown>, options: LoadOptions): string {
  const { contextLength, maxRunning, maxWaiting, speculate } = options;
  checkCount(contextLength, "contextLength");
  checkCount(maxRunning, "maxRunning");
  checkCount(maxWaiting, "maxWaiting");
  return JSON.stringify({
    ...source,
    context_length: contextLength,
    max_running: maxRunning,
    max_waiting: maxWaiting,
    speculate,
  });
}

/**
 * The request as the core's JSON: snake_case, flat. A bias of minus infinity is null, as JSON has it; a schema is a text,
 * since it is for another thread to read.
 */
export function encodeRequest(request: GenerateRequest): string {
  const { prompt, promptIds, maxTokens, stop, stopTokenIds, minTokens, ignoreEos, sampling = {} } = request;
  const { logprobs, promptLogprobs, constraint } = request;
  return JSON.stringify({
    prompt,
    prompt_ids: promptIds,
    max_tokens: maxTokens,
    stop,
    stop_token_ids: stopTokenIds,
    min_tokens: minTokens,
    ignore_eos: ignoreEos,
    logprobs,
    prompt_logprobs: promptLogprobs,
    constraint: constraint?.type === "json_schema"
      ? { ...constraint, schema: jsonText(constraint.schema, "constraint.schema") }
      : constraint,
    ...Object.fromEntries(SAMPLING_FIELDS.map((field) => [wireName(field), sampling[field]])),
  });
}

/** An embedding request as the core's JSON. */
export function encodeEmbedRequest({ prompt, promptIds, pooling }: EmbedRequest): string {
  return JSON.stringify({ prompt, prompt_ids: promptIds, pooling });
}

/** The core's name of a field. */
export function wireName(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function checkShortTexts(value: unknown, name: string, most: number, longest: number): void {
  const texts = checkTexts(value, name);
  if (texts.length > most) throw invalid(name, `at most ${most} texts`, texts.length);
  texts.forEach((text, index) => {
    const length = [...text].length;
    if (length < 1 || length > longest) throw invalid(`${name}[${index}]`, `1 to ${longest} characters`, length);
  });
}

function checkIds(value: unknown, name: string, most = Infinity, least = 0): void {
  if (!Array.isArray(value)) throw invalid(name, "an array of token ids", value);
  if (value.length > most) throw invalid(name, `at most ${most} token ids`, value.length);
  if (value.length < least) throw invalid(name, `at least ${least} token ids`, value.length);
  value.forEach((id, index) => checkRange(id, `${name}[${index}]`, TOKEN_ID_RANGE));
}

function checkBiases(value: unknown, name: string): void {
  if (!Array.isArray(value)) throw invalid(name, "an array of pairs", value);
  if (value.length > MAX_BIASES) throw invalid(name, `at most ${MAX_BIASES} pairs`, value.length);
  value.forEach((pair: unknown, index) => {
    if (!Array.isArray(pair) || pair.length !== 2) throw invalid(`${name}[${index}]`, "a pair of id and bias", pair);
    checkRange(pair[0], `${name}[${index}][0]`, TOKEN_ID_RANGE);
    if (pair[1] !== -Infinity) checkRange(pair[1], `${name}[${index}][1]`, { min: -MAX_BIAS, max: MAX_BIAS });
  });
}

function checkSource(value: unknown, name: string, most: number): void {
  checkSize(checkTexts([value], name)[0]!, name, most);
}

function checkChoices(value: unknown, name: string): void {
  checkShortTexts(value, name, MAX_CHOICES, MAX_PATTERN_BYTES);
  const choices = value as readonly string[];
  if (choices.length === 0) throw invalid(name, "at least one text", 0);
  checkSize(choices.join(""), name, MAX_PATTERN_BYTES);
}

function checkSize(text: string, name: string, most: number): void {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes < 1 || bytes > most) throw invalid(name, `1 to ${most} bytes`, bytes);
}

function checkOneOf(value: unknown, name: string, names: readonly string[]): string {
  if (typeof value !== "string" || !names.includes(value)) throw invalid(name, `one of ${names.join(", ")}`, value);
  return value;
}

/** JSON has no text for functions, and its writer refuses cycles. */
function jsonText(value: unknown, name: string): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    // Told below.
  }
  if (text === undefined) throw invalid(name, "a value that JSON can write", value);
  return text;
}

function checkSamplers(value: unknown, name: string): void {
  const names = checkTexts(value, name);
  names.forEach((sampler, index) => {
    checkOneOf(sampler, `${name}[${index}]`, SAMPLERS);
    if (names.indexOf(sampler) < index) throw invalid(`${name}[${index}]`, "each name once", sampler);
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
