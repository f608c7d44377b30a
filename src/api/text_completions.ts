/**
 * `POST /v1/completions`, whole and streamed: several prompts, several choices of each, told apart by their index. Heads,
 * failures and leaving are as for chat completions.
 *
 * All choices are given to the engine at once and their pieces are sent as they come. A prompt is counted once however
 * many choices it has, though each choice reads it for itself.
 *
 * @module
 */

import type { Handler } from "hono";
import type { DoneEvent } from "../engine/engine.ts";
import {
  type ChatUsage,
  chatUsage,
  type Completion,
  completion,
  completionChunk,
  type CompletionRequest,
  completionSchema,
  errorEnvelope,
  parseCompletionRequest,
  type ReplyHead,
  type WireFinishReason,
} from "../protocol/mod.ts";
import { readJson } from "./body.ts";
import { begun, type CompletionOptions, data, finishReason, lateReply } from "./completions.ts";
import { originOf } from "./observe.ts";
import type { ApiEnv, Route } from "./route.ts";
import type { ApiError } from "./errors.ts";
import type { ChoiceEvent, Service } from "./service.ts";
import { JSON_FILLER, pulledStream, SSE_FILLER, SSE_HEADERS, sseData } from "./stream.ts";
import { LATE, within } from "./timing.ts";

/** The endpoint. */
export function completionRoutes(service: Service, options: CompletionOptions): Route[] {
  return [
    {
      method: "post",
      path: "/v1/completions",
      summary: "Prompts continued",
      body: completionSchema,
      replies: "text/event-stream",
      handler: textCompletions(service, options),
    },
  ];
}

/** The handler. */
function textCompletions(service: Service, options: CompletionOptions): Handler<ApiEnv> {
  const { maxBodyBytes, startAfterMs, headAfterMs, keepAliveMs } = options;
  return async function handleCompletion(c) {
    const request = parseCompletionRequest(await readJson(c, maxBodyBytes));
    service.requireModel(request.model);
    const requestId = c.get("requestId");
    const head = { id: `cmpl-${service.newId()}`, created: service.now(), model: service.modelId };
    const left = new AbortController();
    const body = { onCancel: () => left.abort(), keepAliveMs };
    const fail = (error: unknown) => service.fail(requestId, error);
    const prompts = await service.prompts(request.prompts);
    const events = await begun(service.completions(originOf(c), { ...request, prompts }, left.signal), startAfterMs);
    const replies = new Replies(request, prompts.map(({ text }) => text));

    if (request.stream) {
      const chunks = streamReplies(head, events, replies, request.includeUsage, fail);
      return c.body(pulledStream(chunks, { ...body, filler: SSE_FILLER }), 200, { ...SSE_HEADERS });
    }
    const reply = wholeReplies(head, events, replies);
    const early = await within(reply, headAfterMs);
    if (early !== LATE) return c.json(early);
    const pieces = lateReply(reply, fail);
    return c.body(pulledStream(pieces, { ...body, filler: JSON_FILLER }), 200, { "content-type": "application/json" });
  };
}

/** What all choices begin with, and what they cost together. */
class Replies {
  /** The text with which each choice begins. */
  readonly openings: readonly string[];
  readonly #n: number;
  #promptTokens = 0;
  #completionTokens = 0;

  constructor({ n, echo }: CompletionRequest, prompts: readonly string[]) {
    this.#n = n;
    this.openings = prompts.flatMap((prompt) => Array<string>(n).fill(echo ? prompt : ""));
  }

  /** Counts a choice that has ended, its prompt only with the first choice of it. */
  count(index: number, { usage }: DoneEvent): void {
    if (index % this.#n === 0) this.#promptTokens += usage.promptTokens;
    this.#completionTokens += usage.completionTokens;
  }

  get usage(): ChatUsage {
    return chatUsage(this.#promptTokens, this.#completionTokens);
  }
}

async function wholeReplies(
  head: ReplyHead,
  events: AsyncIterable<ChoiceEvent>,
  replies: Replies,
): Promise<Completion> {
  const texts = [...replies.openings];
  const reasons: WireFinishReason[] = [];
  for await (const { index, event } of events) {
    if (event.type === "text") texts[index] += event.text;
    if (event.type === "done") {
      replies.count(index, event);
      reasons[index] = finishReason(event);
    }
  }
  return completion(head, texts.map((text, index) => ({ text, finishReason: reasons[index]! })), replies.usage);
}

async function* streamReplies(
  head: ReplyHead,
  events: AsyncIterable<ChoiceEvent>,
  replies: Replies,
  includeUsage: boolean,
  fail: (error: unknown) => ApiError,
): AsyncGenerator<string> {
  const usage = includeUsage ? null : undefined;
  try {
    for (const [index, text] of replies.openings.entries()) {
      if (text !== "") yield data(completionChunk(head, { index, text, usage }));
    }
    for await (const { index, event } of events) {
      if (event.type === "text") yield data(completionChunk(head, { index, text: event.text, usage }));
      if (event.type === "done") {
        replies.count(index, event);
        yield data(completionChunk(head, { index, finishReason: finishReason(event), usage }));
      }
    }
    if (includeUsage) yield data(completionChunk(head, { usage: replies.usage }));
    yield sseData("[DONE]");
  } catch (error) {
    yield data(errorEnvelope(fail(error).wire));
  }
}
