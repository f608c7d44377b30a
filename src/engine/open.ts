/**
 * Opening an engine for a model file: finds the core's library and loads the model into it.
 *
 * Absent here: downloading models, building the core.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import type { Engine } from "./engine.ts";
import { loadLibrary, NativeEngine, type NativeOptions } from "./native.ts";

/** Environment variable that names the core's library file. */
export const LIBRARY_VARIABLE = "LLAMERO_LIB";

/** Options of {@linkcode openEngine}. */
export interface OpenEngineOptions extends NativeOptions {
  /** Path of the core's library; default: {@linkcode libraryPath}. */
  library?: string;
}

/**
 * Open the model file `options.model` and wait until it can serve.
 *
 * @throws {EngineError} when the library or the model cannot be loaded.
 */
export async function openEngine(options: OpenEngineOptions): Promise<Engine> {
  const { library = libraryPath(), ...native } = options;
  return await NativeEngine.open(loadLibrary(library), native);
}

/** The core's library: what LLAMERO_LIB names (where reading it is permitted), else the release build of this checkout. */
export function libraryPath(): string {
  const { state } = Deno.permissions.querySync({ name: "env", variable: LIBRARY_VARIABLE });
  const named = state === "granted" ? Deno.env.get(LIBRARY_VARIABLE) : undefined;
  if (named !== undefined && named !== "") return named;
  return fileURLToPath(new URL(`../../target/release/${libraryName(Deno.build.os)}`, import.meta.url));
}

/** What cargo calls the library `llamero` on an operating system. */
export function libraryName(os: typeof Deno.build.os): string {
  if (os === "windows") return "llamero.dll";
  return os === "darwin" ? "libllamero.dylib" : "libllamero.so";
}
