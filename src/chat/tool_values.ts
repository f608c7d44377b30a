/**
 * Messages and functions in the shape that Hugging Face's chat templates expect.
 *
 * @module
 */

import type { ChatMessage, Tool, ToolCall } from "./message.ts";

/** A message as templates see it; fields that do not apply are missing, as templates ask whether they are there. */
export interface TemplateMessage {
  role: string;
  content: string;
  reasoning_content?: string;
  tool_calls?: { id: string; type: "function"; function: { name: string; arguments: unknown } }[];
  tool_call_id?: string;
  /** Of a tool's message: the function that was called. */
  name?: string;
}

/** A function as templates see it. */
export interface TemplateTool {
  type: "function";
  function: { name: string; description?: string; parameters: unknown };
}

/** Arguments of functions that take none. */
export const NO_PARAMETERS = { type: "object", properties: {} };

/** Messages as templates see them. */
export function templateMessages(messages: readonly ChatMessage[]): TemplateMessage[] {
  const names = new Map(messages.flatMap(({ toolCalls = [] }) => toolCalls.map(({ id, name }) => [id, name])));
  return messages.map(({ role, content, reasoning, toolCalls = [], toolCallId }) => {
    const name = toolCallId === undefined ? undefined : names.get(toolCallId);
    return {
      role,
      content,
      ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
      ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls.map(templateCall) }),
      ...(toolCallId === undefined ? {} : { tool_call_id: toolCallId }),
      ...(name === undefined ? {} : { name }),
    };
  });
}

/** A function as templates see it. */
export function templateTool({ name, description, parameters = NO_PARAMETERS }: Tool): TemplateTool {
  return { type: "function", function: { name, ...(description === undefined ? {} : { description }), parameters } };
}

/** The arguments of a call as an object, or as the text that they are when a model made a mistake in them. */
export function argumentsOf({ arguments: text }: ToolCall): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : text;
  } catch {
    return text;
  }
}

function templateCall(call: ToolCall) {
  return { id: call.id, type: "function" as const, function: { name: call.name, arguments: argumentsOf(call) } };
}
