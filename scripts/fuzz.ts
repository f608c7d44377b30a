/**
 * Fuzzes the readers of files for a limited time, one after another, and says how many inputs each has tried.
 *
 *     deno task fuzz [--seconds N] [--list] [TARGET]...
 *
 * A target is a file in `core-rs/fuzz/fuzz_targets`. It starts from the small files in `core-rs/fuzz/seeds` and from
 * those of `tests/fixtures` that are of its format; what it learns stays in `target/fuzz/corpus`. An input that breaks a
 * promise is kept in `target/fuzz/artifacts`.
 *
 * cargo-fuzz is installed into `target/tools` when it is not there, which takes two minutes. The compiler is the one on
 * PATH: RUSTC_BOOTSTRAP lets a stable one take the flags of a fuzzer, so no nightly is needed. Sanitizers are off, as the
 * readers have no unsafe code; integer overflow is a finding, and so is memory out of proportion.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type Ended, must, programRunner, type RunProgram } from "./programs.ts";

const ROOT = join(import.meta.dirname!, "..");
const FUZZ_DIR = join(ROOT, "core-rs", "fuzz");
const CARGO_FUZZ_VERSION = "0.13.2";
/** How long each target runs when nothing else is asked for. */
const DEFAULT_SECONDS = 60;
/** Longest input in bytes. */
const MAX_LEN = 1 << 16;
/** An input that takes longer is a finding, in seconds. */
const TIMEOUT_SECONDS = 10;
/** As is one that takes more memory, in MiB. */
const MEMORY_MIB = 1024;
/** How much of the output of a failure is shown, in lines. */
const SHOWN_LINES = 40;

/** Folders below tests/fixtures with files of a target's format. */
const FIXTURES: Readonly<Record<string, readonly string[]>> = {
  gguf: ["gguf-split"],
  pdparams: ["pickles"],
  sentencepiece: ["tokenizers"],
  tokenizer_json: ["tokenizers"],
  torch: ["pickles"],
};

/** The names of all targets. */
export async function targets(): Promise<string[]> {
  const names = [];
  for await (const { name } of Deno.readDir(join(FUZZ_DIR, "fuzz_targets"))) {
    if (name.endsWith(".rs")) names.push(name.slice(0, -3));
  }
  return names.sort();
}

/** Folders of inputs that a target starts from. */
export function seeds(target: string): string[] {
  const folders = (FIXTURES[target] ?? []).map((folder) => join(ROOT, "tests", "fixtures", folder));
  return [join(FUZZ_DIR, "seeds", target), ...folders].filter((folder) => existsSync(folder));
}

/** What libFuzzer's last lines say of a run. */
export function judge({ code, output }: Ended): { tried: number; finding?: string } {
  const tried = Number(/^stat::number_of_executed_units:\s*(\d+)/m.exec(output)?.[1] ?? 0);
  if (code === 0 && tried > 0) return { tried };
  const kept = /Test unit written to (\S+)/.exec(output)?.[1];
  return { tried, finding: kept ?? `the fuzzer ended with code ${code}` };
}

interface Options {
  seconds: number;
  names: string[];
  target: string;
  run: RunProgram;
}

/** Fuzzes each target in turn; the number of targets with a finding. */
async function fuzz({ seconds, names, target, run }: Options): Promise<number> {
  await ready(target, run);
  const cargoFuzz = (command: string, ...rest: string[]) =>
    run(["cargo", "fuzz", command, "--fuzz-dir", FUZZ_DIR, "--sanitizer", "none", ...rest], () => {});
  console.log("building the targets");
  must(await cargoFuzz("build"), "building the fuzz targets failed");
  let findings = 0;
  for (const name of names) {
    const corpus = join(target, "fuzz", "corpus", name);
    const artifacts = join(target, "fuzz", "artifacts", name);
    await Promise.all([corpus, artifacts].map((folder) => Deno.mkdir(folder, { recursive: true })));
    const limits = [
      `-max_total_time=${seconds}`,
      `-max_len=${MAX_LEN}`,
      `-timeout=${TIMEOUT_SECONDS}`,
      `-rss_limit_mb=${MEMORY_MIB}`,
      `-artifact_prefix=${artifacts}/`,
      "-print_final_stats=1",
    ];
    const ended = await cargoFuzz("run", name, corpus, ...seeds(name), "--", ...limits);
    const { tried, finding } = judge(ended);
    console.log(
      `${finding ? "FAIL" : "ok  "}  ${name}: ${tried} inputs in ${seconds} s${finding ? `, ${finding}` : ""}`,
    );
    if (finding) console.error(ended.output.trimEnd().split("\n").slice(-SHOWN_LINES).join("\n"));
    findings += finding ? 1 : 0;
  }
  return findings;
}

/** Installs cargo-fuzz if the one of this version is not there. */
async function ready(target: string, run: RunProgram): Promise<void> {
  const { code, output } = await run(["cargo", "fuzz", "--version"], () => {});
  if (code === 0 && output.includes(CARGO_FUZZ_VERSION)) return;
  console.log(`installing cargo-fuzz ${CARGO_FUZZ_VERSION}`);
  const root = join(target, "tools");
  const install = ["install", "cargo-fuzz", "--version", CARGO_FUZZ_VERSION, "--locked", "--root", root];
  must(await run(["cargo", ...install], () => {}), "fuzzing needs cargo-fuzz, which cargo could not install");
}

const USAGE = `usage: deno task fuzz [--seconds N] [--list] [TARGET]...

Runs every target, or only those named, for N seconds each (${DEFAULT_SECONDS} unless given).
Exit code 0 when nothing was found, 1 otherwise.`;

const OPTIONS = {
  seconds: { type: "string" },
  list: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

/** A whole number of seconds from 1 on. */
export function parseSeconds(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new RangeError(`--seconds: expected a number from 1 to 999999, got ${text}`);
  return Number(text);
}

async function main(args: string[]): Promise<number> {
  try {
    const { values, positionals } = parseArgs({ args, options: OPTIONS, allowPositionals: true });
    const known = await targets();
    if (values.help || values.list) {
      console.log(values.help ? USAGE : known.join("\n"));
      return 0;
    }
    const unknown = positionals.find((name) => !known.includes(name));
    if (unknown) throw new RangeError(`expected one of ${known.join(", ")}, got ${unknown}`);
    const target = resolve(ROOT, Deno.env.get("CARGO_TARGET_DIR") ?? "target");
    const env = {
      CARGO_TARGET_DIR: join(target, "fuzz"),
      PATH: [join(target, "tools", "bin"), Deno.env.get("PATH") ?? ""].join(delimiter),
      RUSTC_BOOTSTRAP: "1",
    };
    const seconds = parseSeconds(values.seconds ?? String(DEFAULT_SECONDS));
    const names = positionals.length > 0 ? positionals : known;
    return await fuzz({ seconds, names, target, run: programRunner(ROOT, () => env) }) === 0 ? 0 : 1;
  } catch (error) {
    console.error(`llamero fuzz: ${(error as Error).message}`);
    return 2;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
