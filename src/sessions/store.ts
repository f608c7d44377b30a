/**
 * Where conversations are kept: a few verbs that an in-memory map and Deno KV both offer, and that pass one contract.
 *
 * Absent here: what is kept, and whose it is.
 *
 * @module
 */

/** The place of a value: the parts of a path, most general first. Keys are ordered part by part. */
export type StoreKey = readonly (string | number)[];

/** A value that is kept. */
export interface Entry<T = unknown> {
  key: StoreKey;
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
}

/** Which entries below a prefix are listed. */
export interface ListOptions {
  /** Begin behind the key that ends with this part. */
  after?: string | number;
  /** From the last to the first. */
  reverse?: boolean;
  /** At most so many. */
  limit?: number;
}

/** A place for values. */
export interface Store extends AsyncDisposable {
  /** The value of a key, if it has one. */
  get<T>(key: StoreKey): Promise<Entry<T> | undefined>;
  /** The entries whose keys are `prefix` and one more part, in order. */
  list<T>(prefix: StoreKey, options?: ListOptions): Promise<Entry<T>[]>;
  /**
   * Make all changes or none, whatever happens to the process meanwhile.
   *
   * @returns the new version of what was written, or `undefined` when an `expect` does not hold.
   */
  commit(writes: readonly Write[]): Promise<string | undefined>;
}
