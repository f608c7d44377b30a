/**
 * Items as the messages of a conversation: what belongs to one step of the assistant (a thought, a text, calls) becomes
 * one message.
 *
 * Absent here: where items are kept, and how they are checked.
 *
 * @module
 */

import type { ChatMessage, ToolCall } from "../chat/message.ts";
import type { ItemBody, OutputMessage, Reasoning } from "../protocol/mod.ts";

/** One step of the assistant while its items are read. */
interface Step {
  reasoning?: string;
  content?: string;
  toolCalls: ToolCall[];
}

/**
 * The messages that items stand for. A thought that nothing follows is left out, as templates have no place for it, and
 * so is a step in which nothing was said.
 */
export function toMessages(items: readonly ItemBody[]): ChatMessage[] {
  const messages: ChatMessage[] = [];
  let step: Step | undefined;
  const end = () => {
    if (step?.content || step?.toolCalls.length) messages.push(messageOf(step));
    step = undefined;
  };
  const open = (goesOn: (step: Step) => boolean): Step => {
    if (step && !goesOn(step)) end();
    return step ??= { toolCalls: [] };
  };
  for (const item of items) {
    if (item.type === "reasoning") open(isThought).reasoning = thoughtOf(item);
    else if (item.type === "function_call") open(() => true).toolCalls.push(callOf(item));
    else if (item.type === "message" && item.role === "assistant") open(isThought).content = textOf(item);
    else {
      end();
      messages.push(heard(item));
    }
  }
  end();
  return messages;
}

/** Whether a step has nothing but a thought. */
function isThought({ content, toolCalls }: Step): boolean {
  return content === undefined && toolCalls.length === 0;
}

function messageOf({ reasoning, content = "", toolCalls }: Step): ChatMessage {
  return {
    role: "assistant",
    content,
    ...(reasoning === undefined ? {} : { reasoning }),
    ...(toolCalls.length > 0 ? { toolCalls } : {}),
  };
}

function heard(item: Exclude<ItemBody, OutputMessage | { type: "reasoning" | "function_call" }>): ChatMessage {
  if (item.type === "function_call_output") return { role: "tool", content: item.output, toolCallId: item.call_id };
  const content = item.content.map(({ text }) => text).join("");
  return { role: item.role === "developer" ? "system" : item.role, content };
}

function textOf({ content }: OutputMessage): string {
  return content.map((part) => part.type === "refusal" ? part.refusal : part.text).join("");
}

/** A model that shows what it thinks has content; one that does not has a summary at most. */
function thoughtOf({ content, summary }: Reasoning): string {
  return (content.length > 0 ? content : summary).map(({ text }) => text).join("\n");
}

function callOf(item: { call_id: string; name: string; arguments: string }): ToolCall {
  return { id: item.call_id, name: item.name, arguments: item.arguments };
}
