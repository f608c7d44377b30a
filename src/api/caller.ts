/**
 * Whom a request comes from: what is kept for a caller is seen by nobody else.
 *
 * Absent here: how a caller is recognised (`keys.ts`) and how its limits are kept (`limits.ts`).
 *
 * @module
 */

/** What the owner of a key may take; what is missing is not limited. */
export interface CallerLimits {
  /** Requests in each minute, spread evenly: a bucket of that size that fills up again within a minute. */
  requestsPerMinute?: number;
  /** Tokens of prompts and replies in each minute. */
  tokensPerMinute?: number;
  /** Replies in progress at once. */
  maxRunning?: number;
  /** Replies that may wait for the end of one of those; more are refused. */
  maxWaiting?: number;
}

/** The owner of a key; where no keys are set, everybody is one. */
export interface Caller {
  /** Stable and without secrets: under it things are kept. */
  readonly id: string;
  /** For logs and metrics. */
  readonly name: string;
  /** The models that it may use; missing: all. */
  readonly models?: readonly string[];
  readonly limits?: CallerLimits;
  /** When its key ends, in milliseconds since 1970; missing: never. */
  readonly expiresAt?: number;
  /** Aborted when its key is taken away: what is open for it ends. */
  readonly revoked?: AbortSignal;
}

/** Whose request or reply it is. */
export interface Origin {
  requestId: string;
  caller: Caller;
}

/** The caller where no keys are set. */
export const ANYBODY: Caller = { id: "anybody", name: "anybody" };

/** The caller who has shown no key where keys are set: only what is open to all gets to see it. */
export const STRANGER: Caller = { id: "stranger", name: "stranger" };
