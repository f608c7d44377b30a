/**
 * A conversation that is too long for the context, without its oldest turns. A turn begins with a message of the user and
 * goes as a whole; a call stays with its result, so what is said between the two belongs to the same turn. System messages
 * stay, and so does the last turn, however long.
 *
 * @module
 */

import type { ChatMessage } from "../chat/message.ts";

/** Room for a reply whose length nobody has limited, in tokens. */
export const REPLY_ROOM = 256;

/** What trimming needs to know. */
export interface TrimOptions {
  /** Tokens of the prompt that messages become. */
  count: (messages: readonly ChatMessage[]) => Promise<number>;
  /** Most tokens of prompt and reply together. */
  contextLength: number;
  /** Most tokens of the reply. */
  maxTokens?: number;
}

/** The messages without as few of the oldest turns as it takes; a reply gets at most half of the context for itself. */
export async function trimmed(
  messages: readonly ChatMessage[],
  { count, contextLength, maxTokens = REPLY_ROOM }: TrimOptions,
): Promise<readonly ChatMessage[]> {
  const room = contextLength - Math.min(maxTokens, Math.floor(contextLength / 2));
  if (await count(messages) <= room) return messages;
  const starts = startsOf(messages);
  const without = (turns: number) =>
    messages.filter(({ role }, index) => role === "system" || index >= (starts[turns] ?? messages.length));
  let [fewest, most] = [1, starts.length - 1];
  while (fewest < most) {
    const turns = Math.floor((fewest + most) / 2);
    if (await count(without(turns)) <= room) most = turns;
    else fewest = turns + 1;
  }
  return most < 1 ? messages : without(most);
}

/** Where turns begin. */
function startsOf(messages: readonly ChatMessage[]): number[] {
  const results = new Map(messages.map(({ toolCallId }, index) => [toolCallId, index]));
  const starts: number[] = [];
  let openUntil = 0;
  for (const [index, { role, toolCalls = [] }] of messages.entries()) {
    if (role === "user" && index >= openUntil) starts.push(index);
    openUntil = Math.max(openUntil, ...toolCalls.map(({ id }) => results.get(id) ?? 0));
  }
  return starts;
}
