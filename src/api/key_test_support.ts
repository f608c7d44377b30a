/**
 * A ring of one key, for tests.
 *
 * @module
 */

import { KeyRing, newKey, parseKeys, type WireKey } from "./keys.ts";

/** The key of `alice`, and a ring with it. */
export async function keyed(fields: Partial<Omit<WireKey, "sha256">> = {}, clock?: () => number) {
  const { key, line } = await newKey({ name: "alice", ...fields });
  const parsed = parseKeys(line);
  return { key, line, parsed, keys: new KeyRing(parsed, clock) };
}
