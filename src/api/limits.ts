/**
 * What a key may take, and what one request may: refused with 429 or 400 before it costs anything, ended with an error
 * when it goes on for too long or its key is taken away.
 *
 * Requests and tokens of a minute are buckets that fill up evenly. Tokens are paid for as they are used, so a reply may
 * overdraw its bucket; the next one waits until that is made up for. All replies to one request (the choices of `n`)
 * share one place among those in progress, since they begin together or not at all.
 *
 * Absent here on purpose: how much waits for the model in total, which the engine bounds.
 *
 * @module
 */

import type { TurnEvent } from "../sessions/turn_event.ts";
import type { Caller, CallerLimits, Origin } from "./caller.ts";
import { ApiError, RETRY_AFTER_S } from "./errors.ts";
import { isOver } from "./keys.ts";
import { wrongKey } from "./recognise.ts";

/** What an operator allows to every request. */
export interface RequestLimits {
  /** Most new tokens of a reply. */
  maxTokens?: number;
  /** Most replies to one request. */
  maxChoices?: number;
  /** Longest time from the first wait of a reply to its end, in milliseconds. */
  timeoutMs?: number;
}

const MINUTE_MS = 60_000;

/** Fills up to its size within a minute. */
class Bucket {
  #taken = 0;
  #at = 0;

  /** What is in it at `now`; below 0 when it is overdrawn. */
  level(size: number, now: number): number {
    // A clock that is set back refills nothing, and goes on from there.
    const refilled = Math.max(0, now - this.#at) * size / MINUTE_MS;
    this.#taken = Math.max(0, this.#taken - refilled);
    this.#at = now;
    return size - this.#taken;
  }

  /** Takes `amount`, whatever is in it. */
  take(amount: number, size: number, now: number): void {
    this.level(size, now);
    this.#taken += amount;
  }
}

/** What one caller has in use. */
interface Account {
  requests: Bucket;
  tokens: Bucket;
  running: number;
  /** Requests that wait for the end of another, first come first served. */
  waiting: Place[];
}

/** One request's place among those of its caller, shared by all its replies. */
interface Place {
  /** Replies that are not over. */
  replies: number;
  runs: boolean;
  /** Settles when it runs. */
  turn: PromiseWithResolvers<void>;
  /** Aborted, with the error as reason, when the request has to end. */
  over: AbortController;
  clear: () => void;
}

/** Keeps account of all callers. */
export class Limits {
  readonly #clock: () => number;
  readonly #each: RequestLimits;
  readonly #accounts = new Map<string, Account>();
  readonly #places = new WeakMap<Origin, Place>();

  /** No account has anything in use yet; `clock` tells milliseconds. */
  constructor(clock: () => number, each: RequestLimits = {}) {
    this.#clock = clock;
    this.#each = each;
  }

  /** Counts a request; gives the headers by which clients see what is left. */
  request(caller: Caller): Record<string, string> {
    const { requestsPerMinute: size } = caller.limits ?? {};
    const { requests } = this.#account(caller);
    const now = this.#clock();
    if (size !== undefined) {
      const level = requests.level(size, now);
      if (level < 1) throw this.#exhausted(caller, "requests", size, (1 - level) / size * MINUTE_MS);
      requests.take(1, size, now);
    }
    return this.headers(caller);
  }

  /** What is left to a caller, as OpenAI's clients read it. */
  headers(caller: Caller): Record<string, string> {
    const { requestsPerMinute, tokensPerMinute } = caller.limits ?? {};
    const { requests, tokens } = this.#account(caller);
    const now = this.#clock();
    return {
      ...bucketHeaders("requests", requests, requestsPerMinute, now),
      ...bucketHeaders("tokens", tokens, tokensPerMinute, now),
    };
  }

  /** The events of a reply that begins when its caller may have one, and ends when it has to. */
  async *bounded<E extends TurnEvent>(
    origin: Origin,
    { maxTokens, signal }: { maxTokens: number | undefined; signal: AbortSignal },
    begin: (signal: AbortSignal) => AsyncIterable<E>,
  ): AsyncGenerator<E> {
    this.#check(origin.caller, maxTokens);
    const place = this.#places.get(origin) ?? this.#open(origin);
    place.replies++;
    let left = false;
    const leave = () => {
      if (!left && --place.replies === 0) this.#close(origin, place);
      left = true;
    };
    // Whoever leaves before the first event never asks for another, and must not keep the place.
    signal.addEventListener("abort", leave, { once: true });
    try {
      this.#checkChoices(place);
      const { over } = place;
      const ending = AbortSignal.any([signal, over.signal]);
      await Promise.race([place.turn.promise, aborted(ending)]);
      const used = this.#meter(origin.caller);
      for await (const event of begin(ending)) {
        used(event);
        if (event.type === "done" && event.reason === "cancelled" && over.signal.aborted) throw over.signal.reason;
        yield event;
      }
    } catch (error) {
      // An engine that was told to end may say so as a failure: why, is known here.
      throw place.over.signal.aborted ? place.over.signal.reason : error;
    } finally {
      signal.removeEventListener("abort", leave);
      leave();
    }
  }

  /** Takes tokens that were used out of a caller's bucket. */
  spend({ id, limits }: Caller, tokens: number): void {
    const size = limits?.tokensPerMinute;
    if (size !== undefined) this.#account({ id }).tokens.take(tokens, size, this.#clock());
  }

  /** Refuses a caller whose key has ended or whose tokens are used up. */
  admit(caller: Caller): void {
    const now = this.#clock();
    if (isOver(caller, now)) throw wrongKey();
    const { tokensPerMinute: size } = caller.limits ?? {};
    if (size === undefined) return;
    const level = this.#account(caller).tokens.level(size, now);
    if (level <= 0) throw this.#exhausted(caller, "tokens", size, (1 - level) / size * MINUTE_MS);
  }

  #check(caller: Caller, maxTokens = 1): void {
    this.admit(caller);
    const { maxTokens: most = Infinity } = this.#each;
    if (maxTokens > most) throw tooMuch("max_tokens", `at most ${most} new tokens`, maxTokens);
  }

  #checkChoices({ replies }: Place): void {
    const { maxChoices: most = Infinity } = this.#each;
    if (replies > most) throw tooMuch("n", `at most ${most} replies to one request`, "more");
  }

  #open(origin: Origin): Place {
    const { caller } = origin;
    const account = this.#account(caller);
    const place = this.#newPlace(caller);
    const { maxRunning = Infinity, maxWaiting = 0 } = caller.limits ?? {};
    if (account.running < maxRunning && account.waiting.length === 0) start(account, place);
    else if (account.waiting.length < maxWaiting) account.waiting.push(place);
    else {
      place.clear();
      throw crowded(caller.name, maxRunning, maxWaiting);
    }
    this.#places.set(origin, place);
    return place;
  }

  #newPlace({ revoked }: Caller): Place {
    const over = new AbortController();
    const revoke = () => over.abort(wrongKey());
    const { timeoutMs } = this.#each;
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => over.abort(tooSlow(timeoutMs)), timeoutMs);
    revoked?.addEventListener("abort", revoke, { once: true });
    const clear = () => {
      clearTimeout(timer);
      revoked?.removeEventListener("abort", revoke);
    };
    return { replies: 0, runs: false, turn: Promise.withResolvers(), over, clear };
  }

  #close(origin: Origin, place: Place): void {
    this.#places.delete(origin);
    place.clear();
    const account = this.#account(origin.caller);
    account.waiting = account.waiting.filter((each) => each !== place);
    if (!place.runs) return;
    account.running--;
    const next = account.waiting.shift();
    if (next) start(account, next);
  }

  #meter(caller: Caller): (event: TurnEvent) => void {
    let counted = 0;
    const upTo = (tokens: number) => {
      if (tokens > counted) this.spend(caller, tokens - counted);
      counted = Math.max(counted, tokens);
    };
    return (event) => {
      if (event.type === "started") this.spend(caller, event.promptTokens);
      if (event.type === "text") upTo(event.completionTokens);
      if (event.type === "done") upTo(event.usage.completionTokens);
    };
  }

  #exhausted(caller: Caller, what: "requests" | "tokens", size: number, waitMs: number): ApiError {
    const message = `${what}: expected at most ${size} in a minute for the key ${caller.name}, got more`;
    return rateLimited(what, message, waitMs, this.headers(caller));
  }

  #account({ id }: Pick<Caller, "id">): Account {
    return this.#accounts.getOrInsertComputed(id, () => {
      return { requests: new Bucket(), tokens: new Bucket(), running: 0, waiting: [] };
    });
  }
}

function start(account: Account, place: Place): void {
  account.running++;
  place.runs = true;
  place.turn.resolve();
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

function bucketHeaders(what: string, bucket: Bucket, size: number | undefined, now: number): Record<string, string> {
  if (size === undefined) return {};
  const level = bucket.level(size, now);
  return {
    [`x-ratelimit-limit-${what}`]: String(size),
    [`x-ratelimit-remaining-${what}`]: String(Math.max(0, Math.floor(level))),
    [`x-ratelimit-reset-${what}`]: duration((size - level) / size * MINUTE_MS),
  };
}

/** A time as OpenAI writes it: `250ms`, `12s`, `1m3s`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.ceil(ms)}ms`;
  const s = Math.ceil(ms / 1000);
  return s < 60 ? `${s}s` : `${Math.floor(s / 60)}m${s % 60}s`;
}

function crowded(name: string, running: NonNullable<CallerLimits["maxRunning"]>, waiting: number): ApiError {
  const message =
    `replies: expected at most ${running} in progress and ${waiting} waiting for the key ${name}, got one more`;
  return rateLimited("requests", message, RETRY_AFTER_S * 1000, {});
}

function rateLimited(type: string, message: string, waitMs: number, headers: Record<string, string>): ApiError {
  const retry = { "retry-after": String(Math.ceil(waitMs / 1000)), "retry-after-ms": String(Math.ceil(waitMs)) };
  return new ApiError(429, { type, code: "rate_limit_exceeded", message }, { headers: { ...headers, ...retry } });
}

function tooMuch(param: string, expected: string, got: number | string): ApiError {
  return new ApiError(400, {
    code: "invalid_value",
    param,
    message: `${param}: expected ${expected} on this server, got ${got}`,
  });
}

function tooSlow(timeoutMs: number): ApiError {
  return new ApiError(503, {
    type: "server_error",
    code: "request_timeout",
    message: `the reply took longer than the ${timeoutMs / 1000} seconds that a request has`,
  });
}
