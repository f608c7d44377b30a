/**
 * One response while it comes about: what the model does becomes events of the response, which a log keeps for whoever
 * reads them, and exactly one of them is the last.
 *
 * A reader that lags makes deltas longer and, when that is no help, the run wait. The model goes on: what it writes stays
 * in the engine's queue, a context at most, and a slow reader holds none of its places.
 *
 * Absent here on purpose: what the model is asked, where responses are kept, who reads.
 *
 * @module
 */

import { type ChosenLogprob, type DoneEvent, EngineError } from "../engine/engine.ts";
import {
  chatLogprobs,
  type ResponseEnd,
  type ResponseEvent,
  type ResponseFailure,
  responseUsage,
  type ResponseWriter,
  type WireResponse,
  wireTimings,
} from "../protocol/mod.ts";
import { type LoggedEvent, STREAM_LOG_LIMITS, StreamLog, type StreamLogLimits } from "./stream_log.ts";
import type { TurnEvent } from "./turn_event.ts";

/** Longest delta, in UTF-16 code units, that is made of several while a reader lags. */
export const MAX_HELD_LENGTH = 16 * 1024;

/** The parts of a run. */
export interface ResponseRunOptions {
  /** Whose response it is. */
  caller: string;
  writer: ResponseWriter;
  /** Whether it waits for its turn where nobody waits for it. */
  background: boolean;
  /** Whether it has an output at all. */
  answers: boolean;
  /** What the model does, until `signal` is aborted. */
  generate: (signal: AbortSignal) => AsyncIterable<TurnEvent>;
  /** Keeps the response as it ended, before anybody is told; `hasBegun`: whether the model took the request on. */
  keep: (response: WireResponse, hasBegun: boolean) => Promise<void>;
  /** How a failure is told. */
  failure: (error: unknown) => ResponseFailure;
  /** Unix time in seconds. */
  now: () => number;
  limits?: StreamLogLimits;
}

/** A piece of something that is told in pieces. */
type Delta = Extract<TurnEvent, { type: "text" | "reasoning" | "tool_arguments" }>;

/** A response that comes about. */
export class ResponseRun {
  readonly id: string;
  readonly caller: string;
  /** Whether it waits for nobody. */
  readonly background: boolean;
  /** Its events. */
  readonly log: StreamLog;
  readonly #options: ResponseRunOptions;
  readonly #cancelled = new AbortController();
  readonly #begun = Promise.withResolvers<void>();
  readonly #finished = Promise.withResolvers<WireResponse>();
  readonly #usage = { promptTokens: 0, completionTokens: 0 };
  #response: WireResponse;
  #hasBegun = false;
  #held: Delta | undefined;
  #error: unknown;

  /** A run that begins at once. */
  constructor(options: ResponseRunOptions) {
    const { writer, background } = options;
    this.#options = options;
    this.id = writer.responseId;
    this.caller = options.caller;
    this.background = background;
    const status = background ? "queued" : "in_progress";
    this.#response = writer.at(status);
    this.#begun.promise.catch(() => {});
    // These repeat what was asked, and must not drive each other out before anybody could read.
    const first = writer.start(status).map(logged);
    const { maxLength, maxLag } = options.limits ?? STREAM_LOG_LIMITS;
    this.log = new StreamLog({ maxLength: first.reduce((sum, { json }) => sum + json.length, maxLength), maxLag });
    this.log.push(first);
    void this.#run();
  }

  /** The response as it stands. */
  get response(): WireResponse {
    return this.#response;
  }

  /** What made it fail. */
  get error(): unknown {
    return this.#error;
  }

  /** Resolves when the model has taken the request on; rejects when it did not. */
  get begun(): Promise<void> {
    return this.#begun.promise;
  }

  /** The response as it ended; never rejects. */
  get finished(): Promise<WireResponse> {
    return this.#finished.promise;
  }

  /** Ends it early; what was said stays. */
  cancel(): void {
    this.#cancelled.abort();
  }

  async #run(): Promise<void> {
    const { writer, keep, answers } = this.#options;
    const end = await this.#generate().catch((error) => this.#failed(error));
    if (answers && end.status !== "failed") {
      this.#push(writer.closeAll(end.status === "completed" ? "completed" : "incomplete"));
    }
    let response = writer.ended(end);
    try {
      await keep(response, this.#hasBegun);
    } catch (error) {
      response = writer.ended(this.#failed(error));
    }
    this.#response = response;
    this.#push([writer.end(response)]);
    this.log.end();
    this.#finished.resolve(response);
  }

  async #generate(): Promise<ResponseEnd> {
    const { signal } = this.#cancelled;
    for await (const event of this.#options.generate(signal)) {
      this.#begin();
      if (event.type === "done") {
        this.#flush();
        return this.#endOf(event);
      }
      await this.#take(event, signal);
    }
    throw new Error("a reply ended without a done event");
  }

  async #take(event: Exclude<TurnEvent, DoneEvent>, signal: AbortSignal): Promise<void> {
    if (event.type === "started") this.#usage.promptTokens = event.promptTokens;
    else if (event.type === "tool_call") {
      this.#flush();
      this.#push(this.#options.writer.call(event.id, event.name));
    } else {
      if (event.type === "text") this.#usage.completionTokens = event.completionTokens;
      if (!this.#merges(event)) this.#flush();
      this.#held = this.#held ? joined(this.#held, event) : event;
      const { length } = this.#held.text;
      if (length === 0 || (this.log.isBehind && length < MAX_HELD_LENGTH)) return;
      await this.log.caughtUp(signal);
      this.#flush();
    }
  }

  #begin(): void {
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    this.#response = this.#options.writer.at("in_progress");
    if (this.background) this.#push(this.#options.writer.begin());
    this.#begun.resolve();
  }

  #merges(event: Delta): boolean {
    return this.#held?.type === event.type;
  }

  /** Tells what is held. Log probabilities that no text followed belong to none, such as those of a marker. */
  #flush(): void {
    const held = this.#held;
    this.#held = undefined;
    if (!held || held.text === "") return;
    const { writer } = this.#options;
    if (held.type === "reasoning") this.#push(writer.reasoning(held.text));
    else if (held.type === "tool_arguments") this.#push(writer.callArguments(held.text));
    else this.#push(writer.text(held.text, held.logprobs && chatLogprobs(held.logprobs).content));
  }

  #endOf({ reason, usage, timings }: DoneEvent): ResponseEnd {
    if (reason === "cancelled" && !this.#cancelled.signal.aborted) {
      throw new EngineError("closed", "the reply was cancelled before its end; the server is closing");
    }
    return {
      status: ({ stop: "completed", length: "incomplete", cancelled: "cancelled" } as const)[reason],
      completedAt: this.#options.now(),
      usage: responseUsage(usage.promptTokens, usage.completionTokens),
      timings: wireTimings(usage, timings),
    };
  }

  #failed(error: unknown): ResponseEnd {
    this.#flush();
    this.#error = error;
    this.#begun.reject(error);
    const { promptTokens, completionTokens } = this.#usage;
    return {
      status: "failed",
      completedAt: this.#options.now(),
      usage: responseUsage(promptTokens, completionTokens),
      error: this.#options.failure(error),
    };
  }

  #push(events: readonly ResponseEvent[]): void {
    this.log.push(events.map(logged));
  }
}

function logged(event: ResponseEvent): LoggedEvent {
  return { type: event.type, json: JSON.stringify(event) };
}

function joined(held: Delta, event: Delta): Delta {
  const text = held.text + event.text;
  if (event.type !== "text" || held.type !== "text") return { ...event, text };
  const all = event.logprobs ? [...held.logprobs ?? [], ...event.logprobs] : held.logprobs;
  if (all === undefined) return { ...event, text };
  return { ...event, text, logprobs: held.text === "" && text !== "" ? lastOf(all, text) : all };
}

/** The last tokens, as many as it takes for a text: those before were markers or thoughts, whose text came to nothing. */
function lastOf(logprobs: readonly ChosenLogprob[], text: string): readonly ChosenLogprob[] {
  let from = logprobs.length;
  for (let bytes = new TextEncoder().encode(text).length; bytes > 0 && from > 0;) {
    bytes -= logprobs[--from]!.bytes.length;
  }
  return logprobs.slice(from);
}
