/**
 * A store in memory: for tests, for the edge, and for those who want nothing kept. Its values are copies, as those of a
 * file would be, and its size is bounded. When it is full, what was written as disposable makes room, the oldest first.
 *
 * Absent here on purpose: dropping anything else that still lives. A conversation that is gone without a word is worse
 * than a refusal.
 *
 * @module
 */

import { checkKey, checkWrite, decode, encode, isLive, StoreError } from "./entry.ts";
import type { Entry, Store, StoreKey, Write } from "./store.ts";

/** Default of `MemoryStoreOptions.maxEntries`. */
export const MAX_ENTRIES = 100_000;
/** Default of `MemoryStoreOptions.maxBytes`: half of what the smaller edge runtimes have. */
export const MAX_BYTES = 64 * 1024 * 1024;

/** Options of a memory store. */
export interface MemoryStoreOptions {
  /** Milliseconds since 1970. Default `Date.now`. */
  clock?: () => number;
  /** Most entries at once. */
  maxEntries?: number;
  /** Most bytes of values, as JSON, at once. */
  maxBytes?: number;
}

interface Kept {
  bytes: Uint8Array;
  version: string;
  expiresAt?: number;
  disposable?: true;
}

interface Size {
  entries: number;
  bytes: number;
}

/** A store in memory. */
export class MemoryStore implements Store {
  readonly #clock: () => number;
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  /** By the key as JSON, in the order in which they were written. */
  readonly #kept = new Map<string, Kept>();
  #bytes = 0;
  #version = 0;

  /** An empty store. */
  constructor({ clock = Date.now, maxEntries = MAX_ENTRIES, maxBytes = MAX_BYTES }: MemoryStoreOptions = {}) {
    this.#clock = clock;
    this.#maxEntries = maxEntries;
    this.#maxBytes = maxBytes;
  }

  // deno-lint-ignore require-await -- failures reach the caller as rejections
  async get<T>(key: StoreKey): Promise<Entry<T> | undefined> {
    checkKey(key);
    const kept = this.#live(JSON.stringify(key));
    return kept && { value: decode(kept.bytes), version: kept.version };
  }

  // deno-lint-ignore require-await -- failures reach the caller as rejections
  async commit(write: Write): Promise<string | undefined> {
    checkWrite(write);
    const { key, value, expect, ttlMs, disposable } = write;
    const name = JSON.stringify(key);
    const version = String(this.#version + 1);
    const made = value === undefined
      ? undefined
      : { bytes: encode(value), version, expiresAt: ttlMs && this.#clock() + ttlMs, disposable };
    if (expect !== undefined && (this.#live(name)?.version ?? null) !== expect) return undefined;
    if (made) this.#makeRoom(name, made);
    this.#version++;
    this.#replace(name, made);
    return version;
  }

  // deno-lint-ignore require-await -- the interface asks for a promise
  async [Symbol.asyncDispose](): Promise<void> {
    this.#kept.clear();
    this.#bytes = 0;
  }

  /** Drops what is over, then what is disposable. Refuses what would not fit even so, and then drops nothing that lives. */
  #makeRoom(name: string, made: Kept): void {
    if (this.#fits(this.#sizeWith(name, made))) return;
    this.#purge();
    const size = this.#sizeWith(name, made);
    const dropped: string[] = [];
    for (const [other, { disposable, bytes }] of this.#kept) {
      if (this.#fits(size)) break;
      if (!disposable || other === name) continue;
      dropped.push(other);
      size.entries--;
      size.bytes -= bytes.length;
    }
    if (!this.#fits(size)) throw this.#full();
    for (const other of dropped) this.#replace(other, undefined);
  }

  #sizeWith(name: string, made: Kept): Size {
    const old = this.#kept.get(name);
    return {
      entries: this.#kept.size + (old ? 0 : 1),
      bytes: this.#bytes + made.bytes.length - (old?.bytes.length ?? 0),
    };
  }

  #fits({ entries, bytes }: Size): boolean {
    return entries <= this.#maxEntries && bytes <= this.#maxBytes;
  }

  #full(): StoreError {
    const most = `${this.#maxEntries} entries of ${this.#maxBytes} bytes together`;
    return new StoreError("full", `keeping a value: expected room in memory, got a store with at most ${most}`);
  }

  #purge(): void {
    const now = this.#clock();
    for (const [name, kept] of this.#kept) if (!isLive(kept, now)) this.#replace(name, undefined);
  }

  #live(name: string): Kept | undefined {
    const kept = this.#kept.get(name);
    return kept && isLive(kept, this.#clock()) ? kept : undefined;
  }

  #replace(name: string, made: Kept | undefined): void {
    this.#bytes += (made?.bytes.length ?? 0) - (this.#kept.get(name)?.bytes.length ?? 0);
    // What is written again stands behind all others.
    this.#kept.delete(name);
    if (made) this.#kept.set(name, made);
  }
}
