/**
 * Chat messages on the wire: a role, and content that is a text or a list of text parts; calls of functions and their
 * results.
 *
 * Absent here on purpose: images and other media (nothing is ever fetched), templates.
 *
 * @module
 */

import { z } from "zod";
import { text, wanted, wantedTag } from "./check.ts";
import { offOnly } from "./sampling.ts";
import { toolCallsField, toToolCalls, type WireToolCall } from "./tools.ts";

/** Most messages of one request. */
export const MAX_MESSAGES = 4096;
/** Most text parts of one message. */
export const MAX_PARTS = 1024;

/** Who speaks. `developer` on the wire is `system` here; `tool` is the result of a call. */
export type WireRole = "system" | "user" | "assistant" | "tool";

/** A checked message. */
export interface WireMessage {
  role: WireRole;
  content: string;
  /** The functions that an assistant's message calls. */
  toolCalls?: WireToolCall[];
  /** Which call a tool's message answers. */
  toolCallId?: string;
  /** Of an assistant's message: what it thought before it spoke. */
  reasoning?: string;
}

/** Zod schema of a list of messages. */
export function messageList(): z.ZodType<WireMessage[]> {
  return z.array(message(), wanted(`a list of 1 to ${MAX_MESSAGES} messages`)).min(1).max(MAX_MESSAGES);
}

function message(): z.ZodType<WireMessage> {
  const said = content();
  const asked = z.object({ role: z.enum(["system", "developer", "user"]), content: said });
  // An assistant message without text is one that called tools or refused; alone it is an empty reply.
  const ours = z.object({
    role: z.literal("assistant"),
    content: said.nullish(),
    tool_calls: toolCallsField,
    reasoning_content: text().nullish(),
    reasoning: text().nullish(),
    function_call: offOnly(z.never(), "no function_call, but tool_calls"),
  });
  const result = z.object({ role: z.literal("tool"), content: said, tool_call_id: text(1, 256) });
  return z.discriminatedUnion(
    "role",
    [asked, ours, result],
    wantedTag("role", '"system", "developer", "user", "assistant" or "tool"', "a message with role and content"),
  ).transform((said): WireMessage => {
    if (said.role === "tool") return { role: "tool", content: said.content, toolCallId: said.tool_call_id };
    if (said.role === "assistant") return assistantMessage(said);
    return { role: said.role === "developer" ? "system" : said.role, content: said.content };
  });
}

/** What an assistant said; fields that do not apply are missing. */
function assistantMessage(said: {
  content?: string | null;
  tool_calls?: z.output<typeof toolCallsField>;
  reasoning_content?: string | null;
  reasoning?: string | null;
}): WireMessage {
  const toolCalls = toToolCalls(said.tool_calls);
  const reasoning = said.reasoning_content ?? said.reasoning ?? "";
  return {
    role: "assistant",
    content: said.content ?? "",
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
    ...(reasoning === "" ? {} : { reasoning }),
  };
}

function content(): z.ZodType<string> {
  const type = z.literal("text", wanted('"text"'));
  const part = z.object({ type, text: text() }, wanted('an object of type "text"'));
  const parts = z.array(part, wanted(`a list of 1 to ${MAX_PARTS} parts`)).min(1).max(MAX_PARTS);
  return z.union([text(), parts], wanted("a well-formed text or a list of text parts"))
    .transform((said) => typeof said === "string" ? said : said.map((part) => part.text).join(""));
}
