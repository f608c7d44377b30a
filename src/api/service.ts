/**
 * What all handlers share: the engine and its names, and the way from a checked request to the events of a reply.
 *
 * Absent here on purpose: HTTP and sockets.
 *
 * @module
 */

import type { ChatMessage } from "../chat/message.ts";
import { renderChat } from "../chat/plain_tools.ts";
import type { ChatTemplate, RenderOptions } from "../chat/template.ts";
import { CappedEngine } from "../engine/capped.ts";
import type { Embedding, EmbedRequest, Engine, GenerateEvent } from "../engine/engine.ts";
import { DEFAULT_MAX_TOKENS, type WirePrompt, type WireSampling } from "../protocol/mod.ts";
import { runCompletion } from "../sessions/completion.ts";
import { type RawPrompt, rawPrompt } from "../sessions/prompt.ts";
import type { Store } from "../sessions/store.ts";
import { CALL_ID_LENGTH, runTurn, type TurnDefaults, type TurnOptions } from "../sessions/turn.ts";
import type { TurnEvent } from "../sessions/turn_event.ts";
import { ApiError, RETRY_AFTER_S, toApiError } from "./errors.ts";
import type { KeyRing } from "./keys.ts";
import { Limits, type RequestLimits } from "./limits.ts";
import { failure, type Log, RequestLog } from "./log.ts";
import { merged } from "./merge.ts";
import type { Origin } from "./caller.ts";
import { observed, type Observer } from "./observe.ts";

/** The parts of `Service`. */
export interface ServiceOptions {
  engine: Engine;
  template: ChatTemplate;
  /** For what requests leave open. */
  defaults?: TurnDefaults;
  /** The name under which the model is served. */
  modelId: string;
  /** Other names that requests may use, such as the file's. */
  aliases: readonly string[];
  /** Milliseconds since 1970. */
  clock: () => number;
  /** A new unguessable id, letters and digits. */
  newId: () => string;
  /** Where conversations and responses are kept. */
  store: Store;
  log: Log;
  /** Whether prompts and replies are logged. */
  logPrompts?: boolean;
  /** Whoever follows replies. */
  observers?: readonly Observer[];
  /** Aborted when the server stops: it then takes on nothing new. */
  closing?: AbortSignal;
  /** Who may use the server; missing: everybody. */
  keys?: KeyRing;
  /** What every request may take. */
  requestLimits?: RequestLimits;
}

/** What every reply needs of a checked request. */
interface Wishes {
  sampling: WireSampling;
  maxTokens?: number;
  stop: readonly string[];
}

/** What a turn takes as it is. */
type TurnWishes = Pick<
  TurnOptions,
  | "messages"
  | "generation"
  | "tools"
  | "toolChoice"
  | "parallelToolCalls"
  | "constraint"
  | "variables"
  | "reasoning"
>;

/** What a reply needs of a checked request; thoughts are told apart only when asked. */
export interface ReplyRequest extends Wishes, TurnWishes {
  /** What turns the messages into a prompt; default: the served template. */
  template?: ChatTemplate;
}

/** What completions need of a checked request. */
export interface CompletionsRequest extends Wishes, Pick<TurnOptions, "generation" | "constraint"> {
  prompts: readonly RawPrompt[];
  /** Choices of each prompt that are made. */
  bestOf: number;
}

/** An event of one of several choices. */
export interface ChoiceEvent<E> {
  /** Number of the choice, prompt by prompt. */
  index: number;
  event: E;
}

/** One served model. */
export class Service {
  readonly engine: Engine;
  readonly modelId: string;
  readonly newId: () => string;
  readonly clock: () => number;
  readonly log: Log;
  readonly store: Store;
  readonly #template: ChatTemplate;
  readonly #defaults: TurnDefaults | undefined;
  readonly #names: ReadonlySet<string>;
  readonly #observers: readonly Observer[];
  readonly closing: AbortSignal;
  /** For those who come to show their key late, on a socket. */
  readonly keys: KeyRing | undefined;
  readonly limits: Limits;
  /** Follows each request until all that it asked for is over. */
  readonly requests: RequestLog;

  /** A service of these parts. */
  constructor(options: ServiceOptions) {
    const { engine, requestLimits } = options;
    const { maxTokens } = requestLimits ?? {};
    this.engine = maxTokens === undefined ? engine : new CappedEngine(engine, maxTokens);
    this.limits = new Limits(options.clock, requestLimits);
    this.modelId = options.modelId;
    this.newId = options.newId;
    this.clock = options.clock;
    this.log = options.log;
    this.store = options.store;
    this.#template = options.template;
    this.#defaults = options.defaults;
    this.#names = new Set([options.modelId, ...options.aliases]);
    this.requests = new RequestLog({ log: options.log, clock: options.clock, prompts: options.logPrompts });
    this.#observers = [this.requests, ...options.observers ?? []];
    this.keys = options.keys;
    this.closing = options.closing ?? new AbortController().signal;
  }

  /** Unix time in seconds. */
  now(): number {
    return Math.floor(this.clock() / 1000);
  }

  /** Whether a model is the served one. */
  serves(model: string): boolean {
    return this.#names.has(model);
  }

  /** Refuses a model that is not served. */
  requireModel(model: string): void {
    if (this.serves(model)) return;
    throw new ApiError(404, {
      code: "model_not_found",
      param: "model",
      message: `model: expected ${JSON.stringify(this.modelId)}, got ${JSON.stringify(model)}`,
    });
  }

  /** The events of one reply. */
  reply(origin: Origin, request: ReplyRequest, signal: AbortSignal): AsyncGenerator<TurnEvent> {
    const { template = this.#template, reasoning = false, ...wishes } = request;
    const newCallId = () => this.newId().slice(0, CALL_ID_LENGTH);
    const served = { engine: this.engine, template, defaults: this.#defaults, newCallId };
    this.requests.asked(origin, wishes.messages);
    const begin = (signal: AbortSignal) => runTurn({ ...wishes, ...served, reasoning, signal });
    return this.#bounded(origin, { maxTokens: wishes.maxTokens, signal }, begin);
  }

  /** The events of `n` replies as they come; when one fails, all end. */
  replies(
    origin: Origin,
    request: ReplyRequest & { n: number },
    signal: AbortSignal,
  ): AsyncGenerator<ChoiceEvent<TurnEvent>> {
    return choices(request.n, signal, (index, signal) => this.reply(origin, seeded(request, index), signal));
  }

  /** The events of a reply within the limits of its caller, seen by observers. */
  #bounded<E extends TurnEvent>(
    origin: Origin,
    asked: { maxTokens: number | undefined; signal: AbortSignal },
    begin: (signal: AbortSignal) => AsyncIterable<E>,
  ): AsyncGenerator<E> {
    return observed(this.limits.bounded(origin, asked, begin), origin, this.#observers);
  }

  /** Texts as vectors, one after another: one reply without tokens to limits and observers. */
  async embed(origin: Origin, requests: readonly EmbedRequest[], signal: AbortSignal): Promise<Embedding[]> {
    const made: Embedding[] = [];
    this.requests.asked(origin, requests.map(({ prompt, promptIds }) => promptIds ?? prompt.join("")));
    const begin = (signal: AbortSignal) => this.#embedded(requests, made, signal);
    for await (const _ of this.#bounded(origin, { maxTokens: undefined, signal }, begin)) { /* for those who follow */ }
    return made;
  }

  async *#embedded(
    requests: readonly EmbedRequest[],
    made: Embedding[],
    signal: AbortSignal,
  ): AsyncGenerator<GenerateEvent> {
    const began = this.clock();
    for (const request of requests) {
      const embedding = await this.engine.embed(request, { signal });
      made.push(embedding);
      yield { type: "started", promptTokens: embedding.promptTokens };
    }
    const promptTokens = made.reduce((sum, { promptTokens }) => sum + promptTokens, 0);
    const timings = { queueMs: 0, prefillMs: this.clock() - began, decodeMs: 0 };
    yield { type: "done", reason: "stop", usage: { promptTokens, completionTokens: 0 }, timings };
  }

  /** Prompts as the engine takes them. */
  async prompts(prompts: readonly WirePrompt[]): Promise<RawPrompt[]> {
    try {
      return await Promise.all(prompts.map((prompt) => rawPrompt(this.engine, prompt)));
    } catch (error) {
      throw ofPrompt(error, "messages", null);
    }
  }

  /** The events of all choices of all prompts as they come; when one fails, all end. */
  async *completions(
    origin: Origin,
    request: CompletionsRequest,
    signal: AbortSignal,
  ): AsyncGenerator<ChoiceEvent<GenerateEvent>> {
    const { prompts, bestOf } = request;
    const choice = (index: number, signal: AbortSignal) => {
      const prompt = prompts[Math.floor(index / bestOf)]!;
      return this.#choice(origin, prompt, seeded(request, index % bestOf), signal);
    };
    try {
      yield* choices(prompts.length * bestOf, signal, choice);
    } catch (error) {
      throw ofPrompt(error, "messages");
    }
  }

  /** One choice. */
  #choice(
    origin: Origin,
    { prompt, promptIds }: RawPrompt,
    { sampling, maxTokens, stop, generation, constraint }: CompletionsRequest,
    signal: AbortSignal,
  ): AsyncGenerator<GenerateEvent> {
    const served = { engine: this.engine, defaults: this.#defaults, fallbackMaxTokens: DEFAULT_MAX_TOKENS };
    const asked = { prompt, promptIds, sampling, maxTokens, stop, generation, constraint };
    this.requests.asked(origin, promptIds ?? prompt.join(""));
    const begin = (signal: AbortSignal) => runCompletion({ ...served, ...asked, signal });
    return this.#bounded(origin, { maxTokens, signal }, begin);
  }

  /** The prompt that messages become, in one piece. */
  render(messages: readonly ChatMessage[], options: Omit<RenderOptions, "specialTokens"> = {}): string {
    const { specialTokens } = this.engine.model;
    return renderChat(this.#template, messages, { specialTokens, ...options }).prompt.join("");
  }

  /** How many tokens the prompt of a reply has. */
  async countTokens({ messages, tools = [], toolChoice, variables }: TurnWishes): Promise<number> {
    const { specialTokens } = this.engine.model;
    const told = toolChoice === "none" ? [] : tools;
    const { prompt } = renderChat(this.#template, messages, { specialTokens, tools: told, variables });
    return (await this.engine.tokenize(prompt)).length;
  }

  /** The failure that a client sees; the reason of our own ones goes to the log. */
  fail(requestId: string, error: unknown): ApiError {
    const shown = toApiError(error);
    if (shown.status === 500) this.log(failure(requestId, error));
    return shown;
  }
}

/** A reply that the server ended, as an error: the protocols have no finish reason for it. */
export function cancelledByServer(): ApiError {
  return new ApiError(503, {
    type: "server_error",
    code: "closed",
    message: "the reply was cancelled before its end; the server is closing",
  });
}

/** The refusal of a server that takes on nothing new. */
export function stopping(): ApiError {
  return new ApiError(503, {
    type: "server_error",
    code: "stopping",
    message: "the server is stopping; try again later",
  }, { headers: { "retry-after": String(RETRY_AFTER_S) } });
}

/** The events of several choices as they come; when one fails, all end. */
async function* choices<E>(
  count: number,
  signal: AbortSignal,
  choice: (index: number, signal: AbortSignal) => AsyncIterable<E>,
): AsyncGenerator<ChoiceEvent<E>> {
  if (count === 1) {
    for await (const event of choice(0, signal)) yield { index: 0, event };
    return;
  }
  const over = new AbortController();
  const all = Array.from({ length: count }, (_, index) => choice(index, AbortSignal.any([signal, over.signal])));
  for await (const [index, event] of merged(all, () => over.abort())) yield { index, event };
}

/** The same wishes for choice number `index` of a prompt: with one seed for all, they would all say the same. */
function seeded<W extends Wishes>(wishes: W, index: number): W {
  const { seed } = wishes.sampling;
  if (seed === undefined) return wishes;
  const last = Number.MAX_SAFE_INTEGER - index;
  return { ...wishes, sampling: { ...wishes.sampling, seed: seed <= last ? seed + index : seed - last - 1 } };
}

/** A refusal of one of `params` as one of `prompt`, which a completion has where a chat has messages. */
function ofPrompt(error: unknown, ...params: (string | null)[]): unknown {
  return renamed(error, params, "prompt");
}

/** A refusal of one of `params` under the name that an endpoint has for it. */
export function renamed(error: unknown, params: readonly (string | null)[], name: string): unknown {
  const { status, wire, headers } = toApiError(error);
  if (status !== 400 || !params.includes(wire.param)) return error;
  return new ApiError(status, { ...wire, code: wire.code!, param: name }, { cause: error, headers });
}
