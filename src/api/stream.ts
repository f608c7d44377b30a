/**
 * Response bodies as pulled streams: a piece is asked for only when the connection takes one, so a slow reader slows its
 * own reply and buffers nothing here.
 *
 * Hono's `streamSSE` was tried and left: its writes swallow failures, an error in its callback reaches no error handler,
 * and it sends an error's text as it is.
 *
 * @module
 */

import { LATE, within } from "./timing.ts";

/** Headers of an event stream. `x-accel-buffering` keeps nginx from collecting it. */
export const SSE_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/event-stream",
  "cache-control": "no-cache",
  "x-accel-buffering": "no",
};

/** What an event stream may say while it has nothing to say: a comment. */
export const SSE_FILLER = ": keep-alive\n\n";
/** The same for a JSON body that has not begun. */
export const JSON_FILLER = " ";

/** Options of `pulledStream`. */
export interface PulledStreamOptions {
  /** Called when the reader leaves before the end. */
  onCancel: () => void;
  /** Send `filler` after this many milliseconds without a piece, so that proxies keep the connection. */
  keepAliveMs: number;
  /** A text that means nothing. */
  filler: string;
}

/** One event without a name; `data` must be a single line, as JSON is. */
export function sseData(data: string): string {
  return `data: ${data}\n\n`;
}

/** A JSON value as an event without a name. */
export function data(value: unknown): string {
  return sseData(JSON.stringify(value));
}

/** One event with a name; both must be single lines. */
export function sseEvent(name: string, data: string): string {
  return `event: ${name}\n${sseData(data)}`;
}

/** The bytes of `pieces`. An error of theirs breaks the stream off, which a reader cannot take for its end. */
export function pulledStream(
  pieces: AsyncGenerator<string>,
  { onCancel, keepAliveMs, filler }: PulledStreamOptions,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let pending: Promise<IteratorResult<string>> | undefined;
  let left = false;
  return new ReadableStream({
    async pull(controller) {
      pending ??= pieces.next();
      const next = await within(pending, keepAliveMs);
      if (left) return;
      if (next === LATE) return controller.enqueue(encoder.encode(filler));
      pending = undefined;
      if (next.done) controller.close();
      else controller.enqueue(encoder.encode(next.value));
    },
    async cancel() {
      left = true;
      onCancel();
      await pieces.return(undefined);
    },
  }, { highWaterMark: 0 });
}
