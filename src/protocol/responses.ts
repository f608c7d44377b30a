/**
 * The request for a response, as OpenAI's Responses API has it, over HTTP or in a frame of a socket.
 *
 * Unknown fields are ignored, as OpenAI adds new ones faster than servers follow; known ones that would change the reply
 * and are not implemented are refused. `service_tier`, `prompt_cache_key` and the like change nothing here. Extensions:
 * the samplers and stop texts of other endpoints.
 *
 * Absent here on purpose: HTTP, what is kept, the model.
 *
 * @module
 */

import { z } from "zod";
import { effortField, effortVariables } from "./chat.ts";
import { check, integerIn, ProtocolError, text, wanted } from "./check.ts";
import { schemaObject, type WireConstraint } from "./format.ts";
import { ignoredFields } from "./ignored.ts";
import { type InputItem, inputSchema, MAX_ID_LENGTH, MAX_NAME_LENGTH } from "./items.ts";
import { ofType } from "./kind.ts";
import { MAX_TOP_LOGPROBS } from "./logprobs.ts";
import { integerText } from "./page.ts";
import { metadataField } from "./metadata.ts";
import type { ResponseEcho, ResponseToolChoice, WireFunction, WireTextFormat } from "./response.ts";
import {
  flag,
  offOnly,
  samplingFields,
  stopField,
  toGeneration,
  tokenLimit,
  toSampling,
  toStops,
  type WireGeneration,
  type WireSampling,
} from "./sampling.ts";
import { MAX_TOOLS, toolFields, toolName, type ToolWishes, toToolWishes } from "./tools.ts";

/** A checked request for a response. */
export interface ResponseRequest extends ToolWishes {
  /** Absent: the one that is served. */
  model?: string;
  input: InputItem[];
  instructions?: string;
  previousResponseId?: string;
  conversationId?: string;
  parallelToolCalls: boolean;
  /** What the text must be. */
  constraint?: WireConstraint;
  /** Variables of the chat template. */
  variables: Record<string, unknown>;
  sampling: WireSampling;
  /** How many log probabilities to report for each token besides its own, among others; absent: not even its own. */
  generation: WireGeneration & { logprobs?: number };
  maxTokens?: number;
  stop: string[];
  /** Whether the oldest turns are left out where the context is too short. */
  truncate: boolean;
  store: boolean;
  stream: boolean;
  background: boolean;
  /** Whether to generate at all, or only to keep the input. */
  generate: boolean;
  echo: ResponseEcho;
  /** Fields that were sent and do nothing. */
  ignored: string[];
}

/** What `include` may ask for. All but the log probabilities belong to tools that are not here, or are there anyway. */
const INCLUDABLE = [
  "file_search_call.results",
  "web_search_call.results",
  "web_search_call.action.sources",
  "message.input_image.image_url",
  "computer_call_output.output.image_url",
  "code_interpreter_call.outputs",
  "reasoning.encrypted_content",
  "message.output_text.logprobs",
] as const;

const name = text(1, MAX_NAME_LENGTH);
const id = text(1, MAX_ID_LENGTH);
const label = text(0, MAX_ID_LENGTH).nullish();

const tool = ofType(
  ["function"],
  z.object({
    type: z.literal("function"),
    ...toolFields,
  }).transform(({ type, name, description, parameters, strict }): WireFunction => ({
    type,
    name,
    description: description ?? null,
    parameters: parameters ?? null,
    strict: strict ?? null,
  })),
  "tools of the server's own are not supported",
);

const named = z.object({ type: z.literal("function"), name: toolName });
const toolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  ofType(
    ["function", "allowed_tools"],
    z.discriminatedUnion("type", [
      named,
      z.object({
        type: z.literal("allowed_tools"),
        mode: z.enum(["auto", "required"], wanted('"auto" or "required"')),
        tools: z.array(ofType(["function"], named, "other tools are not supported")).min(1).max(MAX_TOOLS),
      }),
    ]),
    "other tools are not supported",
  ),
], wanted('"none", "auto", "required" or an object that names functions')).nullish();

const format = ofType(
  ["text", "json_object", "json_schema"],
  z.discriminatedUnion("type", [
    z.object({ type: z.literal("text") }),
    z.object({ type: z.literal("json_object") }),
    z.object({
      type: z.literal("json_schema"),
      name,
      schema: schemaObject,
      description: text().optional(),
      strict: flag,
    }),
  ]),
  "other formats are not supported",
);

/** What the request must be. */
export const responseSchema = z.object({
  ...samplingFields,
  model: text(1, 256).nullish(),
  input: inputSchema.nullish(),
  instructions: text().nullish(),
  previous_response_id: id.nullish(),
  conversation: z.union([id, z.object({ id })], wanted("an id or an object with one")).nullish(),
  tools: z.array(tool, wanted(`a list of at most ${MAX_TOOLS} functions`)).max(MAX_TOOLS).nullish(),
  tool_choice: toolChoice,
  parallel_tool_calls: flag,
  max_tool_calls: integerIn(1, Number.MAX_SAFE_INTEGER).nullish(),
  text: z.object({
    format: format.nullish(),
    verbosity: offOnly(z.literal("medium"), '"medium"'),
  }, wanted("an object")).nullish(),
  reasoning: z.object({ effort: effortField, summary: text(1, 32).nullish() }, wanted("an object")).nullish(),
  max_output_tokens: tokenLimit,
  stop: stopField,
  include: z.array(z.enum(INCLUDABLE, wanted("a field that can be included"))).max(INCLUDABLE.length).nullish(),
  top_logprobs: integerIn(0, MAX_TOP_LOGPROBS).nullish(),
  metadata: metadataField,
  store: flag,
  stream: flag,
  stream_options: z.object({ include_obfuscation: flag }, wanted("an object")).nullish(),
  background: flag,
  truncation: z.enum(["auto", "disabled"], wanted('"auto" or "disabled"')).nullish(),
  user: label,
  safety_identifier: label,
  prompt_cache_key: label,
}, wanted("an object"));

const refusedFields = {
  prompt: offOnly(z.never(), "nothing"),
  moderation: offOnly(z.never(), "nothing"),
  context_management: offOnly(z.array(z.unknown()).max(0), "an empty list"),
};
const refusedSchema = z.looseObject(refusedFields, wanted("an object"));

type Fields = z.infer<typeof responseSchema>;

/**
 * The request inside a JSON value.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseResponseRequest(value: unknown): ResponseRequest {
  check(refusedSchema, value, "unsupported_value");
  const fields = check(responseSchema, value);
  checkTogether(fields);
  const { include, top_logprobs, conversation } = fields;
  const logprobs = include?.includes("message.output_text.logprobs") ? top_logprobs ?? 0 : undefined;
  return {
    model: fields.model ?? undefined,
    input: fields.input ?? [],
    instructions: fields.instructions ?? undefined,
    previousResponseId: fields.previous_response_id ?? undefined,
    conversationId: (typeof conversation === "string" ? conversation : conversation?.id) ?? undefined,
    ...toolWishes(fields),
    parallelToolCalls: fields.parallel_tool_calls ?? true,
    constraint: constraintOf(fields.text?.format),
    variables: effortVariables(fields.reasoning?.effort),
    sampling: toSampling(fields),
    generation: { ...toGeneration(fields), ...(logprobs === undefined ? {} : { logprobs }) },
    maxTokens: fields.max_output_tokens ?? undefined,
    stop: toStops(fields.stop),
    truncate: fields.truncation === "auto",
    store: fields.store ?? true,
    stream: fields.stream ?? false,
    background: fields.background ?? false,
    generate: true,
    echo: echoOf(fields),
    ignored: ignoredFields(value, { ...responseSchema.shape, ...refusedFields }),
  };
}

/** Fields that need or exclude each other. */
function checkTogether(fields: Fields): void {
  const { input, previous_response_id, conversation, background, store } = fields;
  const continues = previous_response_id ?? conversation;
  if (!continues && !input?.length) {
    throw new ProtocolError("invalid_value", "input: expected an input, got none", "input");
  }
  if (previous_response_id && conversation) {
    const message = "previous_response_id: expected nothing beside a conversation, got both";
    throw new ProtocolError("invalid_value", message, "previous_response_id");
  }
  if (background && store === false) {
    throw new ProtocolError(
      "invalid_value",
      "background: expected a response that is stored, got store false",
      "background",
    );
  }
}

/** The functions that may be called, and which must be, as chat completions write them. */
function toolWishes({ tools, tool_choice: choice }: Fields): ToolWishes {
  const nested = ({ name }: { name: string }) => ({ type: "function" as const, function: { name } });
  const all = tools?.map(({ type, ...fields }) => ({ type, function: fields }));
  if (choice == null || typeof choice === "string") return toToolWishes(all, choice);
  if (choice.type === "function") return toToolWishes(all, nested(choice));
  const { type, mode, tools: allowed } = choice;
  return toToolWishes(all, { type, allowed_tools: { mode, tools: allowed.map(nested) } });
}

function constraintOf(format: WireTextFormat | null | undefined): WireConstraint | undefined {
  if (format?.type === "json_schema") return { type: "json_schema", schema: format.schema };
  return format?.type === "json_object" ? format : undefined;
}

function echoOf(fields: Fields): ResponseEcho {
  const { conversation, reasoning } = fields;
  return {
    background: fields.background ?? false,
    conversation: typeof conversation === "string" ? { id: conversation } : conversation ?? null,
    instructions: fields.instructions ?? null,
    max_output_tokens: fields.max_output_tokens ?? null,
    max_tool_calls: fields.max_tool_calls ?? null,
    metadata: fields.metadata ?? {},
    parallel_tool_calls: fields.parallel_tool_calls ?? true,
    previous_response_id: fields.previous_response_id ?? null,
    prompt_cache_key: fields.prompt_cache_key ?? null,
    reasoning: { effort: reasoning?.effort ?? null, summary: reasoning?.summary ?? null },
    safety_identifier: fields.safety_identifier ?? null,
    service_tier: "default",
    store: fields.store ?? true,
    temperature: fields.temperature ?? null,
    text: { format: fields.text?.format ?? { type: "text" }, verbosity: "medium" },
    tool_choice: (fields.tool_choice ?? "auto") satisfies ResponseToolChoice,
    tools: fields.tools ?? [],
    top_logprobs: fields.top_logprobs ?? 0,
    top_p: fields.top_p ?? null,
    truncation: fields.truncation ?? "disabled",
    user: fields.user ?? null,
  };
}

/** What the query of a kept response may have. */
export const watchSchema = z.object({
  stream: z.enum(["true", "false"], wanted("true or false")).optional(),
  starting_after: integerText(0, Number.MAX_SAFE_INTEGER).optional(),
});

/** How a kept response is asked for. */
export interface WatchQuery {
  stream: boolean;
  /** The number of the last event that is known already; -1 for none. */
  startingAfter: number;
}

/** The query of a kept response; throws `ProtocolError` naming the first field that does not fit. */
export function parseWatchQuery(value: unknown): WatchQuery {
  const { stream, starting_after = -1 } = check(watchSchema, value);
  return { stream: stream === "true", startingAfter: starting_after };
}
