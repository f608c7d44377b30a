/**
 * What the API tells an operator: one entry for each request, when all that it asked for is over. Entries are plain
 * data; who writes them, and where, is decided in `main.ts`. Prompts and replies appear only when an operator asks.
 *
 * @module
 */

import type { DoneEvent } from "../engine/engine.ts";
import type { TurnEvent } from "../sessions/turn_event.ts";
import type { Origin } from "./caller.ts";
import type { Observed, Observer } from "./observe.ts";

/** How the replies of a request went, if it had any. */
export interface ReplyFacts {
  /** How they ended: reasons of the engine, codes of errors, or `left`. */
  outcome?: string;
  promptTokens?: number;
  completionTokens?: number;
  /** What they answered, and what they said; only on demand. */
  prompts?: readonly unknown[];
  replies?: readonly string[];
}

/** A request that was answered. */
export interface RequestEntry extends ReplyFacts {
  event: "request";
  requestId: string;
  /** The name of the key that it came with. */
  key: string;
  method: string;
  path: string;
  status: number;
  /** Milliseconds until the head of the response, and until all replies were over. */
  headMs: number;
  ms: number;
}

/** A reply that no open request waits for: one of many on a socket, or one in the background. */
export interface ReplyEntry extends ReplyFacts {
  event: "reply";
  requestId: string;
  key: string;
  ms: number;
}

/** A thing that happened. */
export type LogEntry =
  | RequestEntry
  | ReplyEntry
  | { event: "failure"; requestId: string; message: string; stack?: string };

/** Takes entries; must not throw. */
export type Log = (entry: LogEntry) => void;

/** The default: failures as JSON lines on standard error, nothing else. */
export function logFailures(entry: LogEntry): void {
  if (entry.event === "failure") console.error(jsonLine(entry));
}

/** The entry of a failure whose reason the client does not see. */
export function failure(requestId: string, error: unknown): LogEntry {
  if (!(error instanceof Error)) return { event: "failure", requestId, message: String(error) };
  return { event: "failure", requestId, message: error.message, stack: error.stack };
}

/** JSON that is one line everywhere and moves no terminal: what JSON leaves of control characters is escaped too. */
export function jsonLine(value: unknown): string {
  return printable(JSON.stringify(value));
}

/** `text` with control characters and those that turn the direction of writing as escapes, but for line breaks. */
export function printable(text: string): string {
  const escape = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  // deno-lint-ignore no-control-regex -- they are what is looked for
  return text.replace(/[\0-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, escape);
}

/** A request, or a reply without one, that is not over. */
interface Open {
  entry: Omit<RequestEntry, "headMs" | "ms"> | Omit<ReplyEntry, "ms">;
  startedAt: number;
  headMs?: number;
  /** Replies that are not over. */
  replies: number;
  outcomes: Set<string>;
  prompts: unknown[];
  said: string[];
}

/** Options of `RequestLog`. */
export interface RequestLogOptions {
  log: Log;
  /** Milliseconds. */
  clock: () => number;
  /** Whether prompts and replies are logged. */
  prompts?: boolean | undefined;
}

/** Follows requests and their replies, and logs each once. */
export class RequestLog implements Observer {
  readonly #options: RequestLogOptions;
  readonly #open = new Map<Origin, Open>();
  readonly #prompts = new WeakMap<Origin, unknown[]>();

  /** Nothing is open yet. */
  constructor(options: RequestLogOptions) {
    this.#options = options;
  }

  /** A request came; who it comes from, `origin` may learn later. */
  arrived(origin: Origin, method: string, path: string): void {
    const { requestId, caller: { name: key } } = origin;
    this.#open.set(origin, this.#begin({ event: "request", requestId, key, method, path, status: 0 }));
  }

  /** The head of its response is ready. */
  answered(origin: Origin, status: number): void {
    const open = this.#open.get(origin)!;
    open.headMs = this.#options.clock() - open.startedAt;
    Object.assign(open.entry, { status });
    this.#endWhenDone(origin, open);
  }

  /** What the next reply of `origin` answers. */
  asked(origin: Origin, prompt: unknown): void {
    if (!this.#options.prompts) return;
    this.#prompts.set(origin, [...this.#prompts.get(origin) ?? [], prompt]);
  }

  reply(origin: Origin): Observed {
    const { requestId, caller: { name: key } } = origin;
    const open = this.#open.get(origin) ?? { ...this.#begin({ event: "reply", requestId, key }), headMs: 0 };
    open.replies++;
    open.prompts.push(...this.#prompts.get(origin) ?? []);
    this.#prompts.delete(origin);
    let said = "";
    return {
      event: (event: TurnEvent) => {
        if (this.#options.prompts && event.type === "text") said += event.text;
      },
      end: (outcome, done) => {
        open.replies--;
        open.outcomes.add(outcome);
        open.said.push(said);
        count(open, done);
        this.#endWhenDone(origin, open);
      },
    };
  }

  #begin(entry: Open["entry"]): Open {
    return { entry, startedAt: this.#options.clock(), replies: 0, outcomes: new Set(), prompts: [], said: [] };
  }

  #endWhenDone(origin: Origin, open: Open): void {
    const { entry, headMs, replies, startedAt, outcomes, prompts, said } = open;
    if (headMs === undefined || replies > 0) return;
    if (this.#open.get(origin) === open) this.#open.delete(origin);
    const outcome = outcomes.size > 0 ? [...outcomes].join(",") : undefined;
    const texts = this.#options.prompts && outcome !== undefined ? { prompts, replies: said } : {};
    const times = { ...(entry.event === "request" ? { headMs } : {}), ms: this.#options.clock() - startedAt };
    const facts = { key: origin.caller.name, ...(outcome ? { outcome } : {}), ...texts };
    this.#options.log({ ...entry, ...times, ...facts } as LogEntry);
  }
}

function count({ entry }: Open, done: DoneEvent | undefined): void {
  if (done === undefined) return;
  const { promptTokens, completionTokens } = done.usage;
  entry.promptTokens = (entry.promptTokens ?? 0) + promptTokens;
  entry.completionTokens = (entry.completionTokens ?? 0) + completionTokens;
}
