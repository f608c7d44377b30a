/**
 * Items: what responses and conversations are made of, as OpenAI writes them. A checked item has one form whichever way it
 * was written: content is a list of parts, a type is always there.
 *
 * Absent here on purpose: where items are kept, how they become messages, and media: an image, a file or a sound is
 * refused, and no address in an item is ever fetched.
 *
 * @module
 */

import { z } from "zod";
import { describe, text, wanted } from "./check.ts";
import { ofType } from "./kind.ts";
import type { ChatLogprobs } from "./logprobs.ts";
import { MAX_PARTS } from "./message.ts";

/** Most items of one request. */
export const MAX_ITEMS = 4096;
/** Longest id of an item or a call, in UTF-16 code units. */
export const MAX_ID_LENGTH = 256;
/** Longest name of a function, in UTF-16 code units. */
export const MAX_NAME_LENGTH = 128;

/** How an item stands. */
export type ItemStatus = "in_progress" | "completed" | "incomplete";

/** A text that the model reads. */
export interface InputText {
  type: "input_text";
  text: string;
}

/** A chosen token and the most probable ones in its place. */
export type ItemLogprob = ChatLogprobs["content"][number];

/** A text that the model wrote. */
export interface OutputText {
  type: "output_text";
  text: string;
  annotations: never[];
  logprobs?: ItemLogprob[];
}

/** What a model said instead of an answer. */
export interface OutputRefusal {
  type: "refusal";
  refusal: string;
}

/** A message to the model. */
export interface InputMessage {
  type: "message";
  role: "user" | "system" | "developer";
  status: ItemStatus;
  content: InputText[];
}

/** A message of the model. */
export interface OutputMessage {
  type: "message";
  role: "assistant";
  status: ItemStatus;
  content: (OutputText | OutputRefusal)[];
}

/** A call of a function. */
export interface FunctionCall {
  type: "function_call";
  call_id: string;
  name: string;
  /** JSON. */
  arguments: string;
  status: ItemStatus;
}

/** What a called function gave. */
export interface FunctionCallOutput {
  type: "function_call_output";
  call_id: string;
  output: string;
  status: ItemStatus;
}

/** What the model thought. */
export interface Reasoning {
  type: "reasoning";
  summary: { type: "summary_text"; text: string }[];
  content: { type: "reasoning_text"; text: string }[];
  status: ItemStatus;
}

/** An item without its id. */
export type ItemBody = InputMessage | OutputMessage | FunctionCall | FunctionCallOutput | Reasoning;

/** An item that is kept. */
export type Item = ItemBody & { id: string };

/** Stands for an item that is kept. */
export interface ItemReference {
  type: "item_reference";
  id: string;
}

/** What a request may hand in. Ids that it gives to its items are not kept: every item that is kept gets a new one. */
export type InputItem = ItemBody | ItemReference;

/** How ids of each kind of item begin. */
const ID_PREFIXES: Record<ItemBody["type"], string> = {
  message: "msg",
  function_call: "fc",
  function_call_output: "fco",
  reasoning: "rs",
};

/** The id of an item; `unique` is letters and digits. */
export function itemId(type: ItemBody["type"], unique: string): string {
  return `${ID_PREFIXES[type]}_${unique}`;
}

/** The item with an id, fields in OpenAI's order. */
export function identified<T extends ItemBody>(body: T, unique: string): T & { id: string } {
  return { id: itemId(body.type, unique), ...body };
}

/** Whether an input stands for another item. */
export function isReference(item: InputItem): item is ItemReference {
  return item.type === "item_reference";
}

const id = text(1, MAX_ID_LENGTH);
const status = z.enum(["in_progress", "completed", "incomplete"], wanted('"in_progress", "completed" or "incomplete"'))
  .nullish().transform((given) => given ?? "completed" as const);

const inputText = z.object({ type: z.enum(["input_text", "text"]), text: text() })
  .transform(({ text }): InputText => ({ type: "input_text", text }));
const outputText = z.object({ type: z.enum(["output_text", "text"]), text: text() }).transform(({ text }) =>
  said(text)
);
const refusal = z.object({ type: z.literal("refusal"), refusal: text() });

const inputPart = ofType(
  ["input_text", "text"],
  inputText,
  "images, files and audio are not supported, and nothing is fetched",
);
const outputPart = ofType(
  ["output_text", "text", "refusal"],
  z.discriminatedUnion("type", [outputText, refusal]),
  "other parts are not supported",
);

const heard = contentOf(inputPart, (text): InputText => ({ type: "input_text", text }));
const spoken = contentOf(outputPart, said);

const inputMessage = z.object({
  type: z.literal("message"),
  role: z.enum(["user", "system", "developer"]),
  status,
  content: heard,
});
const outputMessage = z.object({
  type: z.literal("message"),
  role: z.literal("assistant"),
  status,
  content: z.union([spoken, z.null().transform(() => [])], wanted("a well-formed text or a list of text parts")),
});
const message = z.discriminatedUnion("role", [inputMessage, outputMessage], {
  error: ({ input }) =>
    `expected "user", "system", "developer" or "assistant", got ${describe((input as { role?: unknown }).role)}`,
});

const functionCall = z.object({
  type: z.literal("function_call"),
  call_id: id,
  name: text(1, MAX_NAME_LENGTH),
  arguments: text(),
  status,
});

const functionCallOutput = z.object({
  type: z.literal("function_call_output"),
  call_id: id,
  output: heard.transform((parts) => parts.map(({ text }) => text).join("")),
  status,
});

const thoughts = <T extends string>(type: T) =>
  z.array(z.object({ type: z.literal(type, wanted(`"${type}"`)), text: text() }), wanted(`a list of ${type}`))
    .max(MAX_PARTS).nullish().transform((parts) => parts ?? []);
const reasoning = z.object({
  type: z.literal("reasoning"),
  summary: thoughts("summary_text"),
  content: thoughts("reasoning_text"),
  status,
});

const reference = z.object({ type: z.literal("item_reference"), id });

/** Zod schema of an item that is no reference. */
export const itemSchema: z.ZodType<ItemBody> = ofType(
  ["message", "function_call", "function_call_output", "reasoning"],
  z.discriminatedUnion("type", [message, functionCall, functionCallOutput, reasoning]),
  "other items are not supported",
  withType,
);

/** Zod schema of an item or a reference. */
export const inputItemSchema: z.ZodType<InputItem> = ofType(
  ["message", "function_call", "function_call_output", "reasoning", "item_reference"],
  z.discriminatedUnion("type", [message, functionCall, functionCallOutput, reasoning, reference]),
  "other items are not supported",
  withType,
);

/** Zod schema of the input of a request: a text stands for a message of the user. */
export const inputSchema: z.ZodType<InputItem[]> = z.union([
  text(1).transform((content): InputItem[] => [userMessage(content)]),
  z.array(inputItemSchema).max(MAX_ITEMS),
], wanted(`a text or a list of at most ${MAX_ITEMS} items`));

/** A user's message. */
export function userMessage(content: string): InputMessage {
  return { type: "message", role: "user", status: "completed", content: [{ type: "input_text", text: content }] };
}

/** A text that the model wrote. */
export function said(text: string, logprobs?: ItemLogprob[]): OutputText {
  return { type: "output_text", text, annotations: [], ...(logprobs ? { logprobs } : {}) };
}

/** Content: a text, or a list of parts. */
function contentOf<T>(part: z.ZodType<T>, ofText: (text: string) => T): z.ZodType<T[]> {
  const parts = z.array(part, wanted(`a list of 1 to ${MAX_PARTS} parts`)).min(1).max(MAX_PARTS);
  return z.union([text().transform((content) => [ofText(content)]), parts], {
    ...wanted("a well-formed text or a list of text parts"),
  });
}

/** Where its type is left out, a role means a message, and an id alone a reference. */
function withType(value: Record<string, unknown>): Record<string, unknown> {
  if (value.type !== undefined && value.type !== null) return value;
  if (value.role !== undefined) return { ...value, type: "message" };
  return value.id === undefined ? value : { ...value, type: "item_reference" };
}
