/**
 * What all stores share: which keys and values they take, how values become bytes, when an entry is over, and the
 * refusals. So a value that one store takes, every store takes.
 *
 * @module
 */

import type { StoreKey, Write } from "./store.ts";

/** Largest key in bytes: half of what KV takes, as it writes a zero byte in two. */
export const MAX_KEY_BYTES = 900;
/** Largest value in bytes of JSON: what a request can bring and a reply can add. */
export const MAX_VALUE_BYTES = 6 * 1024 * 1024;
/** Bytes that a part of a key takes besides its text. */
const PART_BYTES = 10;

/** Why a store does not keep something: it is too large by itself, or there is no room left. */
export type StoreErrorCode = "too_large" | "full";

/** A value that is not kept: a stable code and a sentence. */
export class StoreError extends Error {
  override readonly name = "StoreError";
  /** What went wrong, as far as a caller can act on it. */
  readonly code: StoreErrorCode;

  /** A failure with its stable `code` and a sentence. */
  constructor(code: StoreErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The bytes of a value that JSON can carry. */
export function encode(value: unknown): Uint8Array {
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`keeping a value: expected one that JSON can carry, got ${typeof value}`);
  const bytes = encoder.encode(text);
  if (bytes.length > MAX_VALUE_BYTES) {
    throw new StoreError(
      "too_large",
      `keeping a value: expected at most ${MAX_VALUE_BYTES} bytes of JSON, got ${bytes.length}`,
    );
  }
  return bytes;
}

/** The value of such bytes. */
export function decode<T>(bytes: Uint8Array): T {
  return JSON.parse(decoder.decode(bytes));
}

/** Refuse what is a mistake of ours: a key or a time that no store could keep. */
export function checkWrite({ key, ttlMs }: Write): void {
  checkKey(key);
  if (ttlMs === undefined || (Number.isSafeInteger(ttlMs) && ttlMs > 0)) return;
  throw new RangeError(`committing: expected whole milliseconds above 0 as ttlMs, got ${ttlMs}`);
}

/** Refuse a key that some store could not keep, or would take for another. */
export function checkKey(key: StoreKey): void {
  const sound = key.length > 0 && key.every((part) => part.isWellFormed());
  const bytes = key.reduce((sum, part) => sum + PART_BYTES + encoder.encode(part).length, 0);
  if (sound && bytes <= MAX_KEY_BYTES) return;
  const wanted = `a key of well-formed texts, of at most ${MAX_KEY_BYTES} bytes`;
  throw new RangeError(`checking a key: expected ${wanted}, got ${JSON.stringify(key).slice(0, 80)}`);
}

/** Whether something that ends at a time, if it does, is still there. */
export function isLive({ expiresAt }: { expiresAt?: number }, now: number): boolean {
  return expiresAt === undefined || now < expiresAt;
}
