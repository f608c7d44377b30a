/**
 * `POST /v1/chat/completions`, whole and streamed.
 *
 * The head of a response waits for the engine to take the request on, so that one it refuses gets a status; it hardly
 * waits for the reply, whole or not. Deno (2.9.6, HTTP/1.1) tells nobody that a client has left while a head is owed, if the body
 * came in a later packet than the head of the request; once the head is sent, the response's stream is cancelled at once.
 * A request's own `signal` is therefore not used: it knows less, and Deno warns about it.
 *
 * A failure after the head is an event of a stream, without a `[DONE]`, since nothing was completed; a whole reply has no
 * place for it and breaks off.
 *
 * @module
 */

import type { Context, Handler } from "hono";
import type { ChosenLogprob, DoneEvent } from "../engine/engine.ts";
import {
  chatChoice,
  chatChunk,
  type ChatCompletion,
  chatCompletion,
  type ChatDelta,
  type ChatFinishReason,
  chatLogprobs,
  type ChatRequest,
  type ChatSaid,
  chatSchema,
  type ChatUsage,
  chatUsage,
  errorEnvelope,
  parseChatRequest,
  type ReplyHead,
  type WireFinishReason,
  wireTimings,
} from "../protocol/mod.ts";
import type { TurnEvent } from "../sessions/turn_event.ts";
import { readJson } from "./body.ts";
import { nameIgnored } from "./ignored.ts";
import { cancelledByServer, type ChoiceEvent, type Service } from "./service.ts";
import type { ApiError } from "./errors.ts";
import {
  data,
  JSON_FILLER,
  pulledStream,
  type PulledStreamOptions,
  SSE_FILLER,
  SSE_HEADERS,
  sseData,
} from "./stream.ts";
import { LATE, within } from "./timing.ts";
import { originOf } from "./observe.ts";
import type { ApiEnv, Route } from "./route.ts";

/** What all endpoints that reply go by. */
export interface CompletionOptions {
  /** Largest body of a request. */
  maxBodyBytes: number;
  /** Longest wait for the engine to take a request on before the head of a response is sent. */
  startAfterMs: number;
  /** Longest wait for a whole reply before the head of its response is sent. */
  headAfterMs: number;
  /** Longest silence of a body. */
  keepAliveMs: number;
}

/** The endpoint. */
export function chatRoutes(service: Service, options: CompletionOptions): Route[] {
  return [{
    method: "post",
    path: "/v1/chat/completions",
    summary: "The model's next message",
    body: chatSchema,
    replies: "text/event-stream",
    handler: chatCompletions(service, options),
  }];
}

function chatCompletions(service: Service, options: CompletionOptions): Handler<ApiEnv> {
  const { maxBodyBytes, startAfterMs, headAfterMs, keepAliveMs } = options;
  return async function handleChatCompletion(c) {
    const request = parseChatRequest(await readJson(c, maxBodyBytes));
    service.requireModel(request.model);
    nameIgnored(c, request.ignored);
    const requestId = c.get("requestId");
    const head = { id: `chatcmpl-${service.newId()}`, created: service.now(), model: service.modelId };
    const left = new AbortController();
    const body = { onCancel: () => left.abort(), keepAliveMs };
    const fail = (error: unknown) => service.fail(requestId, error);
    const events = await begun(service.replies(originOf(c), request, left.signal), startAfterMs, left.signal);

    if (request.stream) {
      const chunks = streamReply(head, events, request, fail);
      return c.body(pulledStream(chunks, { ...body, filler: SSE_FILLER }), 200, { ...SSE_HEADERS });
    }
    return await answerWhole(c, wholeReply(head, events, request), { ...body, headAfterMs, fail });
  };
}

/** Options of `answerWhole`. */
export interface WholeOptions extends Omit<PulledStreamOptions, "filler"> {
  /** Longest wait for the reply before the head is sent. */
  headAfterMs: number;
  /** Any thrown value as the failure that a client may see. */
  fail: (error: unknown) => ApiError;
}

/** A whole reply as a response: with a length when it comes soon, else as a body that begins before the reply is there. */
export async function answerWhole(
  c: Context<ApiEnv>,
  reply: Promise<object>,
  { headAfterMs, fail, ...body }: WholeOptions,
): Promise<Response> {
  const early = await within(reply, headAfterMs);
  if (early !== LATE) return c.json(early);
  const pieces = lateReply(reply, fail);
  return c.body(pulledStream(pieces, { ...body, filler: JSON_FILLER }), 200, { "content-type": "application/json" });
}

async function wholeReply(
  head: ReplyHead,
  events: AsyncIterable<ChoiceEvent<TurnEvent>>,
  { n }: ChatRequest,
): Promise<ChatCompletion> {
  const choices = Array.from({ length: n }, () => new ChatSpeaker());
  for await (const { index, event } of events) choices[index]!.take(event);
  const { usage, timings } = choices[0]!.done;
  return chatCompletion(head, {
    choices: choices.map(({ said }, index) => chatChoice(index, said)),
    usage: usageOf(choices),
    timings: wireTimings(usage, timings),
  });
}

/** What one choice has said so far. */
class ChatSpeaker {
  #content = "";
  #reasoning = "";
  #tokens: ChosenLogprob[] | undefined;
  #done: DoneEvent | undefined;
  readonly #calls: { id: string; name: string; arguments: string }[] = [];

  /** Takes the next event; gives what it adds, if that is anything. */
  take(event: TurnEvent): ChatDelta | undefined {
    switch (event.type) {
      case "started":
        return undefined;
      case "text":
        this.#content += event.text;
        if (event.logprobs) (this.#tokens ??= []).push(...event.logprobs);
        return event.text === "" && !event.logprobs ? undefined : { content: event.text };
      case "reasoning":
        this.#reasoning += event.text;
        return { reasoning_content: event.text };
      case "tool_call": {
        const { index, id, name } = event;
        this.#calls.push({ id, name, arguments: "" });
        return { tool_calls: [{ index, id, type: "function", function: { name, arguments: "" } }] };
      }
      case "tool_arguments":
        this.#calls[event.index]!.arguments += event.text;
        return { tool_calls: [{ index: event.index, function: { arguments: event.text } }] };
      case "done":
        this.#done = event;
        return {};
    }
  }

  /** How it ended. */
  get done(): DoneEvent {
    if (this.#done === undefined) throw new Error("reply ended without a done event");
    return this.#done;
  }

  /** Why it ended; a reply that was cut in a call has not called. */
  get finishReason(): ChatFinishReason {
    const reason = finishReason(this.done);
    return reason === "stop" && this.#calls.length > 0 ? "tool_calls" : reason;
  }

  /** All that it said. */
  get said(): ChatSaid {
    return {
      content: this.#content,
      reasoning: this.#reasoning,
      toolCalls: this.#calls,
      logprobs: this.#tokens ? chatLogprobs(this.#tokens) : null,
      finishReason: this.finishReason,
    };
  }
}

/** The JSON of a reply that comes after its head. */
async function* lateReply(
  reply: Promise<unknown>,
  fail: (error: unknown) => ApiError,
): AsyncGenerator<string> {
  try {
    yield JSON.stringify(await reply);
  } catch (error) {
    throw fail(error);
  }
}

/**
 * The same events once the first has come, so that an early failure is thrown here; a slow first is not waited for.
 *
 * Aborting `signal` ends `events`, also when nobody ever asks for the second: a body that is left before it is read never
 * runs what stands behind it.
 */
export async function begun<T>(
  events: AsyncGenerator<T>,
  waitMs: number,
  signal: AbortSignal,
): Promise<AsyncGenerator<T>> {
  const first = events.next();
  signal.addEventListener("abort", () => void events.return(undefined).catch(() => {}), { once: true });
  await within(first, waitMs);
  return (async function* () {
    try {
      const { done, value } = await first;
      if (!done) yield value;
      yield* events;
    } finally {
      await events.return(undefined);
    }
  })();
}

async function* streamReply(
  head: ReplyHead,
  events: AsyncIterable<ChoiceEvent<TurnEvent>>,
  { n, includeUsage }: ChatRequest,
  fail: (error: unknown) => ApiError,
): AsyncGenerator<string> {
  const usage = includeUsage ? null : undefined;
  const choices = Array.from({ length: n }, () => new ChatSpeaker());
  try {
    for (const index of choices.keys()) {
      yield data(chatChunk(head, { index, delta: { role: "assistant", content: "" }, usage }));
    }
    for await (const { index, event } of events) {
      const delta = choices[index]!.take(event);
      if (delta === undefined) continue;
      const logprobs = event.type === "text" && event.logprobs ? chatLogprobs(event.logprobs) : undefined;
      const end = event.type !== "done" ? {} : {
        finishReason: choices[index]!.finishReason,
        timings: wireTimings(event.usage, event.timings),
      };
      yield data(chatChunk(head, { index, delta, logprobs, usage, ...end }));
    }
    if (includeUsage) yield data(chatChunk(head, { usage: usageOf(choices) }));
    yield sseData("[DONE]");
  } catch (error) {
    yield data(errorEnvelope(fail(error).wire));
  }
}

/** Why a reply ended, in the words of OpenAI; throws when the server itself ended it. */
export function finishReason(event: DoneEvent): WireFinishReason {
  if (event.reason === "cancelled") throw cancelledByServer();
  return event.reason;
}

/** The prompt is counted once, however many choices read it. */
function usageOf(choices: readonly { done: DoneEvent }[]): ChatUsage {
  const usages = choices.map(({ done }) => done.usage);
  return chatUsage(usages[0]!.promptTokens, usages.reduce((sum, { completionTokens }) => sum + completionTokens, 0));
}
