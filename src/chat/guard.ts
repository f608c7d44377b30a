/**
 * Keeps special tokens that a user typed as text. Before rendering, a guard character is put into each of them, so
 * that neither the template nor the tokenizer sees a special token; after rendering, the prompt is split at the guards
 * into parts, and the tokenizer recognises special tokens only inside a part.
 *
 * What this cannot see: a template that itself writes half a special token right beside a message.
 *
 * @module
 */

import { type ChatMessage, ChatTemplateError } from "./message.ts";

/** The 32 noncharacters U+FDD0 to U+FDEF: never assigned, so never in honest text, and valid in UTF-8. */
const GUARDS = Array.from({ length: 32 }, (_, index) => String.fromCharCode(0xFDD0 + index));

/** Messages with guards in them, and the way back. */
export interface GuardedMessages {
  messages: ChatMessage[];
  /** Split a rendered text at the guards; without them it is the text. */
  split(rendered: string): string[];
}

/**
 * Put a guard after the first character of each special token in the contents of `messages`. Lone surrogates, which
 * no tokenizer takes, become U+FFFD.
 *
 * @throws {ChatTemplateError} `unguardable` when all guards are in use, or a token of one character is typed.
 */
export function guardMessages(messages: readonly ChatMessage[], specialTokens: readonly string[]): GuardedMessages {
  const pattern = tokenStarts(specialTokens);
  const contents = messages.map(({ content }) => content.toWellFormed());
  if (pattern === undefined || !contents.some((content) => content.search(pattern) >= 0)) {
    return { messages: withContents(messages, contents), split: (rendered) => [rendered] };
  }
  refuseShort(contents, specialTokens);
  const guard = freeGuard([...contents, ...specialTokens]);
  const guarded = contents.map((content) => content.replace(pattern, (first) => first + guard));
  return { messages: withContents(messages, guarded), split: (rendered) => splitAt(rendered, guard) };
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
function refuseShort(contents: readonly string[], specialTokens: readonly string[]): void {
  const short = specialTokens.filter((token) => [...token].length === 1);
  const typed = short.find((token) => contents.some((content) => content.includes(token)));
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

function withContents(messages: readonly ChatMessage[], contents: readonly string[]): ChatMessage[] {
  return messages.map(({ role }, index) => ({ role, content: contents[index]! }));
}
