/**
 * Small text files that flags name.
 *
 * @module
 */

/** Largest file: a tokenizer_config.json may have a megabyte, a model that was named by mistake has more. */
const MAX_FILE_BYTES = 2 ** 24;

/** The text of the file at `path`; `refusal` says what was expected instead of what is there. */
export async function readSmallFile(path: string, refusal: (got: string) => Error): Promise<string> {
  try {
    const { isDirectory, size } = await Deno.stat(path);
    if (isDirectory) throw refusal("a folder");
    if (size > MAX_FILE_BYTES) throw refusal(`a file of ${size} bytes, above ${MAX_FILE_BYTES}`);
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw refusal("nothing of that name");
    throw error instanceof Deno.errors.PermissionDenied ? refusal("a file that may not be read") : error;
  }
}
