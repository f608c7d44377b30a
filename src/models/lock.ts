/**
 * One process at a time per model file. The kernel holds the lock (`flock`), so it ends with its process however that
 * dies: there is no stale lock to recognise. The empty lock file stays, because removing it would let two processes
 * lock two different files of the same name.
 *
 * @module
 */
import { delay } from "@std/async/delay";
import { onDisk } from "./error.ts";

/** How often a waiting process looks again, in milliseconds. */
const POLL_MS = 200;

/** Options of `lockFile`. */
export interface LockOptions {
  /** Called once when another process holds the lock. */
  onWait?: () => void;
  /** Stops the waiting; its reason is thrown. */
  signal?: AbortSignal | undefined;
}

/** Take the lock at `path`, waiting for whoever has it. Disposing the result gives it back. */
export async function lockFile(path: string, { onWait, signal }: LockOptions = {}): Promise<Disposable> {
  const file = await onDisk(`locking ${path}`, () => Deno.open(path, { create: true, write: true }));
  try {
    for (let tries = 0; !await file.tryLock(true); tries++) {
      if (tries === 0) onWait?.();
      await delay(POLL_MS, { signal });
    }
  } catch (error) {
    file.close();
    throw error;
  }
  return { [Symbol.dispose]: () => file.close() };
}
