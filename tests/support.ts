/**
 * What tests across the border share: the small model, the real one where it has been fetched, the core as WebAssembly
 * where it has been built, and a served program.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { wasmPath } from "../src/engine/mod.ts";
import type { Glue } from "../src/engine/wasm_core.ts";

/** A small model with random weights, made by scripts/make_model.py. */
export const TINY_MODEL = fileURLToPath(new URL("./fixtures/tiny-llama2.gguf", import.meta.url));

/** SmolLM2-135M-Instruct.Q4_1.gguf; `llamero test` fetches it and sets the variable. */
export const REAL_MODEL = Deno.env.get("LLAMERO_TEST_MODEL") || undefined;

/** Why a test of the real model is left out, where it is. */
export const NO_REAL_MODEL = REAL_MODEL === undefined
  ? "LLAMERO_TEST_MODEL does not name SmolLM2-135M-Instruct.Q4_1.gguf; `llamero test` sets it"
  : undefined;

/** The generated files of the core as WebAssembly. */
export const WASM_FILES = {
  glue: join(wasmPath(), "llamero.js"),
  module: join(wasmPath(), "llamero_bg.wasm"),
};

/** Why a test of the core as WebAssembly is left out, where it is. */
export const NO_WASM = existsSync(WASM_FILES.module)
  ? undefined
  : `${WASM_FILES.module} is not there; \`deno task build:wasm\` makes it`;

/** The generated glue and the module, for a core in this thread. */
export async function loadWasm(): Promise<{ glue: Glue; module: WebAssembly.Module }> {
  const glue: Glue = await import(pathToFileURL(WASM_FILES.glue).href);
  return { glue, module: await WebAssembly.compile(await Deno.readFile(WASM_FILES.module)) };
}

/** Registers a test, or its skipping with the first of `reasons` in its name. */
export function testUnless(reasons: readonly (string | undefined)[], name: string, body: () => Promise<void>): void {
  const reason = reasons.find((reason) => reason !== undefined);
  const note = reason === undefined ? "" : ` (skipped: ${reason})`;
  Deno.test(`${name}${note}`, { ignore: reason !== undefined }, body);
}

const CONFIG = fileURLToPath(new URL("../deno.json", import.meta.url));

/** Everything but FFI. */
export const WITHOUT_FFI = ["-A", "--deny-ffi"];

/** A run of the program with these arguments, not started yet. */
export function llamero(
  args: readonly string[],
  permissions: readonly string[] = ["-A"],
  options: Deno.CommandOptions = {},
): Deno.Command {
  return program("../src/main.ts", args, permissions, options);
}

/** A run of a file, named from here, in a process of its own. */
export function program(
  file: string,
  args: readonly string[],
  permissions: readonly string[] = ["-A"],
  options: Deno.CommandOptions = {},
): Deno.Command {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const run = ["run", "--quiet", "--no-prompt", "--config", CONFIG, ...permissions, path, ...args];
  return new Deno.Command(Deno.execPath(), { args: run, stdin: "null", stdout: "piped", stderr: "piped", ...options });
}

/** A served model: its address, and an end that waits for the process. */
export interface Served extends AsyncDisposable {
  url: string;
  model: string;
  /** Send a signal and wait for the end; default SIGTERM. Once it has ended, nothing more happens. */
  end(signal?: Deno.Signal): Promise<void>;
}

/** How to serve. */
export interface ServeOptions {
  flags?: readonly string[];
  /** Deno's flags; default: everything is permitted. */
  permissions?: readonly string[];
}

/** Serve `model` on a free port. */
export async function served(model: string, { flags = [], permissions }: ServeOptions = {}): Promise<Served> {
  const args = ["serve", "--json", "--quiet", "--port", "0", "--store", "memory", "--model", model, ...flags];
  const child = llamero(args, permissions, { stderr: "inherit" }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { value, done } = await lines.read();
    if (done) throw new Error(`serving ${model}: the program ended with code ${(await child.status).code}`);
    text += value;
  }
  const { url, model: id } = JSON.parse(text.slice(0, text.indexOf("\n")));
  let ended: Promise<void> | undefined;
  async function stop(signal: Deno.Signal): Promise<void> {
    child.kill(signal);
    await lines.cancel();
    await child.status;
  }
  const end = (signal: Deno.Signal = "SIGTERM") => ended ??= stop(signal);
  return { url, model: id, end, [Symbol.asyncDispose]: () => end() };
}

/** Asks `url` for its health until `holds`, for at most ten seconds; returns the last answer. */
export async function healthUntil(url: string, holds: (health: Health) => boolean): Promise<Health> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const health: Health = await (await fetch(`${url}/healthz`)).json();
    if (holds(health) || performance.now() > deadline) return health;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** What `GET /healthz` says, as far as tests look at it. */
export interface Health {
  status: string;
  model: string;
  device: string;
  stats: { running: number; waiting: number; generated_tokens: number };
}
