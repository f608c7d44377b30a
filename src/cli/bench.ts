/**
 * `llamero bench`: figures of one model, in turns with the WebAssembly engine and llama.cpp when they are asked for, so
 * that all meet the same machine in the same state. Each turn is a process of its own; what is measured stands in
 * bench_table.ts.
 *
 * Absent here on purpose: measuring itself (bench_turn.ts, scripts/llama_cpp_bench.py), medians and tables
 * (bench_report.ts).
 *
 * @module
 */
import { formatDuration } from "../models/progress.ts";
import { type BenchReport, reportOf, type Round, table } from "./bench_report.ts";
import {
  type Contestant,
  CONTESTANTS,
  contextOf,
  type Facts,
  type Measured,
  SCENARIO_NAMES,
  type ScenarioName,
  SCENARIOS,
  type Seen,
  type Turn,
  TURN_NAMES,
  type TurnName,
  turnNamed,
} from "./bench_table.ts";
import { takeTurn } from "./bench_turn.ts";
import type { Deps, Finished } from "./deps.ts";
import { CommandError, UsageError } from "./errors.ts";
import type { FlagName, FlagValues, Parsed } from "./flags.ts";
import { type LocatedModel, locateModel } from "./model.ts";

/** Python that is tried for the comparison when `LLAMERO_PEER_PYTHON` is not set. */
const DEFAULT_PYTHON = "python3";
/** Flags that say which turns there are; all others are for the turns themselves. */
const OWN_FLAGS: readonly string[] = [
  "model",
  "only",
  "turn",
  "rounds",
  "peer",
  "wasm",
  "json",
  "quiet",
  // Only the turns that are about it guess: greedy replies to random tokens may run in circles.
  "draft",
  "speculate",
] satisfies FlagName[];
const LABELS: Readonly<Record<Contestant, string>> = {
  llamero: "llamero",
  wasm: "llamero in WebAssembly",
  peer: "llama.cpp",
};

/** The command. */
export async function bench(deps: Deps, { values }: Parsed): Promise<number> {
  const wanted = scenariosOf(values.only);
  const model = await locateModel(deps, values);
  if (values.turn) {
    deps.terminal.out(`${JSON.stringify(await takeTurn(deps, model, values))}\n`);
    return 0;
  }
  const python = deps.terminal.env("LLAMERO_PEER_PYTHON") || (values.peer ? DEFAULT_PYTHON : undefined);
  const report = await measure({ deps, model, values, python }, wanted);
  deps.terminal.out(values.json ? `${JSON.stringify(report)}\n` : table(report));
  if (!python && !values.json && !values.quiet) {
    deps.terminal.err(
      "llamero: set LLAMERO_PEER_PYTHON to a python that has llama-cpp-python to compare with llama.cpp\n",
    );
  }
  return 0;
}

/** The scenarios that `--only` names, or all. */
function scenariosOf(only: string | undefined): ScenarioName[] {
  if (only === undefined) return [...SCENARIO_NAMES];
  const names = only.split(",");
  const unknown = names.find((name) => !Object.hasOwn(SCENARIOS, name));
  if (unknown !== undefined) {
    throw new UsageError(`--only: expected some of ${SCENARIO_NAMES.join(",")}, got ${JSON.stringify(unknown)}`);
  }
  return SCENARIO_NAMES.filter((name) => names.includes(name));
}

interface Bench {
  deps: Deps;
  model: LocatedModel;
  values: FlagValues;
  /** The Python with llama.cpp; none: it is not measured. */
  python: string | undefined;
}

/** A turn of one contestant in one round. */
interface Step {
  /** From 1. */
  round: number;
  name: TurnName;
  who: Contestant;
}

async function measure(bench: Bench, wanted: readonly ScenarioName[]): Promise<BenchReport> {
  const { deps, model, values } = bench;
  const say = (sentence: string) => values.quiet || deps.terminal.err(`${sentence}\n`);
  const facts = await factsOf(deps, model);
  const scenarios = wanted.filter((name) => {
    const needed = Math.max(...SCENARIOS[name].turns.map((turn) => contextOf(turnNamed(turn, values))));
    if (needed > facts.contextLength) {
      say(`${name} is left out: expected at most ${facts.contextLength} tokens of prompt and reply, got ${needed}`);
    }
    return needed <= facts.contextLength;
  });
  if (scenarios.length === 0) {
    throw new CommandError(
      `measuring failed: a context of ${facts.contextLength} tokens is too short; --quick takes less`,
    );
  }
  const steps = stepsOf(bench, scenarios);
  const rounds = Array.from({ length: values.rounds! }, (): Round => ({ llamero: {}, wasm: {}, peer: {} }));
  say("loading once, so that neither the disk nor what is made once is measured");
  await take(bench, "load", "llamero");
  const took = new Map<string, number>();
  for (const [at, { round, name, who }] of steps.entries()) {
    const left = timeLeft(steps.slice(at).map(keyOf), took);
    say(`round ${round} of ${values.rounds}: ${name}, ${LABELS[who]}${left === undefined ? "" : ` (${left} left)`}`);
    const begun = deps.now();
    try {
      rounds[round - 1]![who][name] = await take(bench, name, who);
    } catch (error) {
      // What was measured so far may have taken hours.
      if (round === 1 || !(error instanceof CommandError)) throw error;
      say(`left out: ${error.message}`);
    }
    took.set(keyOf({ round, name, who }), (deps.now() - begun) / 1000);
  }
  return reportOf({ model: model.file, facts, values, rounds, scenarios, threads: threads() });
}

/** All steps, in order: in each round every turn that a scenario needs, and in each turn those who take it. */
function stepsOf({ values, python }: Bench, scenarios: readonly ScenarioName[]): Step[] {
  const needed = new Set<TurnName>(scenarios.flatMap((name) => SCENARIOS[name].turns));
  const takes: Record<Contestant, boolean> = { llamero: true, wasm: values.wasm === true, peer: python !== undefined };
  const turns = TURN_NAMES.filter((name) => needed.has(name)).flatMap((name) => {
    const { by = CONTESTANTS } = turnNamed(name);
    return CONTESTANTS.filter((who) => takes[who] && by.includes(who)).map((who) => ({ name, who }));
  });
  return Array.from({ length: values.rounds! }, (_, at) => turns.map((turn) => ({ round: at + 1, ...turn }))).flat();
}

function keyOf({ name, who }: Step): string {
  return `${name} ${who}`;
}

/** How long steps will take, going by those that were taken; what was not taken yet is like the mean of the others. */
export function timeLeft(steps: readonly string[], took: ReadonlyMap<string, number>): string | undefined {
  if (took.size === 0) return undefined;
  const mean = [...took.values()].reduce((sum, each) => sum + each) / took.size;
  return formatDuration(steps.reduce((sum, step) => sum + (took.get(step) ?? mean), 0));
}

function threads(): number {
  return navigator.hardwareConcurrency;
}

/** What the core says about a model that it does not load. */
async function factsOf(deps: Deps, { path }: LocatedModel): Promise<Facts> {
  const report = await deps.runTask({ task: "inspect", source: { path } }, {}) as unknown as {
    model: { context_length: number; quantization: string };
    files: { bytes: number }[];
    groups: { name: string; parameters: number; bytes: number }[];
    memory: { cache: { context: number; f16: number; q8_0: number } };
  };
  const { model, files, groups, memory: { cache } } = report;
  const sum = (numbers: number[]) => numbers.reduce((all, each) => all + each, 0);
  // Where the output has no weights of its own it is the table of embeddings.
  const tied = !groups.some(({ name }) => name === "output");
  return {
    contextLength: model.context_length,
    quantization: model.quantization,
    fileBytes: sum(files.map(({ bytes }) => bytes)),
    bytesPerToken: sum(groups.filter(({ name }) => tied || name !== "embedding").map(({ bytes }) => bytes)),
    layerParameters: sum(
      groups.filter(({ name }) => name === "attention" || name === "feed-forward").map(({ parameters }) => parameters),
    ),
    cacheBytes: { f16: cache.f16 / cache.context, q8_0: cache.q8_0 / cache.context },
  };
}

/** One turn in a process of its own. */
async function take(bench: Bench, name: TurnName, who: Contestant): Promise<Seen> {
  const { deps, values } = bench;
  const turn = turnNamed(name, values);
  await using _neighbour = turn.busy ? deps.keepBusy() : undefined;
  const begun = deps.now();
  const measured = who === "peer" ? await peers(bench, turn) : await ours(bench, name, turn, who);
  return { ...measured, start_s: measured.first_token_at - begun / 1000 };
}

async function ours({ deps, model, values }: Bench, name: TurnName, turn: Turn, who: Contestant): Promise<Measured> {
  const passed = Object.entries(values).filter(([flag]) => !OWN_FLAGS.includes(flag)).flatMap(([flag, value]) =>
    value === true ? [`--${flag}`] : [`--${flag}`, String(value)]
  );
  const how = [
    ...(who === "wasm" ? ["--wasm"] : []),
    ...(turn.speculates ? ["--speculate", values.speculate!] : ["--speculate", "off"]),
    ...(turn.speculates && values.draft !== undefined ? ["--draft", values.draft] : []),
  ];
  const args = ["bench", "--turn", name, "--model", model.path, ...passed, ...how, "--quiet"];
  return readTurn(await deps.runSelf(args), LABELS[who]);
}

async function peers({ deps, model, values, python }: Bench, turn: Turn): Promise<Measured> {
  const { prompt, reply, conversations = 1 } = turn;
  const counts = { prompt, reply, conversations, threads: threads(), kv: values.kv ?? turn.kv ?? "f16" };
  const args = [model.path, ...Object.entries(counts).flatMap(([name, value]) => [`--${name}`, String(value)])];
  const finished = await deps.runPeer(python!, args).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new CommandError(`measuring llama.cpp failed: expected a program ${python}, found none`, { cause: error });
  });
  return readTurn(finished, `llama.cpp with ${python}`);
}

/** The last line of a turn is its one JSON object. */
function readTurn({ code, stdout, stderr }: Finished, who: string): Measured {
  const fail = (reason: string, cause?: unknown) => new CommandError(`measuring ${who} failed: ${reason}`, { cause });
  if (code !== 0) throw fail(stderr.trim().split("\n").at(-1)?.replace(/^llamero: /, "") || `status ${code}`);
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  } catch (error) {
    throw fail((error as Error).message, error);
  }
  for (const [name, needed] of NUMBERS) {
    // JSON has no infinite rates; they come as null.
    const value = fields[name] ?? undefined;
    if (typeof value !== "number" && (needed || value !== undefined)) {
      throw fail(`expected a number ${name}, got ${JSON.stringify(value)}`);
    }
  }
  return { ...fields, engine: String(fields.engine) } as Measured;
}

/** The numbers of a turn, and whether each turn has them. */
const NUMBERS: readonly [keyof Measured, boolean][] = [
  ["first_token_at", true],
  ["load_s", true],
  ["peak_bytes", true],
  ["prefill_tok_s", false],
  ["decode_tok_s", false],
];
