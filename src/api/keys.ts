/**
 * Keys: who may use the server, and how a key is recognised. Only digests are kept, in a file as in memory, and a key is
 * compared with all of them in the same time whichever it matches.
 *
 * A file has one key per line, as JSON, besides empty lines and comments that begin with `#`:
 *
 *     {"name": "alice", "sha256": "9f86…", "requests_per_minute": 60, "expires": "2027-01-31"}
 *
 * Absent here on purpose: reading files, HTTP, keeping limits. SHA-256 without salt or rounds suffices because keys are
 * made of 32 random bytes (`newKey`), which nobody guesses.
 *
 * @module
 */

import { z } from "zod";
import { integerIn, text, wanted } from "../protocol/mod.ts";
import type { Caller, CallerLimits } from "./caller.ts";

/** Most keys of one file: each request is compared with all of them. */
export const MAX_KEYS = 4096;
/** Longest text that is looked at as a key, in UTF-16 code units. */
export const MAX_KEY_LENGTH = 512;
/** Bytes of a SHA-256 digest. */
const DIGEST_BYTES = 32;
/** Random bytes of a new key. */
const KEY_BYTES = 32;
/** What a new key begins with, so that people and scanners of leaked secrets know it. */
const KEY_PREFIX = "sk-llamero-";

/** A key as it is kept. */
export interface Key extends CallerLimits {
  /** Whose it is: unique in its file. */
  name: string;
  /** The SHA-256 digest of its text. */
  digest: Uint8Array;
  models?: readonly string[];
  /** Milliseconds since 1970. */
  expiresAt?: number;
}

/** A key file that is not one: says in which line, and never what may be a secret. */
export class KeyFileError extends Error {
  override readonly name = "KeyFileError";
}

const onlySaying = (phrase: string) => ({ error: () => `expected ${phrase}, got something else` });
const NAME = /^[\w.@-]{1,64}$/;
const wireKey = z.strictObject({
  name: z.string(onlySaying("1 to 64 letters, digits or .@_-")).regex(
    NAME,
    onlySaying("1 to 64 letters, digits or .@_-"),
  ),
  sha256: z.string(onlySaying("64 hexadecimal digits")).regex(/^[0-9a-f]{64}$/i, onlySaying("64 hexadecimal digits")),
  models: z.array(text(1, 256), wanted("a list of 1 to 64 names")).min(1).max(64).optional(),
  requests_per_minute: integerIn(1, 1_000_000).optional(),
  tokens_per_minute: integerIn(1, 2 ** 31 - 1).optional(),
  max_running: integerIn(1, 1024).optional(),
  max_waiting: integerIn(0, 1024).optional(),
  expires: z.union(
    [z.iso.date(), z.iso.datetime({ offset: true })],
    wanted("a date or time such as 2027-01-31 or 2027-01-31T12:00:00Z"),
  ).optional(),
}, {
  error: (issue) =>
    issue.code === "unrecognized_keys" ? `unknown field ${issue.keys.join(", ")}` : "expected an object",
});

/** The shape of one line of a key file. */
export type WireKey = z.infer<typeof wireKey>;

/**
 * The keys of a file's text.
 *
 * @throws {KeyFileError} for the first line that is not understood, and when there is no key at all.
 */
export function parseKeys(file: string): Key[] {
  const lines = file.split("\n").map((line, i) => ({ line: line.trim(), number: i + 1 }));
  const keys = lines.filter(({ line }) => line !== "" && !line.startsWith("#")).map(({ line, number }) =>
    parseLine(line, number)
  );
  if (keys.length === 0) throw new KeyFileError("reading keys: expected at least one key, got none");
  if (keys.length > MAX_KEYS) {
    throw new KeyFileError(`reading keys: expected at most ${MAX_KEYS} keys, got ${keys.length}`);
  }
  return keys;
}

function parseLine(line: string, number: number): Key {
  const result = wireKey.safeParse(valueOf(line));
  if (!result.success) {
    const [{ path, message }] = result.error.issues as [z.core.$ZodIssue];
    throw new KeyFileError(
      `reading keys, line ${number}: ${path.length > 0 ? `${z.core.toDotPath(path)}: ` : ""}${message}`,
    );
  }
  const { name, sha256, models, expires, ...limits } = result.data;
  return {
    name,
    digest: Uint8Array.fromHex(sha256),
    models,
    requestsPerMinute: limits.requests_per_minute,
    tokensPerMinute: limits.tokens_per_minute,
    maxRunning: limits.max_running,
    maxWaiting: limits.max_waiting,
    expiresAt: expires === undefined ? undefined : Date.parse(expires),
  };
}

function valueOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function assertUnique(keys: readonly Key[]): void {
  const names = new Set(keys.map(({ name }) => name));
  const digests = new Set(keys.map(({ digest }) => digest.toHex()));
  if (names.size < keys.length) throw new KeyFileError("reading keys: expected names that differ, got one twice");
  if (digests.size < keys.length) throw new KeyFileError("reading keys: expected keys that differ, got one twice");
}

/** A key that is given as it is, such as by an environment variable; it has no limits. */
export async function plainKey(name: string, key: string): Promise<Key> {
  if (key.length > MAX_KEY_LENGTH) {
    throw new KeyFileError(`${name}: expected at most ${MAX_KEY_LENGTH} characters, got more`);
  }
  return { name, digest: await digestOf(key) };
}

/** A new random key, and the line of a key file that stands for it. */
export async function newKey(fields: Omit<WireKey, "sha256">): Promise<{ key: string; line: string }> {
  const random = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const key = KEY_PREFIX + random.toBase64({ alphabet: "base64url", omitPadding: true });
  const { name, ...rest } = fields;
  const line = JSON.stringify({ name, sha256: (await digestOf(key)).toHex(), ...rest });
  parseKeys(line);
  return { key, line };
}

async function digestOf(key: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key)));
}

/** A key that is in force, and the end of all that is open for it. */
interface Held {
  key: Key;
  caller: Caller;
  revoke: AbortController;
}

/** The keys of a server. They can be exchanged while it runs. */
export class KeyRing {
  readonly #clock: () => number;
  #held: readonly Held[] = [];

  /** A ring of `keys`; `clock` tells milliseconds since 1970. */
  constructor(keys: readonly Key[], clock: () => number = Date.now) {
    this.#clock = clock;
    this.replace(keys);
  }

  /**
   * Puts `keys` in force instead of those that were. A key that stays keeps what is open for it and takes on its new
   * limits; the callers of the others are revoked.
   *
   * @throws {KeyFileError} when a name or a key is there twice; nothing is then changed.
   */
  replace(keys: readonly Key[]): void {
    assertUnique(keys);
    const before = new Map(this.#held.map((held) => [identityOf(held.key), held]));
    this.#held = keys.map((key) => held(key, before.get(identityOf(key))?.revoke ?? new AbortController()));
    const now = new Set(this.#held.map(({ revoke }) => revoke));
    for (const { revoke } of before.values()) if (!now.has(revoke)) revoke.abort();
  }

  /** The owner of a key, if it is in force. */
  async authenticate(token: string): Promise<Caller | undefined> {
    if (token.length > MAX_KEY_LENGTH) return undefined;
    const digest = await digestOf(token);
    let found: Held | undefined;
    // All of them, whichever it is: the time must not tell.
    for (const each of this.#held) if (areEqual(each.key.digest, digest)) found = each;
    return found === undefined || isOver(found.caller, this.#clock()) ? undefined : found.caller;
  }
}

/** Whether a caller's key has ended, by its date or because it was taken away. */
export function isOver({ expiresAt = Infinity, revoked }: Caller, now: number): boolean {
  return now >= expiresAt || revoked?.aborted === true;
}

function identityOf({ name, digest }: Key): string {
  return `${name} ${digest.toHex()}`;
}

function held(key: Key, revoke: AbortController): Held {
  const { name, models, expiresAt, requestsPerMinute, tokensPerMinute, maxRunning, maxWaiting } = key;
  const limits = { requestsPerMinute, tokensPerMinute, maxRunning, maxWaiting };
  return { key, revoke, caller: { id: `key:${name}`, name, models, limits, expiresAt, revoked: revoke.signal } };
}

/** Compares digests without a hint, in time, of where they differ. */
function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  let difference = 0;
  for (let i = 0; i < DIGEST_BYTES; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}
