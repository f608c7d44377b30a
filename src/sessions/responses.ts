/**
 * Responses: begun from what was kept before, kept for their caller, found again, ended early, taken away. The API's HTTP
 * and WebSocket sides both come here.
 *
 *     ["responses", caller, id]  →  the response, its input, and the response that it continues
 *
 * A response that is to be kept is written when it ends, one in the background when it begins as well. Each may give way
 * to later ones where room is short: a client keeps them without being asked to, and need not come back. Whoever asks for
 * one of another caller learns what those learn who ask for one that never was.
 *
 * Absent here on purpose: HTTP, sockets, models.
 *
 * @module
 */

import type { ChatMessage } from "../chat/message.ts";
import {
  identified,
  isFinal,
  isReference,
  type Item,
  type ItemBody,
  itemUnique,
  type ResponseFailure,
  responseOfItem,
  type ResponseRequest,
  ResponseWriter,
  type WireResponse,
} from "../protocol/mod.ts";
import type { Conversations } from "./conversations.ts";
import { type Page, pageOf, type PageOptions } from "./page.ts";
import { SessionError } from "./error.ts";
import { toMessages } from "./items.ts";
import { ResponseRun } from "./response_run.ts";
import type { Store, StoreKey } from "./store.ts";
import type { StreamLogLimits } from "./stream_log.ts";
import type { TurnEvent } from "./turn_event.ts";

/** How long responses are kept at most, in milliseconds: 30 days, as OpenAI does. */
export const RESPONSE_TTL_MS = 30 * 24 * 60 * 60 * 1000;
/** Most responses that one may continue, one after another. */
export const MAX_CHAIN = 1024;
/** Most items before the input of a request. */
export const MAX_HISTORY = 16_384;
/** How long the events of a response that has ended can be read again, in milliseconds. */
export const RESUME_WINDOW_MS = 60_000;
/** Most responses that have ended and whose events can be read again. */
export const MAX_RESUMABLE = 256;
/** Most UTF-16 code units of events of responses that have ended. */
export const MAX_RESUMABLE_LENGTH = 64 * 1024 * 1024;
/** Most responses in progress in the background of one caller. */
export const MAX_BACKGROUND = 32;

/** What is kept of a response. */
export interface KeptResponse {
  response: WireResponse;
  input: Item[];
}

/** A place for responses that are not stored, such as a socket's own. */
export interface ResponseMemory {
  get(id: string): KeptResponse | undefined;
  set(id: string, kept: KeptResponse): void;
}

/** The parts of `Responses`. */
export interface ResponsesOptions {
  store: Store;
  conversations: Pick<Conversations<Item>, "begin" | "append">;
  /** The name of the model that answers. */
  modelId: string;
  /** A new unguessable id, letters and digits. */
  newId: () => string;
  /** Milliseconds since 1970. */
  clock: () => number;
  /** Told of each response in progress, which is kept when `work` resolves; a process should not end before. */
  onWork?: (work: Promise<unknown>) => void;
  limits?: StreamLogLimits;
}

/** Where to look for what a request continues. */
export interface Whose {
  caller: string;
  /** Where it is looked for, and a response kept that is not to be stored. */
  memory?: ResponseMemory;
}

/** What a response needs besides its request. */
export interface CreateOptions extends Whose {
  /** What the model does, until `signal` is aborted. */
  generate: (messages: readonly ChatMessage[], signal: AbortSignal) => AsyncIterable<TurnEvent>;
  /** How a failure is told. */
  failure: (error: unknown) => ResponseFailure;
  /** The lane that its events name. */
  streamId?: string;
}

/** What a response begins with. */
interface Context {
  history: readonly Item[];
  /** The version of the conversation, if it is one. */
  version?: string;
}

/** All responses. */
export class Responses {
  readonly #options: ResponsesOptions;
  /** Those in progress, and those whose events can be read again, oldest first. */
  readonly #runs = new Map<string, { run: ResponseRun; stored: boolean; endedAt?: number }>();

  /** Whose responses of the background are about to begin. */
  readonly #starting: string[] = [];

  /** Responses in a store. */
  constructor(options: ResponsesOptions) {
    this.#options = options;
  }

  /**
   * Begins a response.
   *
   * @throws {SessionError} `not_found` for what it continues or refers to; `conflict` when that is still in progress.
   */
  async create(request: ResponseRequest, options: CreateOptions): Promise<ResponseRun> {
    if (!request.background) return await this.#begin(request, options);
    const { caller } = options;
    this.#requireRoom(caller);
    // Counted from here on: many may be asked for at once.
    this.#starting.push(caller);
    try {
      return await this.#begin(request, options);
    } finally {
      this.#starting.splice(this.#starting.indexOf(caller), 1);
    }
  }

  async #begin(request: ResponseRequest, options: CreateOptions): Promise<ResponseRun> {
    const { caller } = options;
    const context = await this.#context(request, options);
    const unique = this.#options.newId();
    const bodies = await this.#resolved(request, context.history, options);
    const input = bodies.map((body, index) => identified(body, itemUnique(unique, index)));
    const { modelId: model, limits } = this.#options;
    const { streamId } = options;
    const head = { unique, createdAt: this.#now(), model, streamId, firstItem: input.length };
    const writer = new ResponseWriter(request.echo, head);
    if (request.background) await this.#store(caller, { response: writer.at("queued"), input });
    const run = new ResponseRun({
      caller,
      writer,
      background: request.background,
      answers: request.generate,
      generate: (signal) => options.generate(messagesOf(request, context.history, input), signal),
      keep: (response, hasBegun) => this.#keep(request, { response, input, hasBegun }, context, options),
      failure: options.failure,
      now: () => this.#now(),
      limits,
    });
    this.#follow(run, request.store);
    return run;
  }

  /** What a request would ask the model. Throws as `create` does. */
  async messages(
    request: ResponseRequest,
    options: Whose,
  ): Promise<readonly ChatMessage[]> {
    const { history } = await this.#context(request, options);
    return messagesOf(request, history, await this.#resolved(request, history, options));
  }

  /** A response as it stands. Throws `not_found`. */
  async get(caller: string, id: string): Promise<WireResponse> {
    const running = this.#running(caller, id);
    if (running?.stored) return running.run.response;
    return (await this.#load(caller, id)).response;
  }

  /** Takes a response away, and ends it if it is in progress. Throws `not_found`. */
  async delete(caller: string, id: string): Promise<void> {
    const running = this.#running(caller, id);
    if (!running?.stored) await this.#load(caller, id);
    if (running) {
      this.#runs.delete(id);
      running.run.cancel();
      await running.run.finished;
    }
    await this.#options.store.commit({ key: keyOf(caller, id) });
  }

  /** Ends a response of the background early, if it has not ended; what became of it. Throws `not_found`, `invalid`. */
  async cancel(caller: string, id: string): Promise<WireResponse> {
    const response = await this.get(caller, id);
    if (!response.background) {
      throw new SessionError(
        "invalid",
        "response_id: expected a response of the background, got another",
        "response_id",
      );
    }
    const running = this.#running(caller, id);
    running?.run.cancel();
    return await running?.run.finished ?? response;
  }

  /** Ends a response early, if it has not ended. Throws `not_found`. */
  async end(caller: string, id: string): Promise<void> {
    const running = this.#running(caller, id);
    if (running) running.run.cancel();
    else await this.#load(caller, id);
  }

  /** A page of the items that were handed in for a response, and whether there are more. Throws `not_found`. */
  async inputItems(caller: string, id: string, page: PageOptions): Promise<Page<Item>> {
    return pageOf((await this.#load(caller, id)).input, page);
  }

  /** A response whose events can still be read. Throws `not_found`, or `gone` when its events are no longer kept. */
  async run(caller: string, id: string): Promise<ResponseRun> {
    const running = this.#running(caller, id);
    if (running) return running.run;
    await this.#load(caller, id);
    throw new SessionError("gone", "response_id: expected one that ended lately, got an older one", "response_id");
  }

  #requireRoom(caller: string): void {
    const mine = [...this.#runs.values()].filter(({ run, endedAt }) =>
      run.background && run.caller === caller && endedAt === undefined
    );
    const starting = this.#starting.filter((each) => each === caller);
    if (mine.length + starting.length < MAX_BACKGROUND) return;
    const message = `background: expected at most ${MAX_BACKGROUND} responses in progress, got one more`;
    throw new SessionError("too_many", message, "background");
  }

  /** What comes before the input. */
  async #context(request: ResponseRequest, options: Whose): Promise<Context> {
    const { conversationId, previousResponseId } = request;
    if (conversationId !== undefined) {
      const { items, version } = await this.#options.conversations.begin(options.caller, conversationId);
      return { history: items, version };
    }
    return { history: previousResponseId === undefined ? [] : await this.#chain(previousResponseId, options) };
  }

  /** The items of a response, and of those that it continues, oldest first. */
  async #chain(last: string, { caller, memory }: Whose): Promise<Item[]> {
    const steps: Item[][] = [];
    let [items, length] = [0, 0];
    for (let id: string | null = last; id !== null; length++) {
      const kept: KeptResponse | undefined = memory?.get(id) ?? await this.#find(caller, id);
      if (!kept) throw notFound("previous_response_id", "a response");
      if (!isFinal(kept.response.status)) throw unfinished();
      steps.push([...kept.input, ...kept.response.output]);
      items += steps.at(-1)!.length;
      if (length >= MAX_CHAIN || items > MAX_HISTORY) throw tooLong();
      id = kept.response.previous_response_id;
    }
    return steps.reverse().flat();
  }

  /** The input, with the items that it only names. */
  async #resolved(
    { input }: ResponseRequest,
    history: readonly Item[],
    { caller, memory }: Whose,
  ): Promise<ItemBody[]> {
    return await Promise.all(input.map(async (item) => {
      if (!isReference(item)) return item;
      const found = history.find(({ id }) => id === item.id) ?? await this.#item(item.id, { caller, memory });
      if (!found) throw notFound("input", "an item");
      const { id: _, ...body } = found;
      return body;
    }));
  }

  async #item(itemId: string, { caller, memory }: Whose): Promise<Item | undefined> {
    const id = responseOfItem(itemId);
    if (id === undefined) return undefined;
    const kept = memory?.get(id) ?? await this.#find(caller, id);
    return kept && [...kept.input, ...kept.response.output].find(({ id }) => id === itemId);
  }

  /** A response that has ended finds its place before anybody hears of its end. */
  async #keep(
    request: ResponseRequest,
    { response, input, hasBegun }: KeptResponse & { hasBegun: boolean },
    { version }: Context,
    { caller, memory }: CreateOptions,
  ): Promise<void> {
    if (version !== undefined && response.status !== "failed") {
      const items = [...input, ...response.output];
      await this.#options.conversations.append(caller, request.conversationId!, version, items);
    }
    if (!request.store) memory?.set(response.id, { response, input });
    // Who was refused before anything began was told so, and knows no id.
    else if (this.#runs.has(response.id) && (hasBegun || request.background)) {
      await this.#store(caller, { response, input });
    }
  }

  async #store(caller: string, kept: KeptResponse): Promise<void> {
    const key = keyOf(caller, kept.response.id);
    await this.#options.store.commit({ key, value: kept, ttlMs: RESPONSE_TTL_MS, disposable: true });
  }

  async #find(caller: string, id: string): Promise<KeptResponse | undefined> {
    if (!/^resp_[0-9a-zA-Z]{1,64}$/.test(id)) return undefined;
    const entry = await this.#options.store.get<KeptResponse>(keyOf(caller, id));
    if (!entry) return undefined;
    const { response, input } = entry.value;
    const lost = !isFinal(response.status) && !this.#running(caller, id);
    return { response: lost ? interrupted(response) : response, input };
  }

  async #load(caller: string, id: string): Promise<KeptResponse> {
    const kept = await this.#find(caller, id);
    if (!kept) throw notFound("response_id", "a response");
    return kept;
  }

  #running(caller: string, id: string) {
    this.#sweep();
    const running = this.#runs.get(id);
    return running?.run.caller === caller ? running : undefined;
  }

  #follow(run: ResponseRun, stored: boolean): void {
    const entry: { run: ResponseRun; stored: boolean; endedAt?: number } = { run, stored };
    this.#sweep();
    this.#runs.set(run.id, entry);
    this.#options.onWork?.(run.finished);
    void run.finished.then(() => {
      if (!this.#runs.delete(run.id)) return;
      entry.endedAt = this.#options.clock();
      // Ended ones stand in the order in which they ended.
      this.#runs.set(run.id, entry);
    });
  }

  /** Drops ended responses that are too old, too many or too long, oldest first. */
  #sweep(): void {
    const ended = [...this.#runs].filter(([, { endedAt }]) => endedAt !== undefined);
    let count = ended.length;
    let length = ended.reduce((sum, [, { run }]) => sum + run.log.length, 0);
    const oldest = this.#options.clock() - RESUME_WINDOW_MS;
    for (const [id, { run, endedAt }] of ended) {
      if (endedAt! > oldest && count <= MAX_RESUMABLE && length <= MAX_RESUMABLE_LENGTH) return;
      this.#runs.delete(id);
      count--;
      length -= run.log.length;
    }
  }

  /** Unix time in seconds. */
  #now(): number {
    return Math.floor(this.#options.clock() / 1000);
  }
}

function keyOf(caller: string, id: string): StoreKey {
  return ["responses", caller, id];
}

function messagesOf(
  { instructions }: ResponseRequest,
  history: readonly Item[],
  input: readonly ItemBody[],
): readonly ChatMessage[] {
  const system: ChatMessage[] = instructions ? [{ role: "system", content: instructions }] : [];
  return [...system, ...toMessages([...history, ...input])];
}

/** A response whose process ended before it did. */
function interrupted(response: WireResponse): WireResponse {
  const error = { code: "interrupted", message: "the server stopped before the response had ended" };
  return { ...response, status: "failed", error };
}

/** What is not there, and what is another caller's, is refused in the same words. */
function notFound(param: string, what: string): SessionError {
  return new SessionError("not_found", `${param}: expected ${what} that is kept, got another`, param);
}

function unfinished(): SessionError {
  const message = "previous_response_id: expected a response that has ended, got one in progress";
  return new SessionError("conflict", message, "previous_response_id");
}

function tooLong(): SessionError {
  const message = `previous_response_id: expected at most ${MAX_CHAIN} responses of ${MAX_HISTORY} items, got more`;
  return new SessionError("too_large", message, "previous_response_id");
}
