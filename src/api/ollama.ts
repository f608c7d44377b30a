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
import type { ChosenLogprob, DoneEvent } from "../engine/engine.ts";
import {
  type ChatLogprobs,
  chatLogprobs,
  type OllamaCall,
  ollamaCall,
  ollamaChatSchema,
  type OllamaEnd,
  ollamaEnd,
  type OllamaFacts,
  ollamaGenerateSchema,
  type OllamaLine,
  ollamaLine,
  ollamaMessage,
  type OllamaPart,
  type OllamaRequest,
  ollamaResponse,
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
import type { TurnEvent } from "../sessions/turn_event.ts";
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

/** What is said as one of the two replies has it. */
type Say = (part: OllamaPart) => OllamaSaid;

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
    // A raw prompt is answered in raw text.
    const reply = { ...request, messages, ...(raw ? { template: literal, reasoning: false } : {}) };
    return await answer(c, service, { ...options, request, reply, say: ollamaResponse });
  };
}

/** `POST /api/chat`. */
function ollamaChat(service: Service, options: CompletionOptions): Handler<ApiEnv> {
  return async function handleOllamaChat(c) {
    const request = parseOllamaChat(await readJson(c, options.maxBodyBytes));
    return await answer(c, service, { ...options, request, reply: request, say: ollamaMessage });
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
  const line: Line = (part, rest) => ollamaLine(service.modelId, service.clock(), say(part), rest);
  if (reply.messages.length === 0) {
    requireLoaded(service);
    return c.json(line({}, { end: { done_reason: "load" } }));
  }

  const requestId = c.get("requestId");
  const left = new AbortController();
  const body = { onCancel: () => left.abort(), keepAliveMs };
  const fail = (error: unknown) => service.fail(requestId, error);
  const events = await begun(
    service.reply(originOf(c), { reasoning: true, ...reply }, left.signal),
    startAfterMs,
    left.signal,
  );
  if (!request.stream) return await answerWhole(c, wholeReply(events, line), { ...body, headAfterMs, fail });
  const lines = streamReply(events, line, fail);
  return c.body(pulledStream(lines, { ...body, filler: JSON_FILLER }), 200, { ...LINES_HEADERS });
}

/** A line of this model, now. */
type Line = (part: OllamaPart, rest?: { end?: OllamaEnd; logprobs?: ChatLogprobs }) => OllamaLine;

/** A part of a reply: a text, thoughts or a whole call, or its end. */
type Part = OllamaPart & { tokens?: readonly ChosenLogprob[]; done?: DoneEvent };

/** Calls are told whole, when their arguments are. */
async function* partsOf(events: AsyncIterable<TurnEvent>): AsyncGenerator<Part> {
  let call: { name: string; args: string } | undefined;
  for await (const event of events) {
    if (call !== undefined && event.type !== "tool_arguments") {
      yield { toolCalls: [ollamaCall(call.name, call.args)] };
      call = undefined;
    }
    if (event.type === "text") yield { text: event.text, tokens: event.logprobs };
    if (event.type === "reasoning") yield { thinking: event.text };
    if (event.type === "tool_call") call = { name: event.name, args: "" };
    if (event.type === "tool_arguments") call!.args += event.text;
    if (event.type === "done") yield { done: event };
  }
}

async function wholeReply(events: AsyncIterable<TurnEvent>, line: Line): Promise<OllamaLine> {
  const said = { text: "", thinking: "", toolCalls: [] as OllamaCall[] };
  let tokens: ChosenLogprob[] | undefined;
  for await (const part of partsOf(events)) {
    said.text += part.text ?? "";
    said.thinking += part.thinking ?? "";
    said.toolCalls.push(...part.toolCalls ?? []);
    if (part.tokens) (tokens ??= []).push(...part.tokens);
    if (part.done) return line(said, { end: endOf(part.done), logprobs: tokens && chatLogprobs(tokens) });
  }
  throw new Error("reply ended without a done event");
}

async function* streamReply(
  events: AsyncIterable<TurnEvent>,
  line: Line,
  fail: (error: unknown) => ApiError,
): AsyncGenerator<string> {
  try {
    for await (const { tokens, done, ...said } of partsOf(events)) {
      yield json(line(said, { end: done && endOf(done), logprobs: tokens && chatLogprobs(tokens) }));
    }
  } catch (error) {
    yield json({ error: fail(error).message });
  }
}

function endOf(event: DoneEvent): OllamaEnd {
  return ollamaEnd(finishReason(event), event.usage, event.timings);
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
