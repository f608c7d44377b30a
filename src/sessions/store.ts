/**
 * Where conversations and responses are kept: two verbs that an in-memory map and Deno KV both offer, and that pass one
 * contract.
 *
 * Absent here: what is kept, and whose it is.
 *
 * @module
 */

/** The place of a value: the parts of a path, most general first. */
export type StoreKey = readonly string[];

/** A value that is kept. */
export interface Entry<T = unknown> {
  value: T;
  /** Changes with every write of the key. */
  version: string;
}

/** One change. */
export interface Write {
  key: StoreKey;
  /** A value that JSON can carry; absent: delete what is there. */
  value?: unknown;
  /** The version that must be there, `null` for none; absent: whatever is there. */
  expect?: string | null;
  /** Milliseconds after which the value is gone; absent: never. */
  ttlMs?: number;
  /** The value may be dropped before its time where room is short. */
  disposable?: true;
}

/** A place for values. */
export interface Store extends AsyncDisposable {
  /** The value of a key, if it has one. */
  get<T>(key: StoreKey): Promise<Entry<T> | undefined>;
  /**
   * Make a change as a whole or not at all, whatever happens to the process meanwhile.
   *
   * @returns the new version of the key, or `undefined` when `expect` does not hold.
   */
  commit(write: Write): Promise<string | undefined>;
}
