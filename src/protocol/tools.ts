/**
 * Functions on the wire, as OpenAI's chat completions have them.
 *
 * Absent here on purpose: the older `functions`, tools that a server runs itself, and tools without a schema (`custom`).
 *
 * @module
 */

import { z } from "zod";
import { ProtocolError, text, wanted } from "./check.ts";
import { schemaObject } from "./format.ts";
import { flag } from "./sampling.ts";

/** Most functions of one request; OpenAI's limit. */
export const MAX_TOOLS = 128;
/** Most calls of one message. */
export const MAX_CALLS = 128;

/** A function that the model may call. */
export interface WireTool {
  name: string;
  description?: string;
  /** JSON schema of the arguments. */
  parameters?: Record<string, unknown>;
  strict?: boolean;
}

/** Which functions the model must or may call; an object names the one that it must. */
export type WireToolChoice = "none" | "auto" | "required" | { name: string };

/** A call of a function. */
export interface WireToolCall {
  id: string;
  name: string;
  /** JSON. */
  arguments: string;
}

const object = wanted("an object");
const aName = wanted("a name of 1 to 64 letters, digits, _, - and .");

/** Name of a function. */
export const toolName = z.string(aName).regex(/^[\w.-]{1,64}$/, aName);

/** What describes a function, wherever an API puts it. */
export const toolFields = {
  name: toolName,
  description: text().nullish(),
  parameters: schemaObject.nullish(),
  strict: flag,
};

const functionType = z.literal("function", wanted('"function"'));
const named = z.object({ type: functionType, function: z.object({ name: toolName }, object) }, object);

/** Zod field of a list of functions. */
export const toolsField = z.array(
  z.object({ type: functionType, function: z.object(toolFields, object) }, object),
  wanted(`a list of at most ${MAX_TOOLS} functions`),
).max(MAX_TOOLS).nullish();

const choices = wanted('"none", "auto", "required" or an object that names a function');

/** Zod field of which functions may be called. */
export const toolChoiceField = z.union([
  z.enum(["none", "auto", "required"]),
  named,
  z.object({
    type: z.literal("allowed_tools"),
    allowed_tools: z.object(
      { mode: z.enum(["auto", "required"]), tools: z.array(named).min(1).max(MAX_TOOLS) },
      object,
    ),
  }),
], choices).nullish();

/** Zod field of the calls of a message. */
export const toolCallsField = z.array(
  z.object({
    id: text(1, 256),
    type: functionType.nullish(),
    function: z.object({ name: toolName, arguments: text() }, object),
  }, object),
  wanted(`a list of at most ${MAX_CALLS} calls`),
).max(MAX_CALLS).nullish();

/** A function as zod has checked it. */
export function toTool({ name, description, parameters, strict }: z.output<z.ZodObject<typeof toolFields>>): WireTool {
  return {
    name,
    ...(description == null ? {} : { description }),
    ...(parameters == null ? {} : { parameters }),
    ...(strict == null ? {} : { strict }),
  };
}

/** The calls of a message as zod has checked them. */
export function toToolCalls(calls: z.output<typeof toolCallsField>): WireToolCall[] {
  return (calls ?? []).map(({ id, function: { name, arguments: args } }) => ({ id, name, arguments: args }));
}

/** What a request says of tools. */
export interface ToolWishes {
  tools: WireTool[];
  toolChoice: WireToolChoice;
}

/**
 * The functions that may be called, and which must be.
 *
 * @throws {ProtocolError} for two of one name, and for a choice of what is not there.
 */
export function toToolWishes(
  list: z.output<typeof toolsField>,
  choice: z.output<typeof toolChoiceField>,
): ToolWishes {
  const tools = toTools(list);
  if (choice == null || typeof choice === "string") return chosen(tools, tools, choice ?? "auto");
  if (choice.type === "function") return chosen(tools, tools, { name: choice.function.name });
  const { mode, tools: allowed } = choice.allowed_tools;
  const names = allowed.map(({ function: { name } }) => name);
  for (const name of names) chosen(tools, tools, { name });
  return chosen(tools, tools.filter(({ name }) => names.includes(name)), mode);
}

/** Functions as zod has checked them; throws `ProtocolError` for two of one name. */
export function toTools(list: z.output<typeof toolsField>): WireTool[] {
  const tools = (list ?? []).map(({ function: described }) => toTool(described));
  checkUnique(tools);
  return tools;
}

/** Refuses two functions of one name. */
export function checkUnique(tools: readonly WireTool[]): void {
  const twice = tools.find(({ name }, index) => tools.findIndex((other) => other.name === name) < index);
  if (twice === undefined) return;
  const message = `tools: expected functions of different names, got two called ${JSON.stringify(twice.name)}`;
  throw new ProtocolError("invalid_value", message, "tools");
}

/** The wishes, once the choice is known to be possible. */
function chosen(all: readonly WireTool[], tools: WireTool[], toolChoice: WireToolChoice): ToolWishes {
  const name = typeof toolChoice === "object" ? toolChoice.name : undefined;
  const possible = name === undefined
    ? all.length > 0 || toolChoice !== "required"
    : all.some((tool) => tool.name === name);
  if (possible) return { tools, toolChoice };
  const expected = all.length === 0 ? '"none" or "auto", as there are no tools' : "one of the tools";
  const message = `tool_choice: expected ${expected}, got ${JSON.stringify(name ?? toolChoice)}`;
  throw new ProtocolError("invalid_value", message, "tool_choice");
}
