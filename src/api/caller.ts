/**
 * Whom a request comes from: what is kept for a caller is seen by nobody else.
 *
 * Absent here: how a caller is recognised.
 *
 * @module
 */

/** The owner of a key; where no keys are set, everybody is one. */
export interface Caller {
  /** Stable and without secrets: under it things are kept. */
  readonly id: string;
  /** For logs and metrics. */
  readonly name: string;
}

/** The caller where no keys are set. */
export const ANYBODY: Caller = { id: "anybody", name: "anybody" };
