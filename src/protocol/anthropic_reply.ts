/**
 * Anthropic's Messages API on the wire: a whole reply, the events of a streamed one, and failures.
 *
 * Absent here: requests, the framing of events.
 *
 * @module
 */

import { objectIn } from "./check.ts";
import type { WireError } from "./error.ts";

/** Why a reply ended. */
export type MessagesStopReason =
  | "end_turn"
  | "max_tokens"
  | "stop_sequence"
  | "tool_use"
  | "model_context_window_exceeded";

/** A part of a reply. */
export type MessagesBlock =
  | { type: "text"; text: string; citations: null }
  | { type: "thinking"; thinking: string; signature: string }
  /** What a model wrote that is no JSON object stays a text. */
  | { type: "tool_use"; id: string; name: string; input: unknown; caller: { type: "direct" } };

/** Token counts; nothing is ever taken from a cache that is told of. */
export interface MessagesUsage {
  input_tokens: number;
  cache_creation_input_tokens: 0;
  cache_read_input_tokens: 0;
  output_tokens: number;
  output_tokens_details: null;
  server_tool_use: null;
}

/** A reply. */
export interface MessagesReply {
  id: string;
  type: "message";
  role: "assistant";
  model: string;
  content: MessagesBlock[];
  stop_reason: MessagesStopReason | null;
  stop_sequence: string | null;
  stop_details: null;
  container: null;
  diagnostics: null;
  usage: MessagesUsage & { cache_creation: null; inference_geo: null; service_tier: null; speed: null };
}

/** How a reply ended. */
export interface MessagesEnd {
  stop_reason: MessagesStopReason;
  /** The text of `stop_sequences` that ended it. */
  stop_sequence: string | null;
}

type Delta =
  | { type: "text_delta"; text: string }
  | { type: "thinking_delta"; thinking: string }
  | { type: "input_json_delta"; partial_json: string };

/** An event of a streamed reply. */
export type MessagesEvent =
  | { type: "message_start"; message: MessagesReply }
  | { type: "content_block_start"; index: number; content_block: MessagesBlock }
  | { type: "content_block_delta"; index: number; delta: Delta }
  | { type: "content_block_stop"; index: number }
  | { type: "message_delta"; delta: MessagesEnd & { stop_details: null; container: null }; usage: MessagesUsage }
  | { type: "message_stop" }
  | { type: "ping" };

/** A failure, as a body and as the last event of a stream. */
export interface MessagesError {
  type: "error";
  error: { type: string; message: string; details: { error_code: string | null; param: string | null } };
  request_id: string;
}

const ERROR_TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  409: "conflict_error",
  413: "request_too_large",
  429: "rate_limit_error",
  504: "timeout_error",
  529: "overloaded_error",
};

/** The shape of a failure; its code tells a client's program more than its type. */
export function messagesError(status: number, { message, code, param }: WireError, requestId: string): MessagesError {
  const type = ERROR_TYPES[status] ?? (status < 500 ? "invalid_request_error" : "api_error");
  return { type: "error", error: { type, message, details: { error_code: code, param } }, request_id: requestId };
}

/**
 * One reply in its order: `start` once, then any number of pieces, `end` once. Each gives the events that a stream has
 * for it; the whole reply is `message` after the end.
 */
export class MessageWriter {
  readonly #content: MessagesBlock[] = [];
  readonly #message: MessagesReply;
  /** The arguments so far of the call that is open. */
  #input = "";
  #open = false;

  /** A reply of `model`; `id` is unique among all replies. */
  constructor({ id, model }: { id: string; model: string }) {
    this.#message = {
      id: `msg_${id}`,
      type: "message",
      role: "assistant",
      model,
      content: this.#content,
      stop_reason: null,
      stop_sequence: null,
      stop_details: null,
      container: null,
      diagnostics: null,
      usage: {
        ...messagesUsage(0, 0),
        cache_creation: null,
        inference_geo: null,
        service_tier: null,
        speed: null,
      },
    };
  }

  /** The reply so far. */
  get message(): Readonly<MessagesReply> {
    return this.#message;
  }

  /** Whether a tool was called. */
  get callsTools(): boolean {
    return this.#content.some(({ type }) => type === "tool_use");
  }

  /** The prompt was read. */
  start(inputTokens: number): MessagesEvent[] {
    this.#message.usage.input_tokens = inputTokens;
    return [{ type: "message_start", message: { ...this.#message, usage: { ...this.#message.usage }, content: [] } }];
  }

  /** A piece of what is said. */
  text(text: string): MessagesEvent[] {
    const opened = this.#last?.type === "text" ? [] : this.#begin({ type: "text", text: "", citations: null });
    if (this.#last?.type === "text") this.#last.text += text;
    return [...opened, this.#delta({ type: "text_delta", text })];
  }

  /** A piece of what is thought. */
  thinking(thinking: string): MessagesEvent[] {
    const opened = this.#last?.type === "thinking"
      ? []
      : this.#begin({ type: "thinking", thinking: "", signature: "" });
    if (this.#last?.type === "thinking") this.#last.thinking += thinking;
    return [...opened, this.#delta({ type: "thinking_delta", thinking })];
  }

  /** The call of a tool begins. */
  toolUse(id: string, name: string): MessagesEvent[] {
    return this.#begin({ type: "tool_use", id, name, input: {}, caller: { type: "direct" } });
  }

  /** A piece of the arguments of the call that has begun. */
  toolInput(json: string): MessagesEvent[] {
    this.#input += json;
    return [this.#delta({ type: "input_json_delta", partial_json: json })];
  }

  /** The reply has ended. */
  end(end: MessagesEnd, usage: MessagesUsage): MessagesEvent[] {
    const closed = this.#close();
    Object.assign(this.#message, end);
    Object.assign(this.#message.usage, usage);
    const delta = { ...end, stop_details: null, container: null };
    return [...closed, { type: "message_delta", delta, usage }, { type: "message_stop" }];
  }

  get #last(): MessagesBlock | undefined {
    return this.#open ? this.#content.at(-1) : undefined;
  }

  #begin(block: MessagesBlock): MessagesEvent[] {
    const closed = this.#close();
    this.#content.push(block);
    this.#open = true;
    return [...closed, { type: "content_block_start", index: this.#content.length - 1, content_block: { ...block } }];
  }

  #close(): MessagesEvent[] {
    const last = this.#last;
    if (!last) return [];
    if (last.type === "tool_use") [last.input, this.#input] = [inputOf(this.#input), ""];
    this.#open = false;
    return [{ type: "content_block_stop", index: this.#content.length - 1 }];
  }

  #delta(delta: Delta): MessagesEvent {
    return { type: "content_block_delta", index: this.#content.length - 1, delta };
  }
}

/** Token counts in Anthropic's shape. */
export function messagesUsage(inputTokens: number, outputTokens: number): MessagesUsage {
  return {
    input_tokens: inputTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
    output_tokens: outputTokens,
    output_tokens_details: null,
    server_tool_use: null,
  };
}

function inputOf(json: string): unknown {
  return json === "" ? {} : objectIn(json) ?? json;
}
