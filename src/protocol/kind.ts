/**
 * Things that say by their `type` what they are, where other servers know more types than this one does: those are
 * refused as not supported, and not as a mistake.
 *
 * @module
 */

import { z } from "zod";
import { describe, wanted } from "./check.ts";

type Fields = Record<string, unknown>;

/** Zod schema of an object whose `type` is one of `types`; `why` says why others are not. `read` may add a missing type. */
export function ofType<T>(
  types: readonly string[],
  schema: z.ZodType<T>,
  why: string,
  read: (value: Fields) => Fields = (value) => value,
): z.ZodType<T> {
  const names = types.map((type) => `"${type}"`);
  const phrase = names.length > 1 ? `${names.slice(0, -1).join(", ")} or ${names.at(-1)}` : names[0];
  const got = (value: unknown) => `expected ${phrase}, got ${describe((value as Fields).type)}`;
  const isText = ({ type }: Fields) => typeof type === "string";
  const isKnown = ({ type }: Fields) => typeof type !== "string" || types.includes(type);
  return z.looseObject({}, wanted("an object")).transform(read)
    .refine(isText, { path: ["type"], error: ({ input }) => got(input) })
    .refine(isKnown, {
      path: ["type"],
      error: ({ input }) => `${got(input)}; ${why}`,
      params: { unsupported: true },
    })
    .pipe(schema as z.ZodType<T, Fields>);
}
