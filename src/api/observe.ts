/**
 * Where replies are seen from outside: whoever counts, times or traces them is told of each reply's begin, events and
 * end. Of texts only their number and time matter to them; the log alone keeps some, when it is asked to.
 *
 * @module
 */

import type { Context } from "hono";
import type { DoneEvent } from "../engine/engine.ts";
import type { TurnEvent } from "../sessions/turn_event.ts";
import type { Origin } from "./caller.ts";
import { toApiError } from "./errors.ts";
import type { ApiEnv } from "./route.ts";

/** Whose reply an HTTP request asks for: one object for each request, by which observers know it. */
export function originOf(c: Context<ApiEnv>): Origin {
  return c.get("origin");
}

/** A reply that an observer follows. */
export interface Observed {
  /** Something happened. */
  event(event: TurnEvent): void;
  /** It is over: the engine's reason or an error's code, or `left` when nobody wanted the rest. */
  end(outcome: string, done: DoneEvent | undefined): void;
}

/** Follows replies; must not throw. */
export interface Observer {
  reply(origin: Origin): Observed;
  /** An HTTP request was answered; `route` is its path as the router knows it, so that there are few. */
  request?(method: string, route: string, status: number): void;
}

/** The same events; `observers` are told of each, and of the end however it comes. */
export async function* observed<E extends TurnEvent>(
  events: AsyncIterable<E>,
  origin: Origin,
  observers: readonly Observer[],
): AsyncGenerator<E> {
  const watching = observers.map((observer) => observer.reply(origin));
  let outcome = "left";
  let done: DoneEvent | undefined;
  try {
    for await (const event of events) {
      if (event.type === "done") [done, outcome] = [event, event.reason];
      for (const each of watching) each.event(event);
      yield event;
    }
  } catch (error) {
    outcome = toApiError(error).wire.code ?? "failed";
    throw error;
  } finally {
    for (const each of watching) each.end(outcome, done);
  }
}
