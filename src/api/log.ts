/**
 * What the API tells an operator. Entries are plain data; who writes them, and where, is decided in `main.ts`. Prompts
 * and replies never appear.
 *
 * @module
 */

import type { Observer } from "./observe.ts";

/** A thing that happened. */
export type LogEntry =
  | { event: "request"; requestId: string; method: string; path: string; status: number; ms: number }
  | { event: "reply"; requestId: string; outcome: string; promptTokens?: number; completionTokens?: number }
  | { event: "failure"; requestId: string; message: string; stack?: string };

/** Takes entries; must not throw. */
export type Log = (entry: LogEntry) => void;

/** The default: failures as JSON lines on standard error, nothing else. */
export function logFailures(entry: LogEntry): void {
  if (entry.event === "failure") console.error(JSON.stringify(entry));
}

/** The entry of a failure whose reason the client does not see. */
export function failure(requestId: string, error: unknown): LogEntry {
  if (!(error instanceof Error)) return { event: "failure", requestId, message: String(error) };
  return { event: "failure", requestId, message: error.message, stack: error.stack };
}

/** Logs each reply once, when it is over. */
export function replyLog(log: Log): Observer {
  return {
    reply: ({ requestId }) => ({
      event() {},
      end: (outcome, done) => log({ event: "reply", requestId, outcome, ...done?.usage }),
    }),
  };
}
