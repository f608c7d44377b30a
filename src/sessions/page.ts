/**
 * A list in pages.
 *
 * @module
 */

import { SessionError } from "./error.ts";

/** Which page is wanted. */
export interface PageOptions {
  order: "asc" | "desc";
  limit: number;
  /** Begin behind the thing of this id. */
  after?: string;
}

/** A stretch of a list. */
export interface Page<T> {
  items: T[];
  /** Whether there is more behind it. */
  hasMore: boolean;
}

/** The page of a list that stands from the oldest to the newest. Throws `not_found` when `after` is not in it. */
export function pageOf<T extends { readonly id: string }>(
  all: readonly T[],
  { order, limit, after }: PageOptions,
): Page<T> {
  const ordered = order === "asc" ? all : all.toReversed();
  const start = after === undefined ? 0 : ordered.findIndex(({ id }) => id === after) + 1;
  if (start === 0 && after !== undefined) {
    throw new SessionError(
      "not_found",
      `after: expected the id of an item here, got ${JSON.stringify(after)}`,
      "after",
    );
  }
  return { items: ordered.slice(start, start + limit), hasMore: start + limit < ordered.length };
}
