/**
 * Chat messages on the wire: a role, and content that is a text or a list of text parts.
 *
 * Absent here on purpose: images and other media (nothing is ever fetched), tool calls, templates.
 *
 * @module
 */

import { z } from "zod";
import { text, wanted } from "./check.ts";

/** Most messages of one request. */
export const MAX_MESSAGES = 4096;
/** Most text parts of one message. */
export const MAX_PARTS = 1024;

/** Who speaks. `developer` on the wire is `system` here. */
export type WireRole = "system" | "user" | "assistant";

/** A checked message. */
export interface WireMessage {
  role: WireRole;
  content: string;
}

/** Zod schema of a list of messages whose text parts have one of the given types. */
export function messageList(partTypes: readonly [string, ...string[]]): z.ZodType<WireMessage[]> {
  return z.array(message(partTypes), wanted(`a list of 1 to ${MAX_MESSAGES} messages`)).min(1).max(MAX_MESSAGES);
}

function message(partTypes: readonly [string, ...string[]]): z.ZodType<WireMessage> {
  const said = content(partTypes);
  const calls = z.array(z.unknown(), wanted("no tool calls, as tools are not supported")).max(0).nullish();
  const theirs = z.object({ role: z.enum(["system", "developer", "user"]), content: said });
  // An assistant message without text is one that called tools or refused; alone it is an empty reply.
  const ours = z.object({ role: z.literal("assistant"), content: said.nullish(), tool_calls: calls });
  return z.discriminatedUnion("role", [theirs, ours], roleError()).transform(({ role, content }) => ({
    role: role === "developer" ? "system" : role,
    content: content ?? "",
  }));
}

function content(partTypes: readonly [string, ...string[]]): z.ZodType<string> {
  const types = partTypes.map((type) => `"${type}"`).join(" or ");
  const part = z.object({ type: z.enum(partTypes, wanted(types)), text: text() }, wanted(`an object of type ${types}`));
  const parts = z.array(part, wanted(`a list of 1 to ${MAX_PARTS} parts`)).min(1).max(MAX_PARTS);
  return z.union([text(), parts], wanted("a well-formed text or a list of text parts"))
    .transform((said) => typeof said === "string" ? said : said.map((part) => part.text).join(""));
}

/** A wrong discriminator reports the whole message as its input; show the role that came. */
function roleError(): { error: (issue: { code?: string; input?: unknown }) => string } {
  const role = wanted('"system", "developer", "user" or "assistant"');
  const whole = wanted("a message with role and content");
  return {
    error: (issue) =>
      issue.code === "invalid_union"
        ? role.error({ input: (issue.input as { role?: unknown }).role })
        : whole.error(issue),
  };
}
