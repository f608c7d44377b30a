/**
 * What `--store` means: where the served program keeps conversations and responses.
 *
 * @module
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { cacheDir } from "../models/cache.ts";
import { onDisk } from "../models/error.ts";
import { MemoryStore } from "../sessions/memory_store.ts";
import type { Store } from "../sessions/store.ts";
import type { Deps } from "./deps.ts";
import { CommandError } from "./errors.ts";
import type { FlagValues } from "./flags.ts";

/** The value of `--store` that keeps nothing beyond the end of the program. */
const MEMORY = "memory";
/** Name of the database in the cache folder. */
export const STORE_FILE = "conversations.sqlite";

/** The store that is wanted; fails with a sentence for the person. */
export async function openStore(deps: Deps, values: FlagValues): Promise<Store> {
  if (values.store === MEMORY) return new MemoryStore();
  const place = values.store ?? await defaultPlace(deps);
  try {
    return await deps.openStore(place);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new CommandError(`opening the store ${place} failed: ${reason}; choose another with --store`, {
      cause: error,
    });
  }
}

async function defaultPlace({ terminal }: Deps): Promise<string> {
  const dir = cacheDir((name) => terminal.env(name));
  await onDisk(`making the folder ${dir}`, () => mkdir(dir, { recursive: true }));
  return join(dir, STORE_FILE);
}
