/**
 * Anthropic's Messages API: `POST /v1/messages`, whole and streamed with its named events, and
 * `POST /v1/messages/count_tokens`. Heads, failures and leaving are as for chat completions.
 *
 * Absent here: keys. `anthropic-version` and `anthropic-beta` may say what they like.
 *
 * @module
 */

import type { Handler } from "hono";
import { createMiddleware } from "hono/factory";
import type { DoneEvent } from "../engine/engine.ts";
import {
  countTokensSchema,
  type MessagesEnd,
  messagesError,
  type MessagesEvent,
  type MessagesReply,
  type MessagesRequest,
  messagesSchema,
  messagesUsage,
  MessageWriter,
  parseCountTokensRequest,
  parseMessagesRequest,
} from "../protocol/mod.ts";
import type { TurnEvent } from "../sessions/turn_event.ts";
import { readJson } from "./body.ts";
import { answerWhole, begun, type CompletionOptions, finishReason } from "./completions.ts";
import type { ApiError } from "./errors.ts";
import { nameIgnored } from "./ignored.ts";
import { originOf } from "./observe.ts";
import type { ApiEnv, Route } from "./route.ts";
import type { Service } from "./service.ts";
import { pulledStream, SSE_HEADERS, sseEvent } from "./stream.ts";

/** What an event stream may say while it has nothing to say. */
const PING = sse({ type: "ping" });

/** The endpoints. */
export function anthropicRoutes(service: Service, options: CompletionOptions): Route[] {
  return [
    {
      method: "post",
      path: "/v1/messages",
      summary: "The model's next message",
      body: messagesSchema,
      replies: "text/event-stream",
      handler: messages(service, options),
    },
    {
      method: "post",
      path: "/v1/messages/count_tokens",
      summary: "How many tokens a request's prompt has",
      body: countTokensSchema,
      handler: countTokens(service, options),
    },
  ];
}

/** Anthropic's clients look for the id of a request under another name. */
export const anthropicRequestId = createMiddleware<ApiEnv>(async (c, next) => {
  c.header("request-id", c.get("requestId"));
  await next();
});

/** `POST /v1/messages`. */
function messages(service: Service, options: CompletionOptions): Handler<ApiEnv> {
  const { maxBodyBytes, startAfterMs, headAfterMs, keepAliveMs } = options;
  return async function handleMessages(c) {
    const request = parseMessagesRequest(await readJson(c, maxBodyBytes));
    service.requireModel(request.model);
    nameIgnored(c, request.ignored);
    const requestId = c.get("requestId");
    const writer = new MessageWriter({ id: service.newId(), model: service.modelId });
    const left = new AbortController();
    const body = { onCancel: () => left.abort(), keepAliveMs };
    const fail = (error: unknown) => service.fail(requestId, error);
    // Some models think whatever they are asked; their thoughts are no text.
    const reply = service.reply(originOf(c), { ...request, reasoning: true }, left.signal);
    const events = await begun(reply, startAfterMs, left.signal);
    const written = messageEvents(writer, request, events);

    if (request.stream) {
      const pieces = streamReply(written, requestId, fail);
      return c.body(pulledStream(pieces, { ...body, filler: PING }), 200, { ...SSE_HEADERS });
    }
    return await answerWhole(c, wholeReply(writer, written), { ...body, headAfterMs, fail });
  };
}

/** `POST /v1/messages/count_tokens`. */
function countTokens(service: Service, { maxBodyBytes }: CompletionOptions): Handler<ApiEnv> {
  return async function handleCountTokens(c) {
    const request = parseCountTokensRequest(await readJson(c, maxBodyBytes));
    service.requireModel(request.model);
    return c.json({ input_tokens: await service.countTokens(request) });
  };
}

async function wholeReply(writer: MessageWriter, written: AsyncIterable<MessagesEvent>): Promise<MessagesReply> {
  for await (const { type } of written) if (type === "message_stop") return writer.message;
  throw new Error("reply ended without a done event");
}

async function* streamReply(
  written: AsyncIterable<MessagesEvent>,
  requestId: string,
  fail: (error: unknown) => ApiError,
): AsyncGenerator<string> {
  try {
    for await (const event of written) yield sse(event);
  } catch (error) {
    const { status, wire } = fail(error);
    yield sse(messagesError(status, wire, requestId));
  }
}

/** The events of a turn in Anthropic's words. */
export async function* messageEvents(
  writer: MessageWriter,
  request: MessagesRequest,
  events: AsyncIterable<TurnEvent>,
): AsyncGenerator<MessagesEvent> {
  for await (const event of events) {
    if (event.type !== "done") yield* pieceOf(writer, event);
    else yield* writer.end(endOf(writer, request, event), usageOf(event));
  }
}

function pieceOf(writer: MessageWriter, event: Exclude<TurnEvent, DoneEvent>): MessagesEvent[] {
  switch (event.type) {
    case "started":
      return writer.start(event.promptTokens);
    case "text":
      return writer.text(event.text);
    case "reasoning":
      return writer.thinking(event.text);
    case "tool_call":
      return writer.toolUse(event.id, event.name);
    case "tool_arguments":
      return writer.toolInput(event.text);
  }
}

/** The stop texts of a template end a turn; only those of the request are told. */
function endOf(writer: MessageWriter, { maxTokens, stop }: MessagesRequest, event: DoneEvent): MessagesEnd {
  if (finishReason(event) === "length") {
    const full = event.usage.completionTokens < maxTokens;
    return { stop_reason: full ? "model_context_window_exceeded" : "max_tokens", stop_sequence: null };
  }
  if (writer.callsTools) return { stop_reason: "tool_use", stop_sequence: null };
  if (event.stop === undefined || !stop.includes(event.stop)) return { stop_reason: "end_turn", stop_sequence: null };
  return { stop_reason: "stop_sequence", stop_sequence: event.stop };
}

function usageOf({ usage }: DoneEvent) {
  return messagesUsage(usage.promptTokens, usage.completionTokens);
}

function sse(event: { type: string }): string {
  return sseEvent(event.type, JSON.stringify(event));
}
