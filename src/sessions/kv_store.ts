/**
 * A store in Deno KV: a file of this machine, or a database elsewhere. The database is handed in, open.
 *
 *     [...namespace, "entry", number of parts, ...key]  →  the value as JSON, or where its chunks are
 *     [...namespace, "chunk", generation, number]       →  a piece of a value that is too large for one entry
 *     [...namespace, "pending", id]                     →  the generation of chunks that belong to no entry yet
 *
 * Chunks of a new value are written first, under a generation that nobody has used, together with a note that they are
 * pending. One atomic operation then checks the version, points the entry at the new chunks, removes the old ones and the
 * note. So whenever the process ends, the old value or the new one is there as a whole, and chunks of neither have a note,
 * by which a later commit removes them.
 *
 * @module
 */

import { checkKey, checkWrite, decode, encode, isLive } from "./entry.ts";
import type { Entry, Store, StoreKey, Write } from "./store.ts";

/** Largest value that stands in its entry; KV's limit is 64 KiB, with what wraps it. */
export const MAX_INLINE_BYTES = 60 * 1024;
/** Size of a chunk: KV's largest value. */
export const CHUNK_BYTES = 64 * 1024;
/** Chunks of one atomic operation: below KV's limit of 800 KiB. */
const CHUNKS_PER_WRITE = 12;
/** Keys of one read: KV's limit. */
const KEYS_PER_READ = 10;
/** After this time chunks that are not committed are taken for those of a process that has died. */
export const ABANDONED_MS = 10 * 60 * 1000;
/** Notes of abandoned chunks that one commit follows at most. */
const NOTES_PER_COMMIT = 10;
/** Chunks outlive their entry by this, so that no reader finds an entry without them. */
const CHUNK_GRACE_MS = 60 * 60 * 1000;
/** How often a read or a commit begins again when others are faster each time. */
const MAX_TRIES = 100;

/** How often a call is made again while another process writes to the same file: for some ten seconds in all. */
const BUSY_TRIES = 100;
/** Longest pause between two such calls, in milliseconds. */
const BUSY_MS = 100;

/** The place of a value in KV, as `Deno.KvKey` has it. */
export type KvKey = readonly (string | number)[];

/** A value in KV, as `Deno.KvEntryMaybe` has it. */
export interface KvEntry {
  key: readonly unknown[];
  value: unknown;
  versionstamp: string | null;
}

/** Changes that are made together, as `Deno.AtomicOperation` makes them. */
export interface KvAtomic {
  check(...checks: { key: KvKey; versionstamp: string | null }[]): KvAtomic;
  set(key: KvKey, value: unknown, options?: { expireIn?: number }): KvAtomic;
  delete(key: KvKey): KvAtomic;
  commit(): Promise<{ ok: boolean; versionstamp?: string }>;
}

/** What is needed of a `Deno.Kv`. */
export interface Kv {
  getMany(keys: KvKey[]): Promise<KvEntry[]>;
  list(selector: { prefix: KvKey }, options?: { limit?: number }): AsyncIterable<KvEntry>;
  atomic(): KvAtomic;
  close(): void;
}

/** Options of a store in KV. */
export interface KvStoreOptions {
  /** Where in the database its keys begin. */
  namespace?: StoreKey;
  /** Milliseconds since 1970. Default `Date.now`. */
  clock?: () => number;
  /** A new id that nobody has used. Default: a random UUID. */
  newId?: () => string;
  /** Waits for milliseconds. Default: a timer. */
  pause?: (ms: number) => Promise<void>;
}

/** Chunks of one value. */
interface Chunks {
  generation: string;
  count: number;
}

/** What stands in an entry: the bytes of the value, or where they are. */
interface Head {
  bytes?: Uint8Array;
  chunks?: Chunks;
  expiresAt?: number;
}

/** Chunks on their way into an entry. */
interface Pending {
  /** A list in the database; no more than one has been in it. */
  chunks: [Chunks];
  /** When whoever writes them must have died. */
  abandonedAt: number;
}

/** The same as it stands in the database. */
interface Note {
  key: KvKey;
  versionstamp: string;
  chunks: Chunks;
}

/** A value on its way into chunks. */
interface Large {
  chunks: Chunks;
  bytes: Uint8Array;
  ttlMs?: number;
}

/** An entry as it was read. */
interface Found {
  versionstamp: string | null;
  head?: Head;
}

/** A store in KV, which is closed with it. */
export class KvStore implements Store {
  readonly #kv: Kv;
  readonly #namespace: StoreKey;
  readonly #clock: () => number;
  readonly #newId: () => string;
  readonly #pause: (ms: number) => Promise<void>;

  /** The store in an open database. */
  constructor(kv: Kv, options: KvStoreOptions = {}) {
    const { namespace = ["llamero"], clock = Date.now, newId = () => crypto.randomUUID(), pause = timer } = options;
    this.#kv = kv;
    this.#namespace = namespace;
    this.#clock = clock;
    this.#newId = newId;
    this.#pause = pause;
  }

  async get<T>(key: StoreKey): Promise<Entry<T> | undefined> {
    checkKey(key);
    let seen: string | null = null;
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const { versionstamp, head } = await this.#read(key);
      if (!head || !isLive(head, this.#clock())) return undefined;
      const bytes = await this.#bytes(head);
      if (bytes) return { value: decode(bytes), version: versionstamp! };
      // Somebody replaced the value meanwhile; then the next look finds another one.
      if (versionstamp === seen) throw new Error(`reading ${JSON.stringify(key)}: expected all chunks, got some`);
      seen = versionstamp;
    }
    throw tooOften("reading", key);
  }

  async commit(write: Write): Promise<string | undefined> {
    checkWrite(write);
    const { head, large } = this.#made(write);
    let note: Note | undefined;
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const found = await this.#read(write.key);
      if (!this.#holds(write, found)) {
        if (note) await this.#remove(note);
        return undefined;
      }
      if (large) note ??= await this.#writeChunks(large);
      const version = await this.#swap(write, head, found, note);
      if (version) return version;
    }
    throw tooOften("committing", write.key);
  }

  // deno-lint-ignore require-await -- the interface asks for a promise
  async [Symbol.asyncDispose](): Promise<void> {
    this.#kv.close();
  }

  /** What will stand in the entry, and what goes into chunks before. */
  #made({ value, ttlMs }: Write): { head?: Head; large?: Large } {
    if (value === undefined) return {};
    const bytes = encode(value);
    const expiresAt = ttlMs === undefined ? undefined : this.#clock() + ttlMs;
    if (bytes.length <= MAX_INLINE_BYTES) return { head: { bytes, expiresAt } };
    const chunks = { generation: this.#newId(), count: Math.ceil(bytes.length / CHUNK_BYTES) };
    return { head: { chunks, expiresAt }, large: { chunks, bytes, ttlMs } };
  }

  #holds({ expect }: Write, { head, versionstamp }: Found): boolean {
    return expect === undefined || (head && isLive(head, this.#clock()) ? versionstamp : null) === expect;
  }

  /** The one moment in which everything changes; `undefined` when somebody was faster. */
  async #swap({ key, ttlMs }: Write, head: Head | undefined, found: Found, note?: Note): Promise<string | undefined> {
    const place = this.#entryKey(key);
    const operation = this.#kv.atomic().check({ key: place, versionstamp: found.versionstamp });
    if (head) operation.set(place, head, { expireIn: ttlMs });
    else operation.delete(place);
    for (const chunk of this.#chunkKeys(found.head?.chunks)) operation.delete(chunk);
    if (note) operation.check(note).delete(note.key);
    const { ok, versionstamp } = await this.#patiently(() => operation.commit());
    return ok ? versionstamp : undefined;
  }

  async #writeChunks(large: Large): Promise<Note> {
    await this.#removeAbandoned();
    const { chunks } = large;
    const key = [...this.#namespace, "pending", this.#newId()];
    const pending: Pending = { chunks: [chunks], abandonedAt: this.#clock() + ABANDONED_MS };
    const pieces = this.#pieces(large);
    let operation = this.#kv.atomic().set(key, pending);
    let versionstamp: string | undefined;
    for (let start = 0; start < pieces.length; start += CHUNKS_PER_WRITE) {
      for (const { key, value, options } of pieces.slice(start, start + CHUNKS_PER_WRITE)) {
        operation.set(key, value, options);
      }
      const batch = operation;
      const written = await this.#patiently(() => batch.commit());
      versionstamp ??= written.versionstamp;
      operation = this.#kv.atomic();
    }
    return { key, versionstamp: versionstamp!, chunks };
  }

  #pieces({ chunks, bytes, ttlMs }: Large) {
    const options = { expireIn: ttlMs && ttlMs + CHUNK_GRACE_MS };
    return this.#chunkKeys(chunks).map((key, index) => {
      return { key, value: bytes.slice(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES), options };
    });
  }

  async #removeAbandoned(): Promise<void> {
    const notes = this.#kv.list({ prefix: [...this.#namespace, "pending"] }, { limit: NOTES_PER_COMMIT });
    for await (const { key, value, versionstamp } of notes) {
      const { chunks: [chunks], abandonedAt } = value as Pending;
      if (this.#clock() < abandonedAt) continue;
      const place = key as KvKey;
      // A new version: should somebody be about to commit these chunks after all, it will not succeed.
      const take = this.#kv.atomic().check({ key: place, versionstamp }).set(place, value);
      const taken = await this.#patiently(() => take.commit());
      if (taken.ok) await this.#remove({ key: place, chunks });
    }
  }

  async #remove({ key, chunks }: Pick<Note, "key" | "chunks">): Promise<void> {
    const operation = this.#kv.atomic();
    for (const chunk of this.#chunkKeys(chunks)) operation.delete(chunk);
    await this.#patiently(() => operation.delete(key).commit());
  }

  async #read(key: StoreKey): Promise<Found> {
    const [entry] = await this.#patiently(() => this.#kv.getMany([this.#entryKey(key)]));
    const { value, versionstamp } = entry!;
    return { versionstamp, head: value as Head | null ?? undefined };
  }

  /** The bytes of a value; `undefined` when chunks are missing. */
  async #bytes({ bytes, chunks }: Head): Promise<Uint8Array | undefined> {
    if (bytes) return bytes;
    const keys = this.#chunkKeys(chunks);
    const starts = Array.from({ length: Math.ceil(keys.length / KEYS_PER_READ) }, (_, i) => i * KEYS_PER_READ);
    const read = (start: number) => this.#patiently(() => this.#kv.getMany(keys.slice(start, start + KEYS_PER_READ)));
    const pieces = (await Promise.all(starts.map(read))).flat().map(({ value }) => value as Uint8Array | null);
    return pieces.every((piece) => piece !== null) ? concat(pieces) : undefined;
  }

  /** SQLite refuses a call, and does nothing of it, while another process has the file. */
  async #patiently<T>(call: () => Promise<T>): Promise<T> {
    for (let tries = 1;; tries++) {
      try {
        return await call();
      } catch (error) {
        if (tries >= BUSY_TRIES || !(error instanceof Error && /database is locked/.test(error.message))) throw error;
        await this.#pause(Math.min(2 ** tries, BUSY_MS));
      }
    }
  }

  #entryKey(key: StoreKey): KvKey {
    return [...this.#namespace, "entry", key.length, ...key];
  }

  #chunkKeys(chunks: Chunks | undefined): KvKey[] {
    if (!chunks) return [];
    const { generation, count } = chunks;
    return Array.from({ length: count }, (_, number) => [...this.#namespace, "chunk", generation, number]);
  }
}

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let end = 0;
  for (const piece of pieces) {
    whole.set(piece, end);
    end += piece.length;
  }
  return whole;
}

function timer(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function tooOften(action: string, key: StoreKey): Error {
  return new Error(`${action} ${JSON.stringify(key)}: expected an end of changes by others, got ${MAX_TRIES} of them`);
}
