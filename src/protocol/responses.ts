/**
 * The WebSocket mode of OpenAI's Responses API, as far as text goes: frames that a client sends, events that the server
 * sends, and the order in which the events of one response come.
 *
 * Additions to OpenAI's protocol: every event of a response carries `response_id`, since responses on one socket
 * interleave; `response.cancel` with the terminal event `response.cancelled`. Absent here on purpose: sockets, stored
 * conversations, tools, lanes (`stream_id`), resuming.
 *
 * @module
 */

import { z } from "zod";
import { check, parseJson, text, wanted } from "./check.ts";
import { messageList, type WireMessage } from "./message.ts";
import { offOnly, samplingFields, stopField, tokenLimit, toSampling, toStops, type WireSampling } from "./sampling.ts";

/** A checked request for a response. */
export interface CreateFrame {
  type: "response.create";
  model: string;
  /** Input with the instructions, if any, as a first system message. */
  messages: WireMessage[];
  instructions?: string;
  sampling: WireSampling;
  maxTokens?: number;
  stop: string[];
}

/** A request to end a response early. */
export interface CancelFrame {
  type: "response.cancel";
  responseId: string;
}

/** What a client may send. */
export type ClientFrame = CreateFrame | CancelFrame;

const headSchema = z.object({
  type: z.enum(["response.create", "response.cancel"], wanted('"response.create" or "response.cancel"')),
}, wanted("an object"));

const cancelSchema = z.object({ response_id: text(1, 256) });

const createSchema = z.object({
  ...samplingFields,
  model: text(1, 256),
  input: z.union([text(1), messageList(["input_text", "output_text"])], wanted("a text or a list of messages")),
  instructions: text().nullish(),
  max_output_tokens: tokenLimit,
  stop: stopField,
});

const emptyList = z.array(z.unknown()).max(0);
const refusedSchema = z.looseObject({
  previous_response_id: offOnly(z.never(), "nothing"),
  conversation: offOnly(z.never(), "nothing"),
  prompt: offOnly(z.never(), "nothing"),
  stream_id: offOnly(z.never(), "nothing"),
  background: offOnly(z.literal(false), "false"),
  tools: offOnly(emptyList, "an empty list"),
  tool_choice: offOnly(z.enum(["none", "auto"]), '"none" or "auto"'),
  text: offOnly(z.object({ format: z.object({ type: z.literal("text") }).optional() }), "the format text"),
  truncation: offOnly(z.literal("disabled"), '"disabled"'),
  top_logprobs: offOnly(z.literal(0), "0"),
});

/**
 * The frame inside a text message.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseClientFrame(message: string): ClientFrame {
  const value = parseJson(message);
  const { type } = check(headSchema, value);
  if (type === "response.cancel") return { type, responseId: check(cancelSchema, value).response_id };
  check(refusedSchema, value, "unsupported_value");
  return createFrame(check(createSchema, value));
}

function createFrame(fields: z.infer<typeof createSchema>): CreateFrame {
  const { input, instructions } = fields;
  const system: WireMessage[] = instructions ? [{ role: "system", content: instructions }] : [];
  const said: WireMessage[] = typeof input === "string" ? [{ role: "user", content: input }] : input;
  return {
    type: "response.create",
    model: fields.model,
    messages: [...system, ...said],
    instructions: instructions ?? undefined,
    sampling: toSampling(fields),
    maxTokens: fields.max_output_tokens ?? undefined,
    stop: toStops(fields.stop),
  };
}

/** How a response stands; the last four are final. */
export type ResponseStatus = "in_progress" | "completed" | "incomplete" | "cancelled" | "failed";

/** The text of a reply as a part of its message. */
interface OutputText {
  type: "output_text";
  text: string;
  annotations: never[];
}

/** The one message of a reply. */
interface OutputMessage {
  id: string;
  type: "message";
  role: "assistant";
  status: "in_progress" | "completed" | "incomplete";
  content: OutputText[];
}

/** Token counts as responses report them. */
export interface ResponseUsage {
  input_tokens: number;
  input_tokens_details: { cached_tokens: number };
  output_tokens: number;
  output_tokens_details: { reasoning_tokens: number };
  total_tokens: number;
}

/** Why a response failed. */
export interface ResponseFailure {
  code: string;
  message: string;
}

/** A response as a whole, at one moment. */
export interface WireResponse {
  id: string;
  object: "response";
  created_at: number;
  status: ResponseStatus;
  model: string;
  instructions: string | null;
  output: OutputMessage[];
  error: ResponseFailure | null;
  incomplete_details: { reason: "max_output_tokens" } | null;
  max_output_tokens: number | null;
  temperature: number | null;
  top_p: number | null;
  parallel_tool_calls: false;
  tool_choice: "none";
  tools: never[];
  metadata: Record<string, never>;
  usage: ResponseUsage | null;
}

type LifecycleType =
  | "response.created"
  | "response.in_progress"
  | "response.completed"
  | "response.incomplete"
  | "response.cancelled"
  | "response.failed";
interface PartPlace {
  item_id: string;
  output_index: 0;
  content_index: 0;
}

type EventBody =
  | { type: LifecycleType; response: WireResponse }
  | { type: "response.output_item.added" | "response.output_item.done"; output_index: 0; item: OutputMessage }
  | { type: "response.content_part.added" | "response.content_part.done"; part: OutputText } & PartPlace
  | { type: "response.output_text.delta"; delta: string; logprobs: never[] } & PartPlace
  | { type: "response.output_text.done"; text: string; logprobs: never[] } & PartPlace;

/** An event of one response; `sequence_number` counts from 0 without gaps. */
export type ResponseEvent = EventBody & { response_id: string; sequence_number: number };

/** A refused frame; it belongs to no response, so its `sequence_number` counts the errors of the socket. */
export interface SocketErrorEvent {
  type: "error";
  code: string | null;
  message: string;
  param: string | null;
  sequence_number: number;
}

/** What the server may send. */
export type ServerEvent = ResponseEvent | SocketErrorEvent;

/** How a response ended. */
export type ResponseEnd =
  | { status: "completed" | "incomplete" | "cancelled"; usage: ResponseUsage }
  | { status: "failed"; error: ResponseFailure };

/** Token counts in the shape of responses. */
export function responseUsage(inputTokens: number, outputTokens: number): ResponseUsage {
  return {
    input_tokens: inputTokens,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: outputTokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: inputTokens + outputTokens,
  };
}

/** The events of one response in their order: `start` once, `text` for each piece, `end` once. */
export class ResponseWriter {
  readonly #response: Readonly<WireResponse>;
  readonly #itemId: string;
  readonly #place: PartPlace;
  #sequence = 0;
  #text = "";
  #opened = false;

  /** A response to `frame`; `id` is unique among all responses. */
  constructor(frame: CreateFrame, { id, createdAt, model }: { id: string; createdAt: number; model: string }) {
    this.#itemId = `msg_${id}`;
    this.#place = { item_id: this.#itemId, output_index: 0, content_index: 0 };
    this.#response = {
      id: `resp_${id}`,
      object: "response",
      created_at: createdAt,
      status: "in_progress",
      model,
      instructions: frame.instructions ?? null,
      output: [],
      error: null,
      incomplete_details: null,
      max_output_tokens: frame.maxTokens ?? null,
      temperature: frame.sampling.temperature ?? null,
      top_p: frame.sampling.topP ?? null,
      parallel_tool_calls: false,
      tool_choice: "none",
      tools: [],
      metadata: {},
      usage: null,
    };
  }

  /** The id by which a client names the response. */
  get responseId(): string {
    return this.#response.id;
  }

  /** The events that announce the response. */
  start(): ResponseEvent[] {
    const response = this.#response;
    return [
      this.#event({ type: "response.created", response }),
      this.#event({ type: "response.in_progress", response }),
    ];
  }

  /** The events of one more piece of text. */
  text(delta: string): ResponseEvent[] {
    this.#text += delta;
    return [
      ...this.#open(),
      this.#event({ type: "response.output_text.delta", ...this.#place, delta, logprobs: [] }),
    ];
  }

  /** The events that close what is open, and the terminal one. A failure leaves the message open, as it is unfinished. */
  end(end: ResponseEnd): ResponseEvent[] {
    const closing = end.status === "failed" ? [] : [...this.#open(), ...this.#close(end.status)];
    const output = this.#opened ? [this.#message(end.status === "completed" ? "completed" : "incomplete")] : [];
    const response: WireResponse = {
      ...this.#response,
      status: end.status,
      output,
      error: end.status === "failed" ? end.error : null,
      incomplete_details: end.status === "incomplete" ? { reason: "max_output_tokens" } : null,
      usage: end.status === "failed" ? null : end.usage,
    };
    return [...closing, this.#event({ type: `response.${end.status}`, response })];
  }

  #open(): ResponseEvent[] {
    if (this.#opened) return [];
    this.#opened = true;
    const item: OutputMessage = { ...this.#message("in_progress"), content: [] };
    return [
      this.#event({ type: "response.output_item.added", output_index: 0, item }),
      this.#event({ type: "response.content_part.added", ...this.#place, part: outputText("") }),
    ];
  }

  #close(status: "completed" | "incomplete" | "cancelled"): ResponseEvent[] {
    const text = this.#text;
    const item = this.#message(status === "completed" ? "completed" : "incomplete");
    return [
      this.#event({ type: "response.output_text.done", ...this.#place, text, logprobs: [] }),
      this.#event({ type: "response.content_part.done", ...this.#place, part: outputText(text) }),
      this.#event({ type: "response.output_item.done", output_index: 0, item }),
    ];
  }

  #message(status: OutputMessage["status"]): OutputMessage {
    return { id: this.#itemId, type: "message", role: "assistant", status, content: [outputText(this.#text)] };
  }

  #event(body: EventBody): ResponseEvent {
    return { ...body, response_id: this.#response.id, sequence_number: this.#sequence++ };
  }
}

function outputText(text: string): OutputText {
  return { type: "output_text", text, annotations: [] };
}
