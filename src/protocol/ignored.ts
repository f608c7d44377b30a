/**
 * Fields that a request has and that do nothing: they are taken, as clients send such fields by habit, and named in the
 * answer, so that nobody has to guess.
 *
 * @module
 */

/** Most names of ignored fields that a reply repeats. */
export const MAX_IGNORED = 32;

/** Names of the fields of `value` that are not `known`; only such as may stand in a header. */
export function ignoredFields(value: unknown, known: Readonly<Record<string, unknown>>, prefix = ""): string[] {
  const unused = Object.entries(value ?? {}).filter(([name, field]) =>
    field !== null && !Object.hasOwn(known, name) && /^\w{1,32}$/.test(name)
  );
  return unused.slice(0, MAX_IGNORED).map(([name]) => prefix + name);
}
