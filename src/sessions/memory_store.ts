/**
 * A store in memory: for tests, for the edge, and for those who want nothing kept. Its values are copies, as those of a
 * file would be, and its size is bounded.
 *
 * Absent here on purpose: evicting what still lives. A conversation that is gone without a word is worse than a refusal.
 *
 * @module
 */

import { checkKey, checkWrites, decode, encode, isLive, StoreError } from "./entry.ts";
import type { Entry, ListOptions, Store, StoreKey, Write } from "./store.ts";

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
  key: StoreKey;
  bytes: Uint8Array;
  version: string;
  expiresAt?: number;
}

/** Entries whose keys differ in the last part only, by that part. */
type Family = Map<string | number, Kept>;

/** A store in memory. */
export class MemoryStore implements Store {
  readonly #clock: () => number;
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  readonly #families = new Map<string, Family>();
  #entries = 0;
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
    const kept = this.#live(key);
    return kept && entryOf(kept);
  }

  // deno-lint-ignore require-await -- failures reach the caller as rejections
  async list<T>(prefix: StoreKey, { after, reverse = false, limit }: ListOptions = {}): Promise<Entry<T>[]> {
    const now = this.#clock();
    const family = [...this.#families.get(JSON.stringify(prefix)) ?? []].filter(([, kept]) => isLive(kept, now));
    const direction = reverse ? -1 : 1;
    const behind = family.filter(([part]) => after === undefined || direction * compare(part, after) > 0);
    behind.sort(([a], [b]) => direction * compare(a, b));
    return behind.slice(0, limit).map(([, kept]) => entryOf<T>(kept));
  }

  // deno-lint-ignore require-await -- failures reach the caller as rejections
  async commit(writes: readonly Write[]): Promise<string | undefined> {
    checkWrites(writes);
    const now = this.#clock();
    const version = String(this.#version + 1);
    const made = writes.map(({ key, value, ttlMs }) =>
      value === undefined ? undefined : { key, bytes: encode(value), version, expiresAt: ttlMs && now + ttlMs }
    );
    const holds = writes.every(({ key, expect }) =>
      expect === undefined || (this.#live(key)?.version ?? null) === expect
    );
    if (!holds) return undefined;
    this.#makeRoom(writes, made);
    this.#version++;
    writes.forEach(({ key }, index) => this.#replace(key, made[index]));
    return version;
  }

  // deno-lint-ignore require-await -- the interface asks for a promise
  async [Symbol.asyncDispose](): Promise<void> {
    this.#families.clear();
    this.#entries = this.#bytes = 0;
  }

  /** Refuses what would not fit, even when all that is over is gone. */
  #makeRoom(writes: readonly Write[], made: readonly (Kept | undefined)[]): void {
    if (this.#fits(writes, made)) return;
    this.#purge();
    if (this.#fits(writes, made)) return;
    const most = `${this.#maxEntries} entries of ${this.#maxBytes} bytes together`;
    throw new StoreError("full", `keeping a value: expected room in memory, got a store with at most ${most}`);
  }

  #fits(writes: readonly Write[], made: readonly (Kept | undefined)[]): boolean {
    const old = writes.map(({ key }) => this.#kept(key));
    const entries = this.#entries + count(made) - count(old);
    const bytes = this.#bytes + bytesOf(made) - bytesOf(old);
    return entries <= this.#maxEntries && bytes <= this.#maxBytes || (entries <= this.#entries && bytes <= this.#bytes);
  }

  #purge(): void {
    const now = this.#clock();
    for (const family of this.#families.values()) {
      for (const kept of family.values()) if (!isLive(kept, now)) this.#replace(kept.key, undefined);
    }
  }

  #live(key: StoreKey): Kept | undefined {
    const kept = this.#kept(key);
    return kept && isLive(kept, this.#clock()) ? kept : undefined;
  }

  #kept(key: StoreKey): Kept | undefined {
    return this.#families.get(JSON.stringify(key.slice(0, -1)))?.get(key.at(-1)!);
  }

  #replace(key: StoreKey, kept: Kept | undefined): void {
    const old = this.#kept(key);
    this.#entries += count([kept]) - count([old]);
    this.#bytes += bytesOf([kept]) - bytesOf([old]);
    const name = JSON.stringify(key.slice(0, -1));
    const family = this.#families.get(name) ?? new Map();
    if (kept) family.set(key.at(-1)!, kept);
    else family.delete(key.at(-1)!);
    if (family.size > 0) this.#families.set(name, family);
    else this.#families.delete(name);
  }
}

function entryOf<T>({ key, bytes, version }: Kept): Entry<T> {
  return { key: [...key], value: decode(bytes), version };
}

function count(all: readonly (Kept | undefined)[]): number {
  return all.filter((kept) => kept !== undefined).length;
}

function bytesOf(all: readonly (Kept | undefined)[]): number {
  return all.reduce((sum, kept) => sum + (kept?.bytes.length ?? 0), 0);
}

/** KV's order: texts before numbers, texts by their code points. */
function compare(a: string | number, b: string | number): number {
  if (typeof a === "number" || typeof b === "number") {
    return typeof a === typeof b ? Number(a) - Number(b) : typeof a === "string" ? -1 : 1;
  }
  const [left, right] = [[...a], [...b]];
  const index = left.findIndex((char, i) => char !== right[i]);
  if (index < 0) return left.length - right.length;
  return (left[index]!.codePointAt(0)!) - (right[index]?.codePointAt(0) ?? -1);
}
