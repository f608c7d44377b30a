/**
 * A database whose calls a test can count, hold up and end.
 *
 * @module
 */

import type { Kv } from "./kv_store.ts";

/** Told of the calls of a database, counted from 1: before each begins, and when it is done. */
export type KvHook = (call: number, done: boolean) => void | Promise<void>;

/** The same database under a hook; closing it leaves the real one open. */
export function hookedKv(kv: Kv, hook: KvHook): Kv {
  let calls = 0;
  const hooked = async <T>(call: () => Promise<T>): Promise<T> => {
    const number = ++calls;
    await hook(number, false);
    const result = await call();
    await hook(number, true);
    return result;
  };
  return {
    getMany: (keys) => hooked(() => kv.getMany(keys)),
    async *list(...args) {
      yield* await hooked(() => Array.fromAsync(kv.list(...args)));
    },
    atomic() {
      const operation = kv.atomic();
      const commit = operation.commit.bind(operation);
      return Object.assign(operation, { commit: () => hooked(commit) });
    },
    close() {},
  };
}
