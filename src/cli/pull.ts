/**
 * `llamero pull`: fetch a known model and say where it is.
 *
 * @module
 */
import { CATALOGUE, DEFAULT_MODEL, findModel } from "../models/catalogue.ts";
import type { Deps } from "./deps.ts";
import { UsageError } from "./errors.ts";
import type { Parsed } from "./flags.ts";
import { pullEntry } from "./model.ts";

/** The command. The path is all that goes to standard output, so that scripts can use it. */
export async function pull(deps: Deps, { values, positionals }: Parsed): Promise<number> {
  const [name = DEFAULT_MODEL, ...more] = positionals;
  const entry = findModel(name);
  if (!entry || more.length > 0) {
    const known = CATALOGUE.map(({ id, summary }) => `${id} (${summary})`).join(", ");
    throw new UsageError(`llamero pull: expected one of: ${known}; got ${positionals.join(" ")}`);
  }
  deps.terminal.out(`${await pullEntry(deps, entry, values.quiet)}\n`);
  return 0;
}
