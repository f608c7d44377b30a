/**
 * Anthropic's Messages API on the wire: the checked requests for `/v1/messages` and `/v1/messages/count_tokens`.
 *
 * Absent here on purpose: images, documents and tools that a server would run (nothing is ever fetched or run), replies
 * that the caller begins, and caching: what would change the reply and is not implemented is refused. As with Anthropic, a
 * field that the API does not have is refused too; fields about cost and place do nothing and are named in `ignored`.
 *
 * @module
 */

import { z } from "zod";
import { check, describe, integerIn, numberIn, ProtocolError, text, wanted, wantedTag } from "./check.ts";
import { schemaObject, type WireConstraint } from "./format.ts";
import { MAX_MESSAGES, MAX_PARTS, type WireMessage } from "./message.ts";
import {
  flag,
  MAX_STOP_LENGTH,
  MAX_STOPS,
  MAX_TOKEN_COUNT,
  offOnly,
  samplingFields,
  toGeneration,
  toSampling,
  type WireGeneration,
  type WireSampling,
} from "./sampling.ts";
import { checkUnique, MAX_TOOLS, toTool, type WireTool, type WireToolChoice } from "./tools.ts";

/** Fewest tokens of a thinking budget. */
export const MIN_THINKING_TOKENS = 1024;

/** What is asked of the model, without how. */
export interface MessagesPrompt {
  model: string;
  messages: WireMessage[];
  tools: WireTool[];
  toolChoice: WireToolChoice;
  parallelToolCalls: boolean;
  /** Variables of the chat template: whether the model is to think before it speaks. */
  variables: { enable_thinking: boolean };
  /** What the reply must be. */
  constraint?: WireConstraint;
  /** Fields that were sent and do nothing, such as `metadata`. */
  ignored: string[];
}

/** A checked request for a message. */
export interface MessagesRequest extends MessagesPrompt {
  sampling: WireSampling;
  generation: WireGeneration;
  maxTokens: number;
  stop: string[];
  stream: boolean;
}

const object = wanted("an object");
const name = z.string(wanted("a name of letters, digits, _ and -")).regex(
  /^[\w-]{1,128}$/,
  wanted("a name of at most 128 letters, digits, _ and -"),
);
const callId = text(1, 256);
const anyObject = z.record(z.string(), z.unknown(), object);

const textBlock = z.object({ type: z.literal("text"), text: text() });
const textBlocks = blockList(z.discriminatedUnion("type", [textBlock], wantedTag("type", '"text"', "a block")));
const said = z.union([text(), textBlocks], wanted("a well-formed text or a list of text blocks")).transform(textOf);

const toolResult = z.object({
  type: z.literal("tool_result"),
  tool_use_id: callId,
  content: said.nullish(),
  is_error: flag,
});
const toolUse = z.object({ type: z.literal("tool_use"), id: callId, name, input: anyObject });
const thought = z.object({ type: z.literal("thinking"), thinking: text(), signature: text().nullish() });

const userBlocks = blockList(
  z.discriminatedUnion("type", [textBlock, toolResult], wantedTag("type", '"text" or "tool_result"', "a block")),
);
const assistantBlocks = blockList(
  z.discriminatedUnion(
    "type",
    [textBlock, toolUse, thought],
    wantedTag("type", '"text", "tool_use" or "thinking"', "a block"),
  ),
);
const blocks = wanted("a well-formed text or a list of blocks");

const message = z.discriminatedUnion("role", [
  z.object({ role: z.literal("system"), content: said }),
  z.object({ role: z.literal("user"), content: z.union([text(), userBlocks], blocks) }),
  z.object({ role: z.literal("assistant"), content: z.union([text(), assistantBlocks], blocks) }),
], wantedTag("role", '"user", "assistant" or "system"', "a message with role and content"));

const tool = z.object({
  type: z.literal("custom", wanted('"custom", as the server runs no tools')).nullish(),
  name,
  description: text().nullish(),
  input_schema: schemaObject,
  strict: flag,
}, object);

const toolChoice = z.discriminatedUnion("type", [
  z.object({ type: z.enum(["auto", "any"]), disable_parallel_tool_use: flag }),
  z.object({ type: z.literal("none") }),
  z.object({ type: z.literal("tool"), name, disable_parallel_tool_use: flag }),
], wantedTag("type", '"auto", "any", "tool" or "none"', "an object with a type"));

const thinking = z.discriminatedUnion("type", [
  z.object({ type: z.literal("enabled"), budget_tokens: integerIn(MIN_THINKING_TOKENS, MAX_TOKEN_COUNT) }),
  z.object({ type: z.enum(["disabled", "adaptive"]) }),
], wantedTag("type", '"enabled", "disabled" or "adaptive"', "an object with a type"));

const outputFormat = z.object(
  { type: z.literal("json_schema", wanted('"json_schema"')), schema: schemaObject },
  object,
);

/** Fields that say what to count or answer. */
const promptFields = {
  model: text(1, 256),
  messages: z.array(message, wanted(`a list of 1 to ${MAX_MESSAGES} messages`)).min(1).max(MAX_MESSAGES),
  system: said.nullish(),
  tools: z.array(tool, wanted(`a list of at most ${MAX_TOOLS} tools`)).max(MAX_TOOLS).nullish(),
  tool_choice: toolChoice.nullish(),
  thinking: thinking.nullish(),
  output_config: z.object({ effort: text(0, 32).nullish(), format: outputFormat.nullish() }, object).nullish(),
};

/** Fields about cost, place and bookkeeping: they change nothing of a reply. */
const ignoredFields = {
  cache_control: z.unknown().optional(),
  // It would drop old parts of a conversation; here they stay.
  context_management: z.unknown().optional(),
  diagnostics: z.unknown().optional(),
  inference_geo: z.unknown().optional(),
  metadata: z.object({ user_id: text(0, 256).nullish() }, object).nullish(),
  service_tier: z.unknown().optional(),
  speed: z.unknown().optional(),
  user_profile_id: z.unknown().optional(),
  workspace_id: z.unknown().optional(),
};

/** Fields that would change the reply, at the values that mean off. */
const refusedFields = {
  container: offOnly(z.null(), "null (nothing is run)"),
  mcp_servers: offOnly(z.array(z.unknown()).max(0), "an empty list (nothing is fetched)"),
  thread: z.null().optional(),
};

const onlyKnown = {
  error: (issue: { code?: string; keys?: string[]; input?: unknown }) =>
    issue.code === "unrecognized_keys"
      ? `expected fields of this API, got ${describe(issue.keys?.[0])}`
      : object.error(issue),
};

/** What the request must be. */
export const countTokensSchema = z.strictObject({ ...promptFields, ...ignoredFields, ...refusedFields }, onlyKnown);

const stopText = text(1, MAX_STOP_LENGTH);

/** What the request must be. Samplers that Anthropic does not have go by the names that chat completions use. */
export const messagesSchema = z.strictObject({
  ...samplingFields,
  ...promptFields,
  ...ignoredFields,
  ...refusedFields,
  temperature: numberIn(0, 1).nullish(),
  top_k: integerIn(0, MAX_TOKEN_COUNT).nullish(),
  max_tokens: integerIn(1, MAX_TOKEN_COUNT),
  stop_sequences: z.array(
    stopText,
    wanted(`a list of at most ${MAX_STOPS} texts of 1 to ${MAX_STOP_LENGTH} characters`),
  ).max(MAX_STOPS).nullish(),
  stream: flag,
}, onlyKnown);

const refusedSchema = z.looseObject(refusedFields, object);
const threadSchema = z.looseObject({ thread: offOnly(z.null(), "null (conversations are not kept)") }, object);

type PromptFields = z.infer<typeof countTokensSchema>;
type Message = PromptFields["messages"][number];

/**
 * The request inside a JSON value.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseMessagesRequest(value: unknown): MessagesRequest {
  refuse(value);
  const fields = check(messagesSchema, value);
  return {
    ...promptOf(fields),
    sampling: toSampling(fields),
    generation: toGeneration(fields),
    maxTokens: fields.max_tokens,
    stop: fields.stop_sequences ?? [],
    stream: fields.stream ?? false,
  };
}

/**
 * The request inside a JSON value.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseCountTokensRequest(value: unknown): MessagesPrompt {
  refuse(value);
  return promptOf(check(countTokensSchema, value));
}

function refuse(value: unknown): void {
  check(threadSchema, value, "thread_unsupported_request");
  check(refusedSchema, value, "unsupported_value");
}

function promptOf(fields: PromptFields): MessagesPrompt {
  const { model, system, thinking, output_config: output } = fields;
  requireReplyOfOurs(fields.messages);
  const messages = fields.messages.flatMap(messagesOf);
  return {
    model,
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    ...toolsOf(fields),
    variables: { enable_thinking: thinking?.type === "enabled" || thinking?.type === "adaptive" },
    constraint: output?.format ? { type: "json_schema", schema: output.format.schema } : undefined,
    ignored: ignoredOf(fields),
  };
}

/** Anthropic would go on where the caller's assistant stopped; a chat template begins a new message. */
function requireReplyOfOurs(messages: readonly Message[]): void {
  if (messages.at(-1)!.role !== "assistant") return;
  const param = `messages[${messages.length - 1}].role`;
  const reason = 'expected "user" in the last message, as replies cannot be begun for the model, got "assistant"';
  throw new ProtocolError("unsupported_value", `${param}: ${reason}`, param);
}

/** One message of theirs as ours: results of tools stand alone, in their order. */
function messagesOf({ role, content }: Message): WireMessage[] {
  if (typeof content === "string") return [{ role, content }];
  if (role === "assistant") return [assistantOf(content as z.infer<typeof assistantBlocks>)];
  const ours: WireMessage[] = [];
  for (const block of content as z.infer<typeof userBlocks>) {
    const last = ours.at(-1);
    if (block.type === "tool_result") {
      ours.push({ role: "tool", content: block.content ?? "", toolCallId: block.tool_use_id });
    } else if (last?.role === "user") last.content += block.text;
    else ours.push({ role: "user", content: block.text });
  }
  return ours;
}

function assistantOf(blocks: z.infer<typeof assistantBlocks>): WireMessage {
  const thoughts = blocks.flatMap((block) => block.type === "thinking" ? [block.thinking] : []);
  const toolCalls = blocks.flatMap((block) =>
    block.type === "tool_use" ? [{ id: block.id, name: block.name, arguments: JSON.stringify(block.input) }] : []
  );
  return {
    role: "assistant",
    content: textOf(blocks.filter((block) => block.type === "text")),
    ...(thoughts.length > 0 ? { reasoning: thoughts.join("") } : {}),
    ...(toolCalls.length > 0 ? { toolCalls } : {}),
  };
}

function toolsOf({ tools, tool_choice: choice }: PromptFields) {
  const ours = (tools ?? []).map(({ input_schema: parameters, ...described }) => toTool({ ...described, parameters }));
  checkUnique(ours);
  if (choice && choice.type !== "none" && ours.length === 0) throw invalid("tool_choice", "tools beside it", "none");
  if (choice?.type === "tool" && !ours.some(({ name }) => name === choice.name)) {
    throw invalid("tool_choice.name", "the name of one of the tools", describe(choice.name));
  }
  return { tools: ours, toolChoice: choiceOf(choice), parallelToolCalls: !onlyOneCall(choice) };
}

function choiceOf(choice: PromptFields["tool_choice"]): WireToolChoice {
  if (choice?.type === "tool") return { name: choice.name };
  return choice?.type === "any" ? "required" : choice?.type ?? "auto";
}

function onlyOneCall(choice: PromptFields["tool_choice"]): boolean {
  return choice != null && choice.type !== "none" && choice.disable_parallel_tool_use === true;
}

/** Names of our own alone, so that they may stand in a header. */
function ignoredOf({ messages, thinking, output_config: output, ...fields }: PromptFields): string[] {
  const names = Object.keys(ignoredFields).filter((name) => fields[name as keyof typeof fields] != null);
  if (messages.some(({ content }) => typeof content !== "string" && content.some(isFailure))) {
    names.push("tool_result.is_error");
  }
  if (thinking?.type === "enabled") names.push("thinking.budget_tokens");
  if (output?.effort != null) names.push("output_config.effort");
  return names;
}

/** No template knows whether a tool failed; its text has to say so. */
function isFailure(block: object): boolean {
  return "is_error" in block && block.is_error === true;
}

function invalid(param: string, expected: string, got: string): ProtocolError {
  return new ProtocolError("invalid_value", `${param}: expected ${expected}, got ${got}`, param);
}

function textOf(said: string | { text: string }[]): string {
  return typeof said === "string" ? said : said.map(({ text }) => text).join("");
}

function blockList<T extends z.ZodType>(block: T) {
  return z.array(block, wanted(`a list of at most ${MAX_PARTS} blocks`)).max(MAX_PARTS);
}
