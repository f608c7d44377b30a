/**
 * Lists in pages, as OpenAI asks for them in the address of a request.
 *
 * @module
 */

import { z } from "zod";
import { check, text, wanted } from "./check.ts";
import { MAX_ID_LENGTH } from "./items.ts";

/** Most things of a page. */
export const MAX_PAGE = 100;
/** Things of a page when nobody says. */
const DEFAULT_PAGE = 20;

/** Which page is asked for. */
export interface PageQuery {
  order: "asc" | "desc";
  limit: number;
  /** Begin behind the thing of this id. */
  after?: string;
}

/** Zod field of an integer as an address has it. */
export function integerText(min: number, max: number): z.ZodType<number> {
  const options = wanted(`an integer from ${min} to ${max}`);
  const isIn = (digits: string) => Number(digits) >= min && Number(digits) <= max;
  return z.string(options).regex(/^-?\d{1,16}$/, options).refine(isIn, options).transform(Number);
}

/** What the query of a list may have. */
export const pageSchema = z.object({
  order: z.enum(["asc", "desc"], wanted('"asc" or "desc"')).default("desc"),
  limit: integerText(1, MAX_PAGE).optional(),
  after: text(1, MAX_ID_LENGTH).optional(),
});

/** The page that the query of an address asks for; throws `ProtocolError` naming the first field that does not fit. */
export function parsePageQuery(query: Record<string, string>): PageQuery {
  const { limit = DEFAULT_PAGE, ...page } = check(pageSchema, query);
  return { limit, ...page };
}

/** A page of a list. */
export interface WirePage<T> {
  object: "list";
  data: T[];
  first_id: string | null;
  last_id: string | null;
  has_more: boolean;
}

/** A page of things that have ids. */
export function wirePage<T extends { id: string }>(data: T[], hasMore: boolean): WirePage<T> {
  return {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: hasMore,
  };
}
