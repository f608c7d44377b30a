/**
 * What this room refuses.
 *
 * @module
 */

/**
 * Stable names of refusals: what was named is not there (or is another's, which nobody is told); another was faster; what
 * was there has been dropped; it does not go together; it would grow beyond its limit;
 * there is no room for one more.
 */
export type SessionErrorCode = "not_found" | "conflict" | "gone" | "invalid" | "too_large" | "too_many";

/** A refusal: a stable code and a sentence. */
export class SessionError extends Error {
  override readonly name = "SessionError";
  /** What went wrong, as far as a caller can act on it. */
  readonly code: SessionErrorCode;
  /** The refused field. */
  readonly param: string | null;

  /** A refusal with its stable `code` and a sentence. */
  constructor(code: SessionErrorCode, message: string, param: string | null = null) {
    super(message);
    this.code = code;
    this.param = param;
  }
}
