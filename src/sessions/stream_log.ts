/**
 * The events of one reply, for readers that come and go: each is numbered, the newest are kept, and a reader begins
 * wherever it stopped.
 *
 * A reader may hold back: whoever writes then learns that it lags, and nothing is dropped that it has not taken. One that
 * does not hold back and falls behind what is kept has lost its place.
 *
 * Absent here on purpose: what an event is, and who may read.
 *
 * @module
 */

import { SessionError } from "./error.ts";

/** Limits of a log. */
export interface StreamLogLimits {
  /** UTF-16 code units of the events that are kept. */
  maxLength: number;
  /** Events that a reader may be behind before the writer is told to wait. */
  maxLag: number;
}

/** The limits of a served reply. */
export const STREAM_LOG_LIMITS: Readonly<StreamLogLimits> = { maxLength: 1024 * 1024, maxLag: 32 };

/** An event as it is sent: its kind and its JSON. */
export interface LoggedEvent {
  readonly type: string;
  readonly json: string;
}

/** A place in a log. */
interface Reader {
  next: number;
}

/** The newest events of one reply. */
export class StreamLog {
  readonly #limits: StreamLogLimits;
  /** What is kept, behind places that are empty: taking an event from the front of a list would move all others. */
  #events: (LoggedEvent | undefined)[] = [];
  #empty = 0;
  /** Number of the first event that is kept. */
  #first = 0;
  #length = 0;
  #isEnded = false;
  /** Readers that hold back. */
  readonly #readers = new Set<Reader>();
  #grown = Promise.withResolvers<void>();
  #taken = Promise.withResolvers<void>();

  /** An empty log. */
  constructor(limits: StreamLogLimits = STREAM_LOG_LIMITS) {
    this.#limits = limits;
  }

  /** UTF-16 code units of what is kept. */
  get length(): number {
    return this.#length;
  }

  /** Whether a reader that holds back has not taken the newest events yet. */
  get isBehind(): boolean {
    for (const { next } of this.#readers) if (this.#end - next > this.#limits.maxLag) return true;
    return false;
  }

  /** Number of the event that comes next. */
  get #end(): number {
    return this.#first + this.#events.length - this.#empty;
  }

  /** Adds events; the oldest go where there are too many. */
  push(events: readonly LoggedEvent[]): void {
    for (const event of events) {
      this.#events.push(event);
      this.#length += event.json.length;
    }
    this.#drop();
    this.#wake();
  }

  /** No event follows. */
  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  /** Resolves when no reader is behind, or when `signal` is aborted. */
  async caughtUp(signal: AbortSignal): Promise<void> {
    if (!this.isBehind || signal.aborted) return;
    const aborted = Promise.withResolvers<void>();
    const onAbort = () => aborted.resolve();
    signal.addEventListener("abort", onAbort, { once: true });
    while (this.isBehind && !signal.aborted) await Promise.race([this.#taken.promise, aborted.promise]);
    signal.removeEventListener("abort", onAbort);
  }

  /**
   * All events after number `after`, as many at a time as there are, until the end. What was yielded counts as taken
   * when the next is asked for. A reader that holds back does so from this call on, so it must begin.
   *
   * @throws {SessionError} `gone` when an event that should come next is no longer kept.
   */
  read(after: number, { holdsBack = false } = {}): AsyncGenerator<readonly LoggedEvent[]> {
    const reader = { next: after + 1 };
    if (holdsBack) this.#readers.add(reader);
    return this.#read(reader);
  }

  async *#read(reader: Reader): AsyncGenerator<readonly LoggedEvent[]> {
    try {
      for (;;) {
        const events = this.#from(reader.next);
        if (events.length > 0) {
          yield events;
          reader.next += events.length;
          this.#tell();
        } else if (this.#isEnded) return;
        else await this.#grown.promise;
      }
    } finally {
      this.#readers.delete(reader);
      this.#tell();
    }
  }

  #from(number: number): readonly LoggedEvent[] {
    if (number >= this.#first) return this.#events.slice(number - this.#first + this.#empty) as LoggedEvent[];
    const wanted = `a number from ${this.#first - 1}`;
    throw new SessionError("gone", `starting_after: expected ${wanted}, got ${number - 1}`, "starting_after");
  }

  #drop(): void {
    const { maxLength } = this.#limits;
    if (this.#length <= maxLength) return;
    const wanted = Math.min(...[...this.#readers].map(({ next }) => next), this.#end - 1);
    for (; this.#length > maxLength && this.#first < wanted; this.#first++) {
      this.#length -= this.#events[this.#empty]!.json.length;
      this.#events[this.#empty++] = undefined;
    }
    if (this.#empty < this.#events.length / 2) return;
    this.#events = this.#events.slice(this.#empty);
    this.#empty = 0;
  }

  #wake(): void {
    this.#grown.resolve();
    this.#grown = Promise.withResolvers();
  }

  #tell(): void {
    this.#taken.resolve();
    this.#taken = Promise.withResolvers();
  }
}
