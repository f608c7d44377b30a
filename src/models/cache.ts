/**
 * Where model files live on this machine, and what `--model` means.
 *
 * @module
 */
import { isAbsolute, join } from "node:path";
import { CATALOGUE, type CatalogueEntry, findModel } from "./catalogue.ts";
import { ModelError } from "./error.ts";

/** Reads one environment variable; `undefined` or empty when it is not set. */
export type ReadEnv = (name: string) => string | undefined;

/** The folder for model files, inside the cache folder. */
export function modelsDir(env: ReadEnv): string {
  return join(cacheDir(env), "models");
}

/** The folder for packed weights, beside that for model files. */
export function packedDir(env: ReadEnv): string {
  return join(cacheDir(env), "packed");
}

/**
 * The folder for what llamero keeps: `$LLAMERO_CACHE`, else `$XDG_CACHE_HOME/llamero`, else `~/.cache/llamero`. A relative
 * `XDG_CACHE_HOME` is ignored, as the XDG base directory specification asks.
 */
export function cacheDir(env: ReadEnv): string {
  const own = env("LLAMERO_CACHE");
  if (own) return own;
  const xdg = env("XDG_CACHE_HOME");
  if (xdg && isAbsolute(xdg)) return join(xdg, "llamero");
  const home = env("HOME");
  if (!home) throw new ModelError("finding the cache folder failed: set LLAMERO_CACHE, XDG_CACHE_HOME or HOME");
  return join(home, ".cache", "llamero");
}

/** What `--model` points at: a folder or file, or an entry of the catalogue. */
export type ModelRef = { kind: "path"; path: string } | { kind: "entry"; entry: CatalogueEntry };

const PATH = /\/|^\.\.?$|\.(gguf|safetensors|bin|pt|pth|pdparams|index\.json)$/i;

/**
 * Read the value of `--model`. What has a slash, is a dot or ends like a model file is a path; another word is a name
 * of the catalogue.
 */
export function parseModelRef(value: string): ModelRef {
  if (PATH.test(value)) return { kind: "path", path: value };
  const entry = findModel(value);
  if (entry) return { kind: "entry", entry };
  const known = CATALOGUE.map((entry) => entry.id).join(", ");
  throw new ModelError(
    `opening model "${value}" failed: expected a path (with a slash in it, such as ./${value}) or one of: ${known}`,
  );
}
