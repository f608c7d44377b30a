/**
 * Failures on the way to a model file, each one sentence: what was attempted, what was expected, what came.
 *
 * @module
 */

/** A model file cannot be had, and trying another source would not help. */
export class ModelError extends Error {
  override readonly name: string = "ModelError";
}

/** One source failed; the next one may still deliver. */
export class SourceError extends ModelError {
  override readonly name = "SourceError";
}

/** What a failed file operation means to the person in front of it. */
const DISK_REASONS: Readonly<Record<string, string>> = {
  EACCES: "no permission",
  EDQUOT: "the disk quota is used up",
  EFBIG: "the file system does not take files this large",
  EISDIR: "it is a folder",
  ENOENT: "no such file or folder",
  ENOSPC: "the disk is full",
  ENOTDIR: "a part of the path is not a folder",
  EPERM: "not permitted",
  EROFS: "the file system is read-only",
};

/** The sentence for a file operation that failed: `action` is what was attempted, such as `writing /a/b`. */
export function diskError(action: string, cause: unknown): ModelError {
  if (cause instanceof ModelError) return cause;
  return new ModelError(`${action} failed: ${diskReason(cause)}`, { cause });
}

/** Run a file operation; a failure becomes `diskError`. */
export async function onDisk<T>(action: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw diskError(action, error);
  }
}

function diskReason(cause: unknown): string {
  // Deno gives most system errors a class and a code; a missing permission of Deno itself names its own flag.
  const code = (cause as { code?: unknown } | null)?.code;
  if (typeof code === "string" && DISK_REASONS[code]) return DISK_REASONS[code];
  return cause instanceof Error ? lowerFirst(cause.message) : String(cause);
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
