/**
 * Keeps special tokens that a user typed as text. Before rendering, a guard character is put into each of them, so
 * that neither the template nor the tokenizer sees a special token; after rendering, the prompt is split at the guards
 * into parts, and the tokenizer recognises special tokens only inside a part.
 *
 * What this cannot see: a template that itself writes half a special token right beside a message.
 *
 * @module
 */

import { ChatTemplateError } from "./message.ts";

/** The 32 noncharacters U+FDD0 to U+FDEF: never assigned, so never in honest text, and valid in UTF-8. */
const GUARDS = Array.from({ length: 32 }, (_, index) => String.fromCharCode(0xFDD0 + index));
/** Lists and objects inside each other in what is guarded: schemas and arguments need a dozen. */
export const MAX_VALUE_DEPTH = 64;

/** A value with guards in its texts, and the way back. */
export interface Guarded<T> {
  value: T;
  /** Split a rendered text at the guards; without them it is the text. */
  split(rendered: string): string[];
}

/**
 * Put a guard after the first character of each special token in the texts of `value`: those in lists and objects too,
 * and the names of fields. Lone surrogates, which no tokenizer takes, become U+FFFD.
 *
 * @throws {ChatTemplateError} `unguardable` when all guards are in use, or a token of one character is typed;
 * `invalid_message` when values are nested too deeply.
 */
export function guardTexts<T>(value: T, specialTokens: readonly string[]): Guarded<T> {
  const pattern = tokenStarts(specialTokens);
  const texts: string[] = [];
  const wellFormed = mapTexts(value, (text) => {
    const formed = text.toWellFormed();
    texts.push(formed);
    return formed;
  });
  if (pattern === undefined || !texts.some((text) => text.search(pattern) >= 0)) {
    return { value: wellFormed, split: (rendered) => [rendered] };
  }
  refuseShort(texts, specialTokens);
  const guard = freeGuard([...texts, ...specialTokens]);
  const guarded = mapTexts(wellFormed, (text) => text.replace(pattern, (first) => first + guard));
  return { value: guarded, split: (rendered) => splitAt(rendered, guard) };
}

/** The same value with other texts. */
function mapTexts<T>(value: T, change: (text: string) => string): T {
  const map = (value: unknown, depth: number): unknown => {
    if (typeof value === "string") return change(value);
    if (typeof value !== "object" || value === null) return value;
    if (depth > MAX_VALUE_DEPTH) throw tooDeep();
    if (Array.isArray(value)) return value.map((each) => map(each, depth + 1));
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [change(key), map(each, depth + 1)]));
  };
  return map(value, 0) as T;
}

function tooDeep(): ChatTemplateError {
  const message = `guarding messages: expected at most ${MAX_VALUE_DEPTH} nested values, got more`;
  return new ChatTemplateError("invalid_message", message);
}

/**
 * Matches the first character of each special token, also of one that starts inside another: one pass is enough, as
 * every occurrence gets a guard and no new one can come about.
 */
function tokenStarts(specialTokens: readonly string[]): RegExp | undefined {
  const tokens = specialTokens.filter((token) => token !== "").map(escapePattern);
  return tokens.length === 0 ? undefined : new RegExp(`(?=${tokens.join("|")})[^]`, "gu");
}

/** `RegExp.escape`, which Node has since 24 only. */
function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

/** A guard cannot go inside a token of one character. */
function refuseShort(texts: readonly string[], specialTokens: readonly string[]): void {
  const short = specialTokens.filter((token) => [...token].length === 1);
  const typed = short.find((token) => texts.some((text) => text.includes(token)));
  if (typed === undefined) return;
  const shown = JSON.stringify(typed);
  throw new ChatTemplateError("unguardable", `guarding messages: ${shown} is a special token of one character`);
}

function freeGuard(texts: readonly string[]): string {
  const guard = GUARDS.find((char) => !texts.some((text) => text.includes(char)));
  if (guard !== undefined) return guard;
  throw new ChatTemplateError(
    "unguardable",
    "guarding messages: expected one of U+FDD0 to U+FDEF to be free, got messages that use all of them",
  );
}

function splitAt(rendered: string, guard: string): string[] {
  return rendered.split(guard).filter((part) => part !== "");
}
