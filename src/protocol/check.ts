/**
 * From `unknown` to a checked value, or one sentence that says which field, what was wanted and what came. Every wire
 * shape of this room goes through here, so all refusals read alike and name a `param`.
 *
 * Absent here on purpose: HTTP statuses, and the values themselves beyond a short excerpt.
 *
 * @module
 */

import { z } from "zod";

/** Longest excerpt of a refused text that a message repeats, in UTF-16 code units. */
const MAX_EXCERPT = 40;

/** Deepest JSON: a schema of many levels in a request has some 100. */
export const MAX_JSON_DEPTH = 256;

/**
 * Why the protocol refuses a value: not JSON, a value outside its range, or a feature that is not there. Of these,
 * Anthropic's clients know `thread_unsupported_request` by name, and then do without.
 */
export type ProtocolErrorCode = "invalid_json" | "invalid_value" | "unsupported_value" | "thread_unsupported_request";

/** A message from outside that breaks the protocol. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
  /** What kind of refusal this is. */
  readonly code: ProtocolErrorCode;
  /** The refused field, such as `messages[0].content`; null for the message as a whole. */
  readonly param: string | null;

  /** A refusal of `param` with a sentence. */
  constructor(code: ProtocolErrorCode, message: string, param: string | null = null) {
    super(message);
    this.code = code;
    this.param = param;
  }
}

/**
 * The value as `schema` reads it.
 *
 * @throws {ProtocolError} for the first field that does not fit; `unsupported_value` where a check's `params` say
 *   `unsupported`, as of a feature that is not there.
 */
export function check<T>(schema: z.ZodType<T>, value: unknown, code: ProtocolErrorCode = "invalid_value"): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { path, message, unsupported } = innermost(result.error.issues[0]!);
  const param = path.length > 0 ? z.core.toDotPath(path) : null;
  throw new ProtocolError(unsupported ? "unsupported_value" : code, `${param ?? "request"}: ${message}`, param);
}

/**
 * The value that a JSON text stands for.
 *
 * @throws {ProtocolError} when it is not JSON.
 */
export function parseJson(text: string): unknown {
  if (depthOf(text) > MAX_JSON_DEPTH) {
    const message = `request: expected JSON of at most ${MAX_JSON_DEPTH} levels, got more`;
    throw new ProtocolError("invalid_value", message);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ProtocolError("invalid_json", `request: expected JSON, got ${describe(text)}: ${reason}`);
  }
}

/** UTF-16 code units of `"`, `\\`, brackets and braces. */
const [QUOTE, BACKSLASH, OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [34, 92, 91, 93, 123, 125];

/**
 * How many brackets of a JSON text are open at most; of other texts any number. Everything that walks a value recurses,
 * so what is too deep must not become one.
 */
function depthOf(text: string): number {
  let [depth, deepest] = [0, 0];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === QUOTE) i = endOfString(text, i);
    else if (code === OPEN_LIST || code === OPEN_OBJECT) deepest = Math.max(deepest, ++depth);
    else if (code === CLOSE_LIST || code === CLOSE_OBJECT) depth--;
  }
  return deepest;
}

/** The place of the quote that ends the string whose first quote is at `start`, or of the text's end. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return end;
  }
  return text.length;
}

/** The object that a JSON text stands for, if it stands for one: models write what they like. */
export function objectIn(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? value as Record<string, unknown> : undefined;
  } catch {
    return undefined;
  }
}

/** Zod options that make every failure of a field say what was `wanted`. */
export function wanted(wanted: string): { error: (issue: { input?: unknown }) => string } {
  return { error: (issue) => `expected ${wanted}, got ${describe(issue.input)}` };
}

/**
 * The same for objects whose field `key` says which they are: zod reports the whole object where that field has none of
 * the `tags`, and this shows what came in its place.
 */
export function wantedTag(
  key: string,
  tags: string,
  whole: string,
): { error: (issue: { code?: string; input?: unknown }) => string } {
  return {
    error: (issue) =>
      issue.code === "invalid_union"
        ? wanted(tags).error({ input: (issue.input as Record<string, unknown>)[key] })
        : wanted(whole).error(issue),
  };
}

/** A number of the closed range `min` to `max`; NaN and the infinities are outside every range. */
export function numberIn(min: number, max: number): z.ZodType<number> {
  return z.number(wanted(`a number from ${min} to ${max}`)).min(min).max(max);
}

/** A number above `low` and up to `max`. */
export function numberAbove(low: number, max: number): z.ZodType<number> {
  return z.number(wanted(`a number above ${low} up to ${max}`)).gt(low).max(max);
}

/** An integer of the closed range `min` to `max`. */
export function integerIn(min: number, max: number): z.ZodType<number> {
  return z.int(wanted(`an integer from ${min} to ${max}`)).min(min).max(max);
}

/** A text of `min` to `max` UTF-16 code units. A lone surrogate has no UTF-8 form, so it would change silently. */
export function text(min = 0, max = Infinity): z.ZodType<string> {
  const size = min === 0 && max === Infinity ? "" : ` of ${min} to ${max} characters`;
  const options = wanted(`a well-formed text${size}`);
  return z.string(options).refine((s) => s.length >= min && s.length <= max && s.isWellFormed(), options);
}

/** One short phrase for a refused value: small values as they are, others by kind and size. */
export function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") {
    const cut = value.length > MAX_EXCERPT ? "..." : "";
    return JSON.stringify(value.slice(0, MAX_EXCERPT)) + cut;
  }
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  return String(value);
}

/** A union fails with one list of issues per branch: prefer the branch that got furthest into the value. */
function innermost(issue: z.core.$ZodIssue): { path: PropertyKey[]; message: string; unsupported?: boolean } {
  if (issue.code === "custom") return { ...issue, unsupported: issue.params?.unsupported === true };
  if (issue.code !== "invalid_union") return issue;
  const deeper = issue.errors.map((branch) => branch[0]).find((inner) => inner && inner.path.length > 0);
  if (!deeper) return issue;
  const { path, ...rest } = innermost(deeper);
  return { ...rest, path: [...issue.path, ...path] };
}
