/**
 * From `--model` to a loaded engine, with progress on the way. Shared by all commands that use a model.
 *
 * @module
 */
import { basename, dirname, join, resolve } from "node:path";
import type { Engine, EngineName, Speculate } from "../engine/mod.ts";
import { modelsDir, packedDir, parseModelRef } from "../models/cache.ts";
import type { CatalogueEntry } from "../models/catalogue.ts";
import { ModelError } from "../models/error.ts";
import { createReporter, type Reporter } from "../models/progress.ts";
import type { Deps } from "./deps.ts";
import type { FlagValues } from "./flags.ts";
import { progressStyle } from "./terminal.ts";

/** Loading is shown when it takes longer than this many milliseconds. */
const LOADING_DELAY_MS = 700;

/** A model and its names. */
export interface LocatedModel {
  /** A folder, or one of its files. */
  path: string;
  /** The name of the catalogue, or the file's (without its ending) or folder's. */
  id: string;
  /** The file's or folder's own name. */
  file: string;
}

/** The reporter for this terminal. */
export function reporterFor({ terminal, now }: Deps, quiet: boolean | undefined): Reporter {
  const style = progressStyle(terminal, quiet);
  return createReporter({ style, now, write: (text) => terminal.err(text), columns: () => terminal.columns() });
}

/** The folders that `--lora` names. */
export function adapters({ lora }: FlagValues): string[] {
  return lora?.split(",").filter((folder) => folder !== "").map((folder) => resolve(folder)) ?? [];
}

/** The folder or file that `--model` names, fetched if need be. */
export async function locateModel(deps: Deps, values: FlagValues): Promise<LocatedModel> {
  const ref = parseModelRef(values.model!);
  if (ref.kind === "entry") {
    return { path: await pullEntry(deps, ref.entry, values.quiet), id: ref.entry.id, file: ref.entry.file };
  }
  const file = basename(resolve(ref.path));
  // A file that every folder has says nothing; the folder's name does.
  const named = /^(model|pytorch_model|model_state)\b/.test(file) ? basename(dirname(resolve(ref.path))) : file;
  return { path: ref.path, id: named.replace(/\.(gguf|safetensors|bin|pdparams)$/i, ""), file };
}

/** Fetch an entry of the catalogue into the cache of this machine. */
export function pullEntry(deps: Deps, entry: CatalogueEntry, quiet: boolean | undefined): Promise<string> {
  return deps.pull(entry, { dir: modelsDir((name) => deps.terminal.env(name)), reporter: reporterFor(deps, quiet) });
}

/** Load a model. */
export async function loadModel(deps: Deps, { path, id }: LocatedModel, values: FlagValues): Promise<Engine> {
  const reporter = reporterFor(deps, values.quiet);
  const onFallback = (sentence: string) => values.quiet || deps.terminal.err(`llamero: ${sentence}\n`);
  // The table of flags allows no other names.
  const engine = values.engine as EngineName | undefined;
  const made = await quantized(deps, { path, id }, values);
  using progress = reporter.start(`loading ${id}`, { delayMs: LOADING_DELAY_MS, summary: false });
  const onProgress = (at: { done: number; total: number }) => progress.update(at.done, at.total);
  const lora = made === undefined ? adapters(values) : [];
  const opened = await deps.openEngine({
    model: made ?? path,
    lora,
    draft: values.draft,
    speculate: values.speculate as Speculate | undefined,
    engine,
    device: values.device,
    kv: values.kv,
    packed: packedFolder(deps, values),
    contextLength: values.context,
    onFallback,
    onProgress,
  });
  const { notMapped } = opened.model;
  if (notMapped !== undefined) onFallback(`weights are packed at each start, which takes longer: ${notMapped}`);
  return opened;
}

/** Where packed weights are kept; a machine that has no place for that packs them at each start. */
function packedFolder({ terminal }: Deps, { packed }: FlagValues): string | undefined {
  if (packed === "memory") return undefined;
  try {
    return packedDir((name) => terminal.env(name));
  } catch (error) {
    if (error instanceof ModelError) return undefined;
    throw error;
  }
}

/** The model with the weights that `--quantize` asks for, made unless it is in the cache; nothing without the flag. */
async function quantized(
  deps: Deps,
  { path, id }: Omit<LocatedModel, "file">,
  values: FlagValues,
): Promise<string | undefined> {
  const { quantize: type, quiet } = values;
  if (type === undefined) return undefined;
  const folder = join(modelsDir((name) => deps.terminal.env(name)), "quantized");
  using progress = reporterFor(deps, quiet).start(`quantizing ${id} (${type}, once)`, {
    delayMs: LOADING_DELAY_MS,
    summary: false,
  });
  const onProgress = (at: { done: number; total: number }) => progress.update(at.done, at.total);
  const source = { path, lora: adapters(values) };
  const made = await deps.runTask({ task: "cache", source, folder, file_type: type }, { onProgress });
  progress.finish();
  return String(made.path);
}
