/**
 * Tools for templates that know none, by plain text in the notation of Hermes, which many models have met in training:
 *
 * - the functions stand in the system text, behind what it says otherwise, or before the first message where a template
 *   takes no system text;
 * - a call in an earlier reply stands in it as `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`;
 * - results are one user turn of `<tool_response>...</tool_response>`, with what the user says next.
 *
 * @module
 */

import { type ChatMessage, ChatTemplateError, checkMessages, type Tool, type ToolCall } from "./message.ts";
import type { ChatTemplate, RenderedPrompt, RenderOptions } from "./template.ts";
import { argumentsOf, templateTool } from "./tool_values.ts";

/** The prompt that `template` makes of `messages`, with tools even where it knows none. */
export function renderChat(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options: RenderOptions,
): RenderedPrompt {
  if (template.tools !== undefined) return template.render(messages, options);
  checkMessages(messages);
  const { tools = [], ...others } = options;
  const plain = plainMessages(messages);
  if (tools.length === 0) return template.render(plain, others);
  try {
    return template.render(described(plain, tools, template.system), others);
  } catch (error) {
    const refused = error instanceof ChatTemplateError && error.code === "refused";
    if (!refused || plain[0]!.role !== "user") throw error;
    const first: ChatMessage = { role: "user", content: `${toolsText(tools)}\n\n${plain[0]!.content}` };
    return template.render([first, ...plain.slice(1)], others);
  }
}

/** The same conversation without calls and results. */
export function plainMessages(messages: readonly ChatMessage[]): ChatMessage[] {
  const plain: ChatMessage[] = [];
  for (const [index, message] of messages.entries()) {
    const before = messages[index - 1];
    if (message.role === "tool" || (message.role === "user" && before?.role === "tool")) {
      const said = message.role === "tool" ? tagged("tool_response", message.content) : message.content;
      if (before?.role === "tool") plain.push({ role: "user", content: `${plain.pop()!.content}\n${said}` });
      else plain.push({ role: "user", content: said });
    } else plain.push(plainMessage(message));
  }
  return plain;
}

function plainMessage({ toolCalls, ...message }: ChatMessage): ChatMessage {
  if (toolCalls === undefined) return message;
  return {
    ...message,
    content: [message.content, ...toolCalls.map(callText)].filter((text) => text !== "").join("\n"),
  };
}

function callText(call: ToolCall): string {
  const isJson = typeof argumentsOf(call) !== "string";
  const args = isJson ? call.arguments : JSON.stringify(call.arguments);
  return tagged("tool_call", `{"name": ${JSON.stringify(call.name)}, "arguments": ${args}}`);
}

/** The functions in the system text; `system` is that of conversations that bring none. */
function described(messages: readonly ChatMessage[], tools: readonly Tool[], system = ""): ChatMessage[] {
  const own = messages[0]?.role === "system" ? messages[0].content : system;
  const rest = messages[0]?.role === "system" ? messages.slice(1) : messages;
  return [{ role: "system", content: own === "" ? toolsText(tools) : `${own}\n\n${toolsText(tools)}` }, ...rest];
}

function toolsText(tools: readonly Tool[]): string {
  return `# Tools

You may call one or more functions to assist with the user query. These are their signatures:
${tagged("tools", tools.map((tool) => JSON.stringify(templateTool(tool))).join("\n"))}

For each call, answer with a JSON object of the function's name and arguments within tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>`;
}

function tagged(tag: string, text: string): string {
  return `<${tag}>\n${text}\n</${tag}>`;
}
