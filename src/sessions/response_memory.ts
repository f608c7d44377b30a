/**
 * Responses that are not stored, for as long as somebody may continue them: the oldest go where there are too many.
 *
 * @module
 */

import type { KeptResponse, ResponseMemory } from "./responses.ts";

/** Default of the most responses. */
export const MAX_REMEMBERED = 256;
/** Default of the most UTF-16 code units of all of them, as JSON. */
export const MAX_REMEMBERED_LENGTH = 8 * 1024 * 1024;

/** A bounded memory. */
export class BoundedMemory implements ResponseMemory {
  readonly #maxCount: number;
  readonly #maxLength: number;
  readonly #kept = new Map<string, { kept: KeptResponse; length: number }>();
  #length = 0;

  /** An empty memory. */
  constructor(maxCount = MAX_REMEMBERED, maxLength = MAX_REMEMBERED_LENGTH) {
    this.#maxCount = maxCount;
    this.#maxLength = maxLength;
  }

  get(id: string): KeptResponse | undefined {
    return this.#kept.get(id)?.kept;
  }

  set(id: string, kept: KeptResponse): void {
    const { length } = JSON.stringify(kept);
    this.#kept.set(id, { kept, length });
    this.#length += length;
    for (const [oldest, { length }] of this.#kept) {
      if (this.#kept.size <= this.#maxCount && this.#length <= this.#maxLength) return;
      this.#kept.delete(oldest);
      this.#length -= length;
    }
  }
}
