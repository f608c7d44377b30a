/**
 * `llamero convert`, `llamero quantize` and `llamero apply-delta`: a model written down again, as GGUF when the output's
 * name ends with .gguf, else as a folder of safetensors.
 *
 * @module
 */
import { resolve } from "node:path";
import { format } from "@std/fmt/bytes";
import type { ModelSource } from "../engine/mod.ts";
import type { Deps } from "./deps.ts";
import { EXIT_INTERRUPTED, UsageError } from "./errors.ts";
import type { FlagValues, Parsed } from "./flags.ts";
import { adapters, locateModel, reporterFor } from "./model.ts";

/** What `convert` makes when nobody says: the type that most checkpoints are published in. */
const CONVERT_TYPE = "f16";
/** What `quantize` makes when nobody says: a quarter of the size, and hardly worse. */
const QUANTIZE_TYPE = "q4_k_m";

/** The command `convert SOURCE OUT`. */
export async function convert(deps: Deps, { values, positionals }: Parsed): Promise<number> {
  const [model, out, ...more] = positionals;
  if (model === undefined || out === undefined || more.length > 0) {
    throw usage("convert", "a model and an output", positionals);
  }
  const { path } = await locateModel(deps, { ...values, model });
  return await write(deps, { path, lora: adapters(values) }, out, values.type ?? CONVERT_TYPE, values);
}

/** The command `quantize SOURCE [OUT]`. */
export async function quantize(deps: Deps, { values, positionals }: Parsed): Promise<number> {
  const [model, out, ...more] = positionals;
  if (model === undefined || more.length > 0) throw usage("quantize", "a model and perhaps an output", positionals);
  const { path, id } = await locateModel(deps, { ...values, model });
  const type = values.type ?? QUANTIZE_TYPE;
  if (out !== undefined && !isGguf(out)) {
    throw new UsageError(
      `llamero quantize: expected an output that ends with .gguf, got ${out}; convert writes folders`,
    );
  }
  return await write(deps, { path, lora: adapters(values) }, out ?? `${id}-${type}.gguf`, type, values);
}

/** The command `apply-delta BASE DELTA OUT`. */
export async function applyDelta(deps: Deps, { values, positionals }: Parsed): Promise<number> {
  const [base, delta, out, ...more] = positionals;
  if (base === undefined || delta === undefined || out === undefined || more.length > 0) {
    throw usage("apply-delta", "a base, a delta and an output", positionals);
  }
  return await write(deps, { path: resolve(delta), base: resolve(base) }, out, values.type ?? CONVERT_TYPE, values);
}

async function write(deps: Deps, source: ModelSource, out: string, type: string, values: FlagValues): Promise<number> {
  const { terminal } = deps;
  const reporter = reporterFor(deps, values.quiet);
  const abort = new AbortController();
  using _signals = terminal.onSignal(["SIGINT", "SIGTERM"], () => abort.abort());
  using progress = reporter.start(`writing ${out} (${type})`);
  const target = isGguf(out) ? "gguf" : "safetensors";
  try {
    const made = await deps.runTask(
      { task: "convert", source, out: resolve(out), file_type: type, format: target, overwrite: values.force ?? false },
      { signal: abort.signal, onProgress: ({ done, total }) => progress.update(done, total) },
    );
    progress.finish();
    const line = values.json ? JSON.stringify(made) : `${made.path} (${format(made.bytes as number)})`;
    terminal.out(`${line}\n`);
    return 0;
  } catch (error) {
    if (!abort.signal.aborted) throw error;
    reporter.note("stopped; the same command goes on where this one ended");
    return EXIT_INTERRUPTED;
  }
}

function isGguf(out: string): boolean {
  return out.toLowerCase().endsWith(".gguf");
}

function usage(command: string, expected: string, got: readonly string[]): UsageError {
  return new UsageError(
    `llamero ${command}: expected ${expected}, got ${
      got.join(" ") || "nothing"
    }; llamero help ${command} shows examples`,
  );
}
