/**
 * Metadata that a client keeps with a thing, for itself.
 *
 * @module
 */

import { z } from "zod";
import { text, wanted } from "./check.ts";

/** Most pairs of one thing. */
export const MAX_METADATA = 16;
/** Longest key of a pair, in UTF-16 code units. */
export const MAX_METADATA_KEY = 64;
/** Longest value of a pair, in UTF-16 code units. */
export const MAX_METADATA_VALUE = 512;

/** Texts by name. */
export type Metadata = Record<string, string>;

const few = wanted(`an object of at most ${MAX_METADATA} texts`);

/** Zod field of metadata. */
export const metadataField: z.ZodType<Metadata | null | undefined> = z.record(
  text(1, MAX_METADATA_KEY),
  text(0, MAX_METADATA_VALUE),
  few,
).refine((pairs) => Object.keys(pairs).length <= MAX_METADATA, few).nullish();
