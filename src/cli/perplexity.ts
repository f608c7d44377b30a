/**
 * `llamero perplexity`: how well a model predicts a text file.
 *
 * @module
 */
import { perplexity as measure, type PerplexitySoFar } from "../eval/perplexity.ts";
import type { Deps } from "./deps.ts";
import { CommandError, UsageError } from "./errors.ts";
import type { Parsed } from "./flags.ts";
import { loadModel, locateModel } from "./model.ts";

/** Shares of the text after which a line tells how far it is, where no line can be redrawn. */
const LINES = 10;

/** The command. */
export async function perplexity(deps: Deps, { values, positionals }: Parsed): Promise<number> {
  const [file] = positionals;
  if (file === undefined || positionals.length > 1) {
    throw new UsageError(`llamero perplexity: expected one text file, got ${positionals.join(" ") || "none"}`);
  }
  const text = await readText(file);
  const { window, windows: maxWindows } = values;
  const model = await locateModel(deps, values);
  // A window and the token that ends it; the cache of a whole context is not needed.
  await using engine = await loadModel(deps, model, { ...values, context: values.context ?? window! + 1 });
  const onProgress = values.quiet ? undefined : progressTo(deps);
  const result = await measure({ engine, text, window, maxWindows, onProgress });
  const { name, quantization, device } = engine.model;
  deps.terminal.out(
    values.json
      ? `${JSON.stringify({ model: model.file, name, quantization, device, file, window, ...result })}\n`
      : `perplexity ${figure(result)} over ${result.scored} tokens (${model.file}, ${quantization}, ${device})\n`,
  );
  return 0;
}

async function readText(file: string): Promise<string> {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await Deno.readFile(file));
  } catch (error) {
    const reason = error instanceof TypeError ? "expected UTF-8, got other bytes" : (error as Error).message;
    throw new CommandError(`reading ${file}: ${reason}`, { cause: error });
  }
}

/** One line that is redrawn on a terminal, a line now and then elsewhere. */
function progressTo({ terminal }: Deps): (so: PerplexitySoFar) => void {
  return (so) => {
    const { windows, ofWindows } = so;
    const line = `window ${windows} of ${ofWindows}: perplexity ${figure(so)}`;
    if (terminal.errIsTerminal) return terminal.err(`\r${line}${windows === ofWindows ? "\n" : " "}`);
    if (Math.floor(windows * LINES / ofWindows) > Math.floor((windows - 1) * LINES / ofWindows)) {
      terminal.err(`${line}\n`);
    }
  };
}

function figure({ perplexity, error }: PerplexitySoFar): string {
  return `${perplexity.toFixed(4)} ± ${error.toFixed(4)}`;
}
