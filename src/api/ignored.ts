/**
 * Where a client finds out which of its fields did nothing.
 *
 * @module
 */

import type { Context } from "hono";

/** Names the fields of a request that did nothing. */
export const IGNORED_HEADER = "x-llamero-ignored";

/** Lets the answer name fields that did nothing. */
export function nameIgnored(c: Context, ignored: readonly string[]): void {
  if (ignored.length > 0) c.header(IGNORED_HEADER, ignored.join(", "));
}
