/**
 * Keys as files and commands: `llamero key` makes one, `serve` reads them and reads them again when it is told to.
 *
 * @module
 */
import { type Key, KeyFileError, KeyRing, newKey, parseKeys, plainKey, type WireKey } from "../api/keys.ts";
import type { Deps } from "./deps.ts";
import { CommandError, UsageError } from "./errors.ts";
import { readSmallFile } from "./files.ts";
import type { FlagValues, Parsed } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

/** A key for those who want one and no file. */
export const KEY_VARIABLE = "LLAMERO_API_KEY";

/** The command: the line for the file goes to standard output, the key itself is shown once, on standard error. */
export async function key({ terminal }: Deps, { values, positionals }: Parsed): Promise<number> {
  const [name, ...more] = positionals;
  if (name === undefined || more.length > 0) {
    throw new UsageError(`llamero key: expected one name, got ${positionals.join(" ") || "nothing"}`);
  }
  const made = await sentences(() => newKey(withoutMissing({ name, ...limitsOf(values) })));
  if (values.json) terminal.out(`${JSON.stringify({ key: made.key, line: made.line })}\n`);
  else {
    terminal.err(`llamero: the key of ${name}, shown this once: ${made.key}\n`);
    terminal.out(`${made.line}\n`);
  }
  return 0;
}

function limitsOf(values: FlagValues): Omit<WireKey, "name" | "sha256"> {
  return {
    models: values.models?.split(",").filter((model) => model !== ""),
    requests_per_minute: values["requests-per-minute"],
    tokens_per_minute: values["tokens-per-minute"],
    max_running: values["max-running"],
    max_waiting: values["max-waiting"],
    expires: values.expires,
  };
}

function withoutMissing<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}

/** The keys that `--keys` and the environment name; without any, everybody may come in. */
export async function keyRing(terminal: Terminal, values: FlagValues): Promise<KeyRing | undefined> {
  const keys = await readKeys(terminal, values);
  return keys.length === 0 ? undefined : await sentences(() => new KeyRing(keys));
}

/** Puts the keys in force that are in the file now, and tells how many; when it is broken, the old ones stay. */
export async function reloadKeys(ring: KeyRing, terminal: Terminal, values: FlagValues): Promise<number> {
  const keys = await readKeys(terminal, values);
  await sentences(() => ring.replace(keys));
  return keys.length;
}

async function readKeys(terminal: Terminal, { keys: path }: FlagValues): Promise<Key[]> {
  const plain = terminal.env(KEY_VARIABLE);
  return await sentences(async () => [
    ...path === undefined ? [] : parseKeys(await readSmallFile(path, (got) => unusable(path, got))),
    ...plain ? [await plainKey(KEY_VARIABLE, plain)] : [],
  ]);
}

function unusable(path: string, got: string): UsageError {
  return new UsageError(`--keys: expected a file of keys, as \`llamero key\` makes them, got ${got}: ${path}`);
}

/** What is wrong with keys, as a sentence for the person at the terminal. */
async function sentences<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof KeyFileError ? new CommandError(error.message, { cause: error }) : error;
  }
}
