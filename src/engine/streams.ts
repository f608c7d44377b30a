/**
 * The way of events from the one place where a core's records arrive to the readers of its requests. Native and
 * WebAssembly engines differ in how records come; from there on they are the same.
 *
 * Absent here: what records look like (records.ts), how requests are submitted.
 *
 * @module
 */

import { type ChosenLogprob, type Embedding, EngineError, type GenerateEvent, type TextEvent } from "./engine.ts";
import type { RecordSink } from "./records.ts";

/** Requests of one core, by the ids that the core gave them. */
export class RequestStreams {
  readonly #queues = new Map<number, EventQueue>();
  readonly #vectors = new Map<number, PromiseWithResolvers<Embedding>>();

  /** Where `readRecords` delivers; records of a request whose reader has left find no queue and are dropped. */
  readonly sink: Pick<RecordSink, "event" | "logprobs" | "promptLogprobs" | "embedding" | "error"> = {
    event: (request, event) => this.#queues.get(request)?.push(event),
    logprobs: (request, token) => this.#queues.get(request)?.logprobs.push(token),
    promptLogprobs: (request, token) => this.#queues.get(request)?.promptLogprobs.push(token),
    embedding: (request, embedding) => this.#vectors.get(request)?.resolve(embedding),
    error: (request, error) => {
      this.#queues.get(request)?.fail(error);
      this.#vectors.get(request)?.reject(error);
    },
  };

  /** Take in events of request `id` from now on. `cancel` asks the core to end it. */
  open(id: number, cancel: () => void): RequestStream {
    const queue = new EventQueue();
    this.#queues.set(id, queue);
    return new RequestStream(queue, cancel, () => this.#queues.delete(id));
  }

  /** The vector with which request `id` ends; aborting `signal` fails it at once, and `cancel` asks the core to end it. */
  async embedding(id: number, cancel: () => void, signal?: AbortSignal): Promise<Embedding> {
    const vector = Promise.withResolvers<Embedding>();
    const leave = () => {
      cancel();
      vector.reject(new EngineError("closed", "embedding: the request was cancelled"));
    };
    this.#vectors.set(id, vector);
    signal?.addEventListener("abort", leave, { once: true });
    if (signal?.aborted) leave();
    try {
      return await vector.promise;
    } finally {
      signal?.removeEventListener("abort", leave);
      this.#vectors.delete(id);
    }
  }

  /** No more events will come: end everything that waits for one. */
  fail(error: EngineError): void {
    for (const queue of this.#queues.values()) queue.fail(error);
    for (const vector of this.#vectors.values()) vector.reject(error);
    this.#queues.clear();
  }
}

/** The events of one request, for one reader. */
export class RequestStream {
  readonly #queue: EventQueue;
  readonly #cancel: () => void;
  readonly #leave: () => void;

  /** Made by {@linkcode RequestStreams.open}. */
  constructor(queue: EventQueue, cancel: () => void, leave: () => void) {
    this.#queue = queue;
    this.#cancel = cancel;
    this.#leave = leave;
  }

  /** All events up to done. Aborting `signal` or leaving the iteration cancels the request. */
  async *read(signal?: AbortSignal): AsyncGenerator<GenerateEvent> {
    const cancel = this.#cancel;
    signal?.addEventListener("abort", cancel, { once: true });
    if (signal?.aborted) cancel();
    let running = true;
    try {
      while (running) {
        const event = await this.#queue.take();
        running = event.type !== "done";
        yield event;
      }
    } finally {
      signal?.removeEventListener("abort", cancel);
      this.#leave();
      if (running) cancel();
    }
  }
}

/** Events of one request between the core and the reader. At most a context's worth can pile up. */
class EventQueue {
  readonly #events: GenerateEvent[] = [];
  /** Index of the next event: `shift` would move the whole array each time once it is long. */
  #next = 0;
  #failure?: EngineError;
  #wake?: () => void;
  /** What the next text takes along. */
  logprobs: ChosenLogprob[] = [];
  promptLogprobs: (ChosenLogprob | null)[] = [];

  push(event: GenerateEvent): void {
    this.#events.push(event.type === "text" ? this.#told(event) : event);
    this.#wake?.();
  }

  #told(event: TextEvent): TextEvent {
    const { logprobs, promptLogprobs } = this;
    if (logprobs.length > 0) [event.logprobs, this.logprobs] = [logprobs, []];
    if (promptLogprobs.length > 0) [event.promptLogprobs, this.promptLogprobs] = [promptLogprobs, []];
    return event;
  }

  fail(error: EngineError): void {
    this.#failure ??= error;
    this.#wake?.();
  }

  /** The next event; what came before a failure is still given out. One reader only. */
  async take(): Promise<GenerateEvent> {
    for (;;) {
      const event = this.#events[this.#next];
      if (event !== undefined) {
        this.#next++;
        return event;
      }
      this.#events.length = this.#next = 0;
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}
