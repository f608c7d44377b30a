/**
 * Ollama's API, whole and streamed as lines of JSON: `/api/generate`, `/api/chat`, `/api/show` and `/api/tags`.
 *
 * The one model is loaded before the first request and stays: a request without a prompt, which Ollama takes as "load
 * it", is answered at once, `keep_alive` changes nothing, and nothing is ever pulled. Fields that do nothing are named
 * in a header.
 *
 * @module
 */

import type { Context, Handler } from "hono";
import { literalTemplate } from "../chat/literal.ts";
import {
  ollamaChatSchema,
  type OllamaEnd,
  ollamaEnd,
  type OllamaFacts,
  ollamaGenerateSchema,
  type OllamaLine,
  ollamaLine,
  type OllamaRequest,
  type OllamaSaid,
  ollamaShow,
  ollamaShowSchema,
  ollamaTags,
  parseOllamaChat,
  parseOllamaGenerate,
  parseOllamaShow,
  VERSION,
  type WireMessage,
} from "../protocol/mod.ts";
import type { TurnEvent } from "../sessions/turn.ts";
import { readJson } from "./body.ts";
import { answerWhole, begun, type CompletionOptions, finishReason } from "./completions.ts";
import { originOf } from "./observe.ts";
import { nameIgnored } from "./ignored.ts";
import type { ApiEnv, Route } from "./route.ts";
import { ApiError } from "./errors.ts";
import type { ReplyRequest, Service } from "./service.ts";
import { JSON_FILLER, pulledStream } from "./stream.ts";

const LINES_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "application/x-ndjson",
  "cache-control": "no-cache",
  "x-accel-buffering": "no",
};

/** A text as one of the two replies has it. */
type Say = (text: string) => OllamaSaid;

const sayResponse: Say = (text) => ({ response: text });
const sayMessage: Say = (text) => ({ message: { role: "assistant", content: text } });

/** The endpoints. */
export function ollamaRoutes(service: Service, options: CompletionOptions): Route[] {
  return [
    {
      method: "post",
      path: "/api/generate",
      summary: "A reply to a prompt",
      body: ollamaGenerateSchema,
      replies: "application/x-ndjson",
      handler: ollamaGenerate(service, options),
    },
    {
      method: "post",
      path: "/api/chat",
      summary: "The model's next message",
      body: ollamaChatSchema,
      replies: "application/x-ndjson",
      handler: ollamaChat(service, options),
    },
    {
      method: "post",
      path: "/api/show",
      summary: "What the model is",
      body: ollamaShowSchema,
      handler: ollamaShown(service, options),
    },
    {
      method: "get",
      path: "/api/tags",
      summary: "The models that are served",
      handler: ollamaList(service),
    },
    {
      method: "get",
      path: "/api/version",
      summary: "The version of this server",
      handler: (c) => c.json({ version: VERSION }),
    },
  ];
}

/** `POST /api/generate`: the prompt becomes the user's message, or the whole prompt when it is `raw`. */
function ollamaGenerate(service: Service, options: CompletionOptions): Handler<ApiEnv> {
  const literal = literalTemplate(service.engine.model);
  return async function handleOllamaGenerate(c) {
    const request = parseOllamaGenerate(await readJson(c, options.maxBodyBytes));
    const { prompt, system, raw } = request;
    const asked: WireMessage[] = prompt === "" ? [] : [{ role: "user", content: prompt }];
    const messages: WireMessage[] = system && prompt ? [{ role: "system", content: system }, ...asked] : asked;
    const reply = { ...request, messages, template: raw ? literal : undefined };
    return await answer(c, service, { ...options, request, reply, say: sayResponse });
  };
}

/** `POST /api/chat`. */
function ollamaChat(service: Service, options: CompletionOptions): Handler<ApiEnv> {
  return async function handleOllamaChat(c) {
    const request = parseOllamaChat(await readJson(c, options.maxBodyBytes));
    return await answer(c, service, { ...options, request, reply: request, say: sayMessage });
  };
}

/** `POST /api/show`. */
function ollamaShown(service: Service, { maxBodyBytes }: CompletionOptions): Handler<ApiEnv> {
  return async function handleOllamaShow(c) {
    requireModel(service, parseOllamaShow(await readJson(c, maxBodyBytes)));
    return c.json(ollamaShow(factsOf(service)));
  };
}

/** `GET /api/tags`. */
function ollamaList(service: Service): Handler<ApiEnv> {
  return function handleOllamaTags(c) {
    return c.json(ollamaTags(factsOf(service)));
  };
}

interface Asked extends CompletionOptions {
  request: OllamaRequest;
  reply: ReplyRequest;
  say: Say;
}

async function answer(c: Context<ApiEnv>, service: Service, asked: Asked): Promise<Response> {
  const { request, reply, say, startAfterMs, headAfterMs, keepAliveMs } = asked;
  requireModel(service, request.model);
  nameIgnored(c, request.ignored);
  const line: Line = (said, end) => ollamaLine(service.modelId, service.clock(), said, end);
  if (reply.messages.length === 0) {
    requireLoaded(service);
    return c.json(line(say(""), { done_reason: "load" }));
  }

  const requestId = c.get("requestId");
  const left = new AbortController();
  const body = { onCancel: () => left.abort(), keepAliveMs };
  const fail = (error: unknown) => service.fail(requestId, error);
  const events = await begun(service.reply(originOf(c), reply, left.signal), startAfterMs);
  if (!request.stream) return await answerWhole(c, wholeReply(events, line, say), { ...body, headAfterMs, fail });
  const lines = streamReply(events, { line, say, fail });
  return c.body(pulledStream(lines, { ...body, filler: JSON_FILLER }), 200, { ...LINES_HEADERS });
}

/** A line of this model, now. */
type Line = (said: OllamaSaid, end?: OllamaEnd) => OllamaLine;

async function wholeReply(events: AsyncIterable<TurnEvent>, line: Line, say: Say): Promise<OllamaLine> {
  let text = "";
  for await (const event of events) {
    if (event.type === "text") text += event.text;
    if (event.type === "done") return line(say(text), ollamaEnd(finishReason(event), event.usage, event.timings));
  }
  throw new Error("reply ended without a done event");
}

async function* streamReply(
  events: AsyncIterable<TurnEvent>,
  { line, say, fail }: { line: Line; say: Say; fail: (error: unknown) => ApiError },
): AsyncGenerator<string> {
  try {
    for await (const event of events) {
      if (event.type === "text") yield json(line(say(event.text)));
      if (event.type !== "done") continue;
      yield json(line(say(""), ollamaEnd(finishReason(event), event.usage, event.timings)));
    }
  } catch (error) {
    yield json({ error: fail(error).message });
  }
}

function json(value: object): string {
  return `${JSON.stringify(value)}\n`;
}

/** Ollama's names have a tag, and one that is not given is `latest`. */
function requireModel(service: Service, model: string): void {
  if (!service.serves(model)) service.requireModel(model.replace(/:latest$/, ""));
}

/** A model whose engine has failed cannot be called loaded. */
function requireLoaded({ engine }: Service): void {
  if (engine.stats().healthy) return;
  throw new ApiError(503, {
    type: "server_error",
    code: "unhealthy",
    message: "loading the model: expected an engine that runs, got one that has failed",
  });
}

function factsOf({ engine, modelId }: Service): OllamaFacts {
  return { ...engine.model, id: modelId };
}
