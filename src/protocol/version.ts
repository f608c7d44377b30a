/**
 * The version that this program says it is; a test holds it to the one in `deno.json`, which not every runtime can read.
 *
 * @module
 */

/** Version of llamero. */
export const VERSION = "0.1.0";
