/**
 * What goes wrong, as one sentence for the person at the terminal, and the exit code that scripts see.
 *
 * @module
 */
import { ChatTemplateError } from "../chat/mod.ts";
import { EngineError } from "../engine/engine.ts";
import { PerplexityError } from "../eval/perplexity.ts";
import { ModelError } from "../models/error.ts";

/** Exit code of a failure. */
export const EXIT_FAILURE = 1;
/** Exit code of a command line that is not understood. */
export const EXIT_USAGE = 2;
/** Exit code after Ctrl-C: 128 and the number of SIGINT, as shells count it. */
export const EXIT_INTERRUPTED = 130;

/** A command line that is not understood. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** A failure that a command has already put into a sentence. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}

/** A thrown value as text for standard error, and its exit code. */
export interface Failure {
  message: string;
  code: number;
}

/** Failures whose message is a sentence for people already. */
const KNOWN = [EngineError, ChatTemplateError, ModelError, PerplexityError, CommandError] as const;

/** Any thrown value as a failure. Our own mistakes keep their stack, since a sentence would hide them. */
export function toFailure(error: unknown): Failure {
  if (error instanceof UsageError) return { message: error.message, code: EXIT_USAGE };
  if (KNOWN.some((kind) => error instanceof kind)) return { message: (error as Error).message, code: EXIT_FAILURE };
  if (error instanceof Deno.errors.NotCapable) return { message: permissionSentence(error), code: EXIT_FAILURE };
  const detail = error instanceof Error ? error.stack ?? error.message : String(error);
  return { message: `unexpected failure, please report it: ${detail}`, code: EXIT_FAILURE };
}

/** Deno says `Requires net access to "host", run again with the --allow-net flag`. */
function permissionSentence(error: Error): string {
  const [, what, flag] = /^Requires (.*), run again with the (--[\w-]+) flag/.exec(error.message) ?? [];
  return what && flag ? `missing Deno permission: expected ${what}; run deno with ${flag}` : error.message;
}
