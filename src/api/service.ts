/**
 * What all handlers share: the engine and its names, and the way from a checked request to the events of a reply.
 *
 * Absent here on purpose: HTTP and sockets.
 *
 * @module
 */

import type { ChatTemplate } from "../chat/template.ts";
import type { DoneEvent, Engine, GenerateEvent } from "../engine/engine.ts";
import type { WireMessage, WireSampling } from "../protocol/mod.ts";
import { runTurn, type TurnDefaults } from "../sessions/turn.ts";
import { ApiError, toApiError } from "./errors.ts";
import { failure, type Log } from "./log.ts";

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
  log: Log;
}

/** What a reply needs of a checked request. */
export interface ReplyRequest {
  messages: readonly WireMessage[];
  sampling: WireSampling;
  maxTokens?: number;
  stop: readonly string[];
  /** What turns the messages into a prompt; default: the served template. */
  template?: ChatTemplate;
}

/** One served model. */
export class Service {
  readonly engine: Engine;
  readonly modelId: string;
  readonly newId: () => string;
  readonly clock: () => number;
  readonly log: Log;
  readonly #template: ChatTemplate;
  readonly #defaults: TurnDefaults | undefined;
  readonly #names: ReadonlySet<string>;

  /** A service of these parts. */
  constructor(options: ServiceOptions) {
    this.engine = options.engine;
    this.modelId = options.modelId;
    this.newId = options.newId;
    this.clock = options.clock;
    this.log = options.log;
    this.#template = options.template;
    this.#defaults = options.defaults;
    this.#names = new Set([options.modelId, ...options.aliases]);
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

  /** The events of one reply; its outcome is logged once, whether it ends, fails or is left. */
  async *reply(requestId: string, request: ReplyRequest, signal: AbortSignal): AsyncGenerator<GenerateEvent> {
    let outcome = "left";
    let done: DoneEvent | undefined;
    const { messages, sampling, maxTokens, stop, template = this.#template } = request;
    const served = { engine: this.engine, template, defaults: this.#defaults };
    try {
      for await (const event of runTurn({ ...served, messages, sampling, maxTokens, stop, signal })) {
        if (event.type === "done") [done, outcome] = [event, event.reason];
        yield event;
      }
    } catch (error) {
      outcome = toApiError(error).wire.code ?? "failed";
      throw error;
    } finally {
      this.log({ event: "reply", requestId, outcome, ...done?.usage });
    }
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
