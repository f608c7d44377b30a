/**
 * From `--model` to a loaded engine, with progress on the way. Shared by all commands that use a model.
 *
 * @module
 */
import { basename } from "node:path";
import type { Engine, EngineName } from "../engine/mod.ts";
import { modelsDir, parseModelRef } from "../models/cache.ts";
import type { CatalogueEntry } from "../models/catalogue.ts";
import { createReporter, type Reporter } from "../models/progress.ts";
import type { Deps } from "./deps.ts";
import type { FlagValues } from "./flags.ts";
import { progressStyle } from "./terminal.ts";

/** Loading is shown when it takes longer than this many milliseconds. */
const LOADING_DELAY_MS = 700;

/** A model file and its names. */
export interface LocatedModel {
  path: string;
  /** The name of the catalogue, or the file's without its ending. */
  id: string;
  /** The file's own name. */
  file: string;
}

/** The reporter for this terminal. */
export function reporterFor({ terminal, now }: Deps, quiet: boolean | undefined): Reporter {
  const style = progressStyle(terminal, quiet);
  return createReporter({ style, now, write: (text) => terminal.err(text), columns: () => terminal.columns() });
}

/** The file that `--model` names, fetched if need be. */
export async function locateModel(deps: Deps, values: FlagValues): Promise<LocatedModel> {
  const ref = parseModelRef(values.model!);
  if (ref.kind === "entry") {
    return { path: await pullEntry(deps, ref.entry, values.quiet), id: ref.entry.id, file: ref.entry.file };
  }
  const file = basename(ref.path);
  return { path: ref.path, id: file.replace(/\.gguf$/i, ""), file };
}

/** Fetch an entry of the catalogue into the cache of this machine. */
export function pullEntry(deps: Deps, entry: CatalogueEntry, quiet: boolean | undefined): Promise<string> {
  return deps.pull(entry, { dir: modelsDir((name) => deps.terminal.env(name)), reporter: reporterFor(deps, quiet) });
}

/** Load a model. */
export async function loadModel(deps: Deps, { path, id }: LocatedModel, values: FlagValues): Promise<Engine> {
  const reporter = reporterFor(deps, values.quiet);
  using progress = reporter.start(`loading ${id}`, { delayMs: LOADING_DELAY_MS, summary: false });
  const onProgress = (at: { done: number; total: number }) => progress.update(at.done, at.total);
  const onFallback = (sentence: string) => values.quiet || deps.terminal.err(`llamero: ${sentence}\n`);
  // The table of flags allows no other names.
  const engine = values.engine as EngineName | undefined;
  return await deps.openEngine({ model: path, engine, contextLength: values.context, onFallback, onProgress });
}
