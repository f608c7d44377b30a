/**
 * From a command line to an exit code.
 *
 * @module
 */
import { bench } from "./bench.ts";
import { chat } from "./chat.ts";
import { applyDelta, convert, quantize } from "./convert.ts";
import type { Deps } from "./deps.ts";
import { toFailure, UsageError } from "./errors.ts";
import { type CommandName, parseCommand, type Parsed, parseFlags } from "./flags.ts";
import { commandHelp, overview } from "./help.ts";
import { inspect } from "./inspect.ts";
import { perplexity } from "./perplexity.ts";
import { pull } from "./pull.ts";

type Command = (deps: Deps, parsed: Parsed) => number | Promise<number>;

const RUN: Record<Exclude<CommandName, "test">, Command> = {
  chat,
  // What only these need is loaded when they are asked for: it would be half the time that a start takes.
  serve: async (deps, parsed) => await (await import("./serve.ts")).serve(deps, parsed),
  key: async (deps, parsed) => await (await import("./keys.ts")).key(deps, parsed),
  pull,
  inspect,
  convert,
  quantize,
  "apply-delta": applyDelta,
  perplexity,
  bench,
  version,
  help,
};

/** Other ways to ask for a command, as people are used to from elsewhere. */
const SYNONYMS: Readonly<Record<string, CommandName>> = {
  "--help": "help",
  "-h": "help",
  "--version": "version",
  "-V": "version",
};

/** Run one command line. Failures become one sentence on standard error; only the exit code comes back. */
export async function run(args: readonly string[], deps: Deps): Promise<number> {
  try {
    return await dispatch(args, deps);
  } catch (error) {
    // Whoever read our output has left; there is nobody to tell.
    if (error instanceof Deno.errors.BrokenPipe) return 0;
    const { message, code } = toFailure(error);
    deps.terminal.err(`llamero: ${message}\n`);
    return code;
  }
}

async function dispatch([name = "help", ...args]: readonly string[], deps: Deps): Promise<number> {
  const command = SYNONYMS[name] ?? parseCommand(name);
  // The test script has a table of flags of its own.
  if (command === "test") return await deps.runTests(args);
  const parsed = parseFlags(command, args);
  if (!parsed.values.help) return await RUN[command](deps, parsed);
  deps.terminal.out(commandHelp(command));
  return 0;
}

function version({ terminal, version }: Deps): number {
  terminal.out(`llamero ${version}\n`);
  return 0;
}

function help({ terminal }: Deps, { positionals }: Parsed): number {
  const [name, ...more] = positionals;
  if (more.length > 0) throw new UsageError(`llamero help: expected one command, got ${positionals.join(" ")}`);
  terminal.out(name === undefined ? overview() : commandHelp(parseCommand(name)));
  return 0;
}
