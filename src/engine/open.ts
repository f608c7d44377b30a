/**
 * Opening an engine for a model file: finds the core, as a native library or as WebAssembly, and loads the model into it.
 *
 * Absent here: downloading models, building the core.
 *
 * @module
 */

import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type Engine, EngineError } from "./engine.ts";
import { loadLibrary, NativeEngine, type NativeOptions } from "./native.ts";
import { WasmEngine, type Weights } from "./wasm.ts";
import { workerLink } from "./wasm_link.ts";

/** Environment variable that names the core's library file. */
export const LIBRARY_VARIABLE = "LLAMERO_LIB";
/** Environment variable that names the folder of the core as WebAssembly. */
export const WASM_VARIABLE = "LLAMERO_WASM";

/** The engines that can be asked for; `auto` is native where that can be loaded, else wasm. */
export const ENGINE_NAMES = ["auto", "native", "wasm"] as const;
/** One of {@linkcode ENGINE_NAMES}. */
export type EngineName = (typeof ENGINE_NAMES)[number];

/** The generated glue and the module, as scripts/build_wasm.ts names them. */
const [GLUE, MODULE] = ["llamero.js", "llamero_bg.wasm"];
const WASM_BUILD_HINT = "build it with `deno task build:wasm`";
/** The file is read in chunks of this many bytes. */
const READ_BYTES = 1 << 20;

/** Options of {@linkcode openEngine}. */
export interface OpenEngineOptions extends NativeOptions {
  /** Which engine; default `auto`. */
  engine?: EngineName;
  /** Path of the core's library; default: {@linkcode libraryPath}. */
  library?: string;
  /** Folder of the core as WebAssembly; default: {@linkcode wasmPath}. */
  wasm?: string;
  /** Told when `auto` takes the slower engine: a sentence with the reason. */
  onFallback?: (sentence: string) => void;
}

/**
 * Open the model file `options.model` and wait until it can serve.
 *
 * @throws {EngineError} when the core or the model cannot be loaded.
 */
export async function openEngine(options: OpenEngineOptions): Promise<Engine> {
  const { engine = "auto", library = libraryPath(), wasm = wasmPath(), onFallback, ...load } = options;
  if (engine === "wasm") return await openWasm(wasm, load);
  let symbols;
  try {
    symbols = loadLibrary(library);
  } catch (error) {
    // WebAssembly has no other device, so it is no substitute for one.
    if (engine === "native" || onDevice(load) || !(error instanceof EngineError)) throw error;
    return await fallBack(error, wasm, load, onFallback);
  }
  return await NativeEngine.open(symbols, load);
}

/** Without the library: WebAssembly, and if that is not there either, both reasons. */
async function fallBack(
  reason: EngineError,
  wasm: string,
  load: NativeOptions,
  onFallback?: (sentence: string) => void,
): Promise<Engine> {
  if (!await exists(join(wasm, MODULE))) {
    throw new EngineError(reason.code, `${reason.message}; nor is there the core as WebAssembly: ${WASM_BUILD_HINT}`);
  }
  onFallback?.(`using the WebAssembly engine, which is slower, because the native one is not there: ${reason.message}`);
  return await openWasm(wasm, load);
}

/** How keys and values are kept in WebAssembly. */
const WASM_KV = "f16";

async function openWasm(folder: string, options: NativeOptions): Promise<Engine> {
  const { model, lora = [], draft, kv = WASM_KV, packed: _, ...load } = options;
  if (lora.length > 0) throw onlyGguf(`adapters for ${model}`);
  if (draft !== undefined) {
    throw new EngineError("unsupported", `opening a model: the WebAssembly engine takes no draft model, got ${draft}`);
  }
  if (kv !== WASM_KV) {
    const message = `opening a model: the WebAssembly engine keeps keys and values as ${WASM_KV}, got ${kv}`;
    throw new EngineError("unsupported", message);
  }
  if (onDevice(options)) {
    const message = `opening a model: expected the device cpu for the WebAssembly engine, got ${options.device}`;
    throw new EngineError("unsupported", message);
  }
  const module = await compile(join(folder, MODULE));
  const connect = workerLink(pathToFileURL(join(folder, GLUE)).href, module);
  return await WasmEngine.open({ ...load, connect, weights: () => readWeights(model) });
}

/** Whether another device than the CPU is asked for. */
function onDevice({ device = "cpu" }: NativeOptions): boolean {
  return device !== "cpu";
}

async function compile(file: string): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(await Deno.readFile(file));
  } catch (cause) {
    const message = `loading the engine ${file}: ${reasonOf(cause)}; ${WASM_BUILD_HINT}`;
    throw new EngineError("io", message, { cause });
  }
}

/** A model file as a stream. */
async function readWeights(path: string): Promise<Weights> {
  const { isFile, size } = await onFile(path, Deno.stat(path));
  if (!isFile) throw onlyGguf(`the folder ${path}`);
  if (size === 0) throw new EngineError("io", `opening ${path}: the file is empty`);
  return { stream: ReadableStream.from(readChunks(path)), bytes: size };
}

/** The edge has one format; the native core makes it from all others. */
function onlyGguf(got: string): EngineError {
  const message =
    `opening a model: expected a GGUF file for the WebAssembly engine, got ${got}; llamero convert makes one`;
  return new EngineError("unsupported", message);
}

/** The bytes of a file, in larger chunks than the `readable` of `Deno.FsFile` has. */
async function* readChunks(path: string): AsyncGenerator<Uint8Array> {
  using file = await onFile(path, Deno.open(path));
  for (;;) {
    const chunk = new Uint8Array(READ_BYTES);
    const read = await onFile(path, file.read(chunk));
    if (read === null) return;
    yield chunk.subarray(0, read);
  }
}

/** Trouble with a file as a sentence. */
async function onFile<T>(path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    const reason = cause instanceof Deno.errors.NotCapable
      ? `no permission; run deno with --allow-read=${path}`
      : reasonOf(cause);
    throw new EngineError("io", `reading ${path}: ${reason}`, { cause });
  }
}

async function exists(file: string): Promise<boolean> {
  return await Deno.stat(file).then(() => true, () => false);
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/** The core's library: what LLAMERO_LIB names (where reading it is permitted), else the release build of this checkout. */
export function libraryPath(): string {
  return named(LIBRARY_VARIABLE) ?? inCheckout(`target/release/${libraryName(Deno.build.os)}`);
}

/** The folder of the core as WebAssembly: what LLAMERO_WASM names, else the build of this checkout. */
export function wasmPath(): string {
  return named(WASM_VARIABLE) ?? inCheckout("target/wasm");
}

/** The value of an environment variable, where reading it is permitted. */
function named(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) || undefined : undefined;
}

function inCheckout(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

/** What cargo calls the library `llamero` on an operating system. */
export function libraryName(os: typeof Deno.build.os): string {
  if (os === "windows") return "llamero.dll";
  return os === "darwin" ? "libllamero.dylib" : "libllamero.so";
}
