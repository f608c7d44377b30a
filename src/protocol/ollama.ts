/**
 * Ollama's API on the wire: checked requests for `/api/generate`, `/api/chat` and `/api/show`.
 *
 * Absent here on purpose: `context` (a conversation as token ids: send messages instead), templates of requests (a
 * stranger's program), images, and everything that writes models. What would change the reply and is not implemented is refused;
 * how Ollama should load a model is the operator's business here, so such options are taken, do nothing, and are named in
 * `ignored`.
 *
 * @module
 */

import { z } from "zod";
import { check, integerIn, numberIn, ProtocolError, text, wanted } from "./check.ts";
import { effortVariables } from "./chat.ts";
import { schemaObject, type WireConstraint } from "./format.ts";
import { ignoredFields } from "./ignored.ts";
import { MAX_TOP_LOGPROBS } from "./logprobs.ts";
import { MAX_MESSAGES, type WireMessage } from "./message.ts";
import {
  flag,
  MAX_TOKEN_COUNT,
  offOnly,
  samplingFields,
  stopField,
  toSampling,
  toStops,
  type WireSampling,
} from "./sampling.ts";
import { MAX_CALLS, toolName, toolsField, toTools, type WireTool } from "./tools.ts";

/** Highest temperature: the engine's. */
export const MAX_TEMPERATURE = 100;

/** What both requests have in common. */
export interface OllamaRequest {
  model: string;
  sampling: WireSampling;
  /** Most new tokens; missing means what the operator says. */
  maxTokens?: number;
  stop: string[];
  generation: { logprobs?: number };
  /** What the reply must be. */
  constraint?: WireConstraint;
  /** Variables of the chat template: how much to think. */
  variables: Record<string, unknown>;
  stream: boolean;
  /** Fields that were sent and do nothing, such as `options.num_ctx`. */
  ignored: string[];
}

/** A checked request for the continuation of a prompt. */
export interface OllamaGenerateRequest extends OllamaRequest {
  /** Empty when the model is only to be loaded. */
  prompt: string;
  system?: string;
  /** The prompt is already rendered. */
  raw: boolean;
}

/** A checked request for the next message. */
export interface OllamaChatRequest extends OllamaRequest {
  /** Empty when the model is only to be loaded. */
  messages: WireMessage[];
  tools: WireTool[];
}

const emptyList = z.array(z.unknown()).max(0);
const tokenCount = wanted(`an integer from 1 to ${MAX_TOKEN_COUNT}, -1 or -2`);

/**
 * Below zero Ollama means "off" (`top_k`), "random" (`seed`), "until the context is full" (`num_predict`) and "all of the
 * context" (`repeat_last_n`).
 */
const optionFields = {
  temperature: numberIn(0, MAX_TEMPERATURE).nullish(),
  top_k: samplingFields.top_k,
  top_p: samplingFields.top_p,
  min_p: samplingFields.min_p,
  typical_p: samplingFields.typical_p,
  repeat_penalty: samplingFields.repeat_penalty,
  repeat_last_n: samplingFields.repeat_last_n,
  presence_penalty: samplingFields.presence_penalty,
  frequency_penalty: samplingFields.frequency_penalty,
  mirostat: samplingFields.mirostat,
  mirostat_tau: samplingFields.mirostat_tau,
  mirostat_eta: samplingFields.mirostat_eta,
  seed: integerIn(-1, Number.MAX_SAFE_INTEGER).nullish(),
  num_predict: z.int(tokenCount).min(-2).max(MAX_TOKEN_COUNT).refine((n) => n !== 0, tokenCount).nullish(),
  stop: stopField,
};
const optionsSchema = z.object(optionFields, wanted("an object")).nullish();

/** Only the value that turns it off is accepted. */
const refusedOptions = { tfs_z: offOnly(z.literal(1), "1") };

const object = wanted("an object");
const aFormat = wanted('"json" or a JSON schema');
const aThink = wanted('true, false, "low", "medium" or "high"');

const commonFields = {
  model: text(1, 256),
  stream: flag,
  options: optionsSchema,
  keep_alive: z.union([z.number(), text(0, 32)], wanted("a duration as a text, or seconds")).nullish(),
  format: z.union([z.enum(["", "json"]), schemaObject], aFormat).nullish(),
  think: z.union([z.boolean(), z.enum(["low", "medium", "high"])], aThink).nullish(),
  logprobs: flag,
  top_logprobs: integerIn(0, MAX_TOP_LOGPROBS).nullish(),
};
const commonRefused = { options: z.looseObject(refusedOptions, object).nullish() };

/** What the request must be. */
export const ollamaGenerateSchema = z.object(
  { ...commonFields, prompt: text().nullish(), system: text().nullish(), raw: flag },
  object,
);
const generateRefused = z.looseObject({
  ...commonRefused,
  template: offOnly(z.literal(""), '"" (the server decides on the template; "raw" sends a rendered prompt)'),
  suffix: offOnly(z.literal(""), '""'),
  context: offOnly(emptyList, "an empty list (send messages to /api/chat)"),
  images: offOnly(emptyList, "an empty list"),
}, object);

const aCall = z.object({
  function: z.object({ name: toolName, arguments: schemaObject.nullish() }, object),
}, object);
const message = z.object({
  role: z.enum(["system", "user", "assistant", "tool"], wanted('"system", "user", "assistant" or "tool"')),
  content: text().nullish(),
  thinking: text().nullish(),
  images: offOnly(emptyList, "an empty list"),
  tool_calls: z.array(aCall, wanted(`a list of at most ${MAX_CALLS} calls`)).max(MAX_CALLS).nullish(),
}, wanted("a message with role and content"));

/** What the request must be. */
export const ollamaChatSchema = z.object({
  ...commonFields,
  messages: z.array(message, wanted(`a list of at most ${MAX_MESSAGES} messages`)).max(MAX_MESSAGES).nullish(),
  tools: toolsField,
}, object);
const chatRefused = z.looseObject(commonRefused, object);

/**
 * The request inside a JSON value.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseOllamaGenerate(value: unknown): OllamaGenerateRequest {
  check(generateRefused, value, "unsupported_value");
  const fields = check(ollamaGenerateSchema, value);
  const raw = fields.raw ?? false;
  const system = fields.system || undefined;
  if (raw && system) {
    throw new ProtocolError("invalid_value", "system: expected no system text beside raw, got one", "system");
  }
  return { ...common(fields, value), prompt: fields.prompt ?? "", system, raw };
}

/**
 * The request inside a JSON value.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseOllamaChat(value: unknown): OllamaChatRequest {
  check(chatRefused, value, "unsupported_value");
  const fields = check(ollamaChatSchema, value);
  return { ...common(fields, value), messages: toMessages(fields.messages ?? []), tools: toTools(fields.tools) };
}

/** Calls have no ids here: a result answers the first call that has none yet. */
function toMessages(messages: readonly z.output<typeof message>[]): WireMessage[] {
  let calls = 0;
  let answered = 0;
  return messages.map(({ role, content, thinking, tool_calls }): WireMessage => {
    const said = { role, content: content ?? "" };
    if (role === "tool") return answered < calls ? { ...said, toolCallId: callId(answered++) } : said;
    if (role !== "assistant") return said;
    const toolCalls = (tool_calls ?? []).map(({ function: { name, arguments: args } }) => ({
      id: callId(calls++),
      name,
      arguments: JSON.stringify(args ?? {}),
    }));
    return { ...said, ...(thinking ? { reasoning: thinking } : {}), ...(toolCalls.length > 0 ? { toolCalls } : {}) };
  });
}

/** Nine letters and digits, as some templates want it. */
function callId(index: number): string {
  return `call${String(index).padStart(5, "0")}`;
}

/** What the request must be. */
export const ollamaShowSchema = z.object(
  { model: text(1, 256).nullish(), name: text(1, 256).nullish() },
  wanted("an object"),
);

/**
 * The model that `/api/show` is asked about; older clients call the field `name`.
 *
 * @throws {ProtocolError} when there is none.
 */
export function parseOllamaShow(value: unknown): string {
  const { model, name } = check(ollamaShowSchema, value);
  return check(z.object({ model: text(1, 256) }), { model: model ?? name }).model;
}

type CommonFields = z.infer<z.ZodObject<typeof commonFields>>;

function common(fields: CommonFields, value: unknown): OllamaRequest {
  const { model, stream, options, format, think, logprobs, top_logprobs } = fields;
  const { seed, num_predict, stop, ...rest } = options ?? {};
  return {
    model,
    sampling: toSampling({ ...rest, seed: seed === -1 ? undefined : seed }),
    maxTokens: (num_predict ?? 0) < 0 ? MAX_TOKEN_COUNT : num_predict ?? undefined,
    stop: toStops(stop),
    generation: logprobs ? { logprobs: top_logprobs ?? 0 } : {},
    constraint: formatOf(format),
    variables: think == null ? {} : thinkVariables(think),
    stream: stream ?? true,
    ignored: unused(value as Record<string, unknown>),
  };
}

function formatOf(format: CommonFields["format"]): WireConstraint | undefined {
  if (format == null || format === "") return undefined;
  return format === "json" ? { type: "json_object" } : { type: "json_schema", schema: format };
}

function thinkVariables(think: boolean | "low" | "medium" | "high"): Record<string, unknown> {
  return typeof think === "boolean" ? { enable_thinking: think } : effortVariables(think);
}

function unused({ options, keep_alive }: Record<string, unknown>): string[] {
  const names = ignoredFields(options, { ...optionFields, ...refusedOptions }, "options.");
  return keep_alive == null ? names : [...names, "keep_alive"];
}
