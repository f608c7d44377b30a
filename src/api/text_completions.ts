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
import type { ChosenLogprob, DoneEvent, GenerateEvent, TextEvent } from "../engine/engine.ts";
import {
  type ChatUsage,
  chatUsage,
  type Completion,
  completion,
  completionChunk,
  completionLogprobs,
  type CompletionPiece,
  type CompletionRequest,
  type CompletionSaid,
  completionSchema,
  errorEnvelope,
  parseCompletionRequest,
  promptLogprobs,
  type PromptToken,
  type ReplyHead,
  wireTimings,
} from "../protocol/mod.ts";
import type { RawPrompt } from "../sessions/prompt.ts";
import { readJson } from "./body.ts";
import { answerWhole, begun, type CompletionOptions, finishReason } from "./completions.ts";
import { nameIgnored } from "./ignored.ts";
import { originOf } from "./observe.ts";
import type { ApiEnv, Route } from "./route.ts";
import type { ApiError } from "./errors.ts";
import type { ChoiceEvent, Service } from "./service.ts";
import { data, pulledStream, SSE_FILLER, SSE_HEADERS, sseData } from "./stream.ts";

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
    nameIgnored(c, request.ignored);
    const requestId = c.get("requestId");
    const head = { id: `cmpl-${service.newId()}`, created: service.now(), model: service.modelId };
    const left = new AbortController();
    const body = { onCancel: () => left.abort(), keepAliveMs };
    const fail = (error: unknown) => service.fail(requestId, error);
    const prompts = await service.prompts(request.prompts);
    // The engine makes one token at least.
    const asked = { ...request, prompts, maxTokens: request.maxTokens === 0 ? 1 : request.maxTokens };
    const openings = await Promise.all(prompts.map((prompt) => openingOf(service, request, prompt)));
    const events = await begun(service.completions(originOf(c), asked, left.signal), startAfterMs, left.signal);
    const choices = openings.flatMap((opening) =>
      Array.from({ length: request.bestOf }, () => new Choice(request, opening))
    );

    if (request.stream) {
      const chunks = streamReplies(head, events, choices, request, fail);
      return c.body(pulledStream(chunks, { ...body, filler: SSE_FILLER }), 200, { ...SSE_HEADERS });
    }
    return await answerWhole(c, wholeReplies(head, events, choices, request), { ...body, headAfterMs, fail });
  };
}

/** What all choices of a prompt begin with. */
interface Opening {
  text: string;
  /** The text of the prompt's first token, which follows nothing and so has no probability. */
  first: string;
}

async function openingOf(
  { engine }: Service,
  { echo, logprobs }: CompletionRequest,
  { prompt, promptIds, text }: RawPrompt,
): Promise<Opening> {
  if (!echo) return { text: "", first: "" };
  if (!logprobs) return { text, first: "" };
  const ids = promptIds ?? await engine.tokenize(prompt);
  return { text, first: await engine.detokenize(ids.slice(0, 1)) };
}

/** What one choice has said so far. */
class Choice {
  readonly opening: string;
  readonly #first: string;
  readonly #request: CompletionRequest;
  readonly #chosen: ChosenLogprob[] = [];
  #tokens: PromptToken[] = [];
  #text: string;
  #offset = 0;
  #prompt: readonly (ChosenLogprob | null)[] | undefined;
  #done: DoneEvent | undefined;

  constructor(request: CompletionRequest, { text, first }: Opening) {
    this.#request = request;
    this.opening = this.#text = text;
    this.#first = first;
  }

  /** Takes the next event; gives what it adds, if that is anything. */
  take(made: GenerateEvent): CompletionPiece | undefined {
    if (made.type === "started") return undefined;
    const event = this.#request.maxTokens === 0 ? withoutReply(made) : made;
    if (event.type === "done") {
      this.#done = event;
      return { finishReason: finishReason(event), timings: wireTimings(event.usage, event.timings) };
    }
    this.#text += event.text;
    this.#prompt ??= event.promptLogprobs;
    this.#chosen.push(...event.logprobs ?? []);
    return { text: event.text, ...this.#shown(event.promptLogprobs, event.logprobs ?? []) };
  }

  /** How it ended. */
  get done(): DoneEvent {
    if (this.#done === undefined) throw new Error("reply ended without a done event");
    return this.#done;
  }

  /** All that it said. */
  get said(): CompletionSaid {
    const { logprobs, promptLogprobs: prompt } = this.#request;
    return {
      text: this.#text,
      logprobs: logprobs ? completionLogprobs(this.#tokens, 0) : null,
      finish_reason: finishReason(this.done),
      ...(prompt ? { prompt_logprobs: promptLogprobs(this.#prompt ?? []) } : {}),
    };
  }

  /** How probable its tokens are on average, for choosing among choices of one prompt. */
  get meanLogprob(): number {
    return this.#chosen.reduce((sum, { logprob }) => sum + logprob, 0) / Math.max(this.#chosen.length, 1);
  }

  /** The log probabilities that a piece shows, and where its tokens begin. */
  #shown(
    prompt: readonly (ChosenLogprob | null)[] | undefined,
    chosen: readonly ChosenLogprob[],
  ): Pick<CompletionPiece, "logprobs" | "promptLogprobs"> {
    const { echo, logprobs, promptLogprobs: asked } = this.#request;
    const asPrompt = prompt && asked ? { promptLogprobs: promptLogprobs(prompt) } : {};
    if (!logprobs) return asPrompt;
    const read = echo ? (prompt ?? []).map((token) => token ?? { token: this.#first, logprob: null }) : [];
    const tokens = [...read, ...chosen];
    const shown = completionLogprobs(tokens, this.#offset);
    this.#tokens.push(...tokens);
    this.#offset += tokens.reduce((sum, { token }) => sum + [...token].length, 0);
    return { ...asPrompt, logprobs: shown };
  }
}

/** What an event says of the prompt alone. */
function withoutReply<E extends TextEvent | DoneEvent>(event: E): E {
  if (event.type === "text") return { ...event, text: "", logprobs: [] };
  const reason = event.reason === "stop" ? "length" : event.reason;
  return { ...event, reason, usage: { ...event.usage, completionTokens: 0 } };
}

async function wholeReplies(
  head: ReplyHead,
  events: AsyncIterable<ChoiceEvent<GenerateEvent>>,
  choices: readonly Choice[],
  request: CompletionRequest,
): Promise<Completion> {
  for await (const { index, event } of events) choices[index]!.take(event);
  const { usage, timings } = choices[0]!.done;
  return completion(head, {
    choices: best(choices, request).map(({ said }) => said),
    usage: usageOf(choices, request),
    timings: wireTimings(usage, timings),
  });
}

/** Of each prompt the `n` most probable choices, most probable first. */
function best(choices: readonly Choice[], { n, bestOf }: CompletionRequest): readonly Choice[] {
  if (n === bestOf) return choices;
  const prompts = Array.from(
    { length: choices.length / bestOf },
    (_, at) => choices.slice(at * bestOf).slice(0, bestOf),
  );
  return prompts.flatMap((made) => made.sort((a, b) => b.meanLogprob - a.meanLogprob).slice(0, n));
}

/** Each prompt is counted once, however many choices read it, and all choices that were made. */
function usageOf(choices: readonly Choice[], { bestOf }: CompletionRequest): ChatUsage {
  const usages = choices.map(({ done }) => done.usage);
  const prompt = usages.filter((_, index) => index % bestOf === 0).reduce((sum, usage) => sum + usage.promptTokens, 0);
  return chatUsage(prompt, usages.reduce((sum, usage) => sum + usage.completionTokens, 0));
}

async function* streamReplies(
  head: ReplyHead,
  events: AsyncIterable<ChoiceEvent<GenerateEvent>>,
  choices: readonly Choice[],
  request: CompletionRequest,
  fail: (error: unknown) => ApiError,
): AsyncGenerator<string> {
  const usage = request.includeUsage ? null : undefined;
  try {
    for (const [index, { opening }] of choices.entries()) {
      if (opening !== "") yield data(completionChunk(head, { index, text: opening, usage }));
    }
    for await (const { index, event } of events) {
      const piece = choices[index]!.take(event);
      if (piece !== undefined) yield data(completionChunk(head, { index, usage, ...piece }));
    }
    if (request.includeUsage) yield data(completionChunk(head, { usage: usageOf(choices, request) }));
    yield sseData("[DONE]");
  } catch (error) {
    yield data(errorEnvelope(fail(error).wire));
  }
}
