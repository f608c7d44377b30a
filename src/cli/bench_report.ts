/**
 * What `llamero bench` says in the end: medians over rounds, ratios to the other contestants, and a table of them.
 *
 * Absent here on purpose: measuring, and what is measured (bench_table.ts).
 *
 * @module
 */
import { formatBytes } from "../models/progress.ts";
import {
  type Contestant,
  CONTESTANTS,
  type CountFlags,
  type Facts,
  type Figure,
  type KvType,
  type Limits,
  median,
  type Scenario,
  type ScenarioName,
  SCENARIOS,
  type Seen,
  type TurnName,
  type Unit,
} from "./bench_table.ts";

/** What everybody measured in a round. */
export type Round = Record<Contestant, Partial<Record<TurnName, Seen>>>;

/** A figure of everybody: medians, what they are the medians of, and how llamero's is to each of the others. */
export interface FigureReport {
  name: string;
  unit: Unit;
  /** `null` where it was not measured. */
  median: Record<Contestant, number | null>;
  rounds: Record<Contestant, number[]>;
  /** llamero divided by the other: above 1 is better for rates, shares of limits and multiples, worse for time and memory. */
  ratio: Record<Exclude<Contestant, "llamero">, number | null>;
}

/** What `--json` prints. */
export interface BenchReport {
  model: string;
  quantization: string;
  threads: number;
  rounds: number;
  kv: KvType;
  /** What everybody calls itself; `null` for those who were not asked. */
  engines: Record<Contestant, string | null>;
  file: Pick<Facts, "fileBytes" | "bytesPerToken" | "layerParameters">;
  /** What the machine could do: medians over all turns that measured it. */
  limits: Limits | null;
  scenarios: { name: ScenarioName; about: string; figures: FigureReport[] }[];
}

/** What a report is made of. */
export interface Results {
  model: string;
  facts: Facts;
  values: CountFlags & { kv?: string | undefined };
  threads: number;
  rounds: readonly Round[];
  scenarios: readonly ScenarioName[];
}

/** The report over all rounds. */
export function reportOf({ model, facts, values, threads, rounds, scenarios }: Results): BenchReport {
  const { fileBytes, bytesPerToken, layerParameters, quantization } = facts;
  // The table of flags allows no other types.
  const kv = (values.kv ?? "f16") as KvType;
  const inRound = ({ turns, figure }: { turns: Round[Contestant]; figure: Figure }) =>
    figure.of({ turns, facts, kv, flags: values });
  return {
    model,
    quantization,
    threads,
    rounds: rounds.length,
    kv,
    engines: eachOf((who) => engineOf(rounds, who)),
    file: { fileBytes, bytesPerToken, layerParameters },
    limits: limitsOf(rounds),
    scenarios: scenarios.map((name) => {
      const { about, figures }: Scenario = SCENARIOS[name];
      return {
        name,
        about,
        figures: figures.map((figure) =>
          figureReport(figure, (who) => rounds.map((round) => inRound({ turns: withLimits(round, who), figure })))
        ),
      };
    }),
  };
}

function figureReport({ name, unit }: Figure, values: (who: Contestant) => number[]): FigureReport {
  const rounds = eachOf((who) => values(who).filter(Number.isFinite));
  const middle = eachOf((who) => rounds[who].length === 0 ? null : median(rounds[who]));
  const to = (other: number | null) =>
    rounded(middle.llamero === null || other === null ? null : middle.llamero / other);
  return {
    name,
    unit,
    median: eachOf((who) => rounded(middle[who])),
    rounds: eachOf((who) => rounds[who].map(round)),
    ratio: { wasm: to(middle.wasm), peer: to(middle.peer) },
  };
}

/** Turns of one contestant; the machine's limits are measured by llamero alone, and hold for all turns of that name. */
function withLimits(round: Round, who: Contestant): Round[Contestant] {
  const turns = Object.entries(round[who]) as [TurnName, Seen][];
  return Object.fromEntries(turns.map(([name, seen]) => [name, { limits: round.llamero[name]?.limits, ...seen }]));
}

function engineOf(rounds: readonly Round[], who: Contestant): string | null {
  const [seen] = rounds.flatMap((round) => Object.values(round[who]));
  return seen ? [seen.engine, seen.device].filter(Boolean).join(", ") : null;
}

function limitsOf(rounds: readonly Round[]): Limits | null {
  const all = rounds.flatMap(({ llamero }) => Object.values(llamero).flatMap(({ limits }) => limits ?? []));
  const middle = (name: "read_bytes_s" | "multiply_adds_s") => round(median(all.map((each) => each[name])));
  return all[0]
    ? { ...all[0], read_bytes_s: middle("read_bytes_s"), multiply_adds_s: middle("multiply_adds_s") }
    : null;
}

function eachOf<T>(value: (who: Contestant) => T): Record<Contestant, T> {
  return Object.fromEntries(CONTESTANTS.map((who) => [who, value(who)])) as Record<Contestant, T>;
}

/** Four digits say all that a measurement knows. */
function round(value: number): number {
  return Number(value.toPrecision(4));
}

function rounded(value: number | null): number | null {
  return value === null ? null : round(value);
}

const SHOW: Readonly<Record<Unit, (value: number) => string>> = {
  seconds: (value) => `${value.toFixed(2)} s`,
  rate: (value) => `${value.toFixed(value < 10 ? 2 : 1)} tokens/s`,
  bytes: formatBytes,
  share: (value) => `${(100 * value).toFixed(1)} %`,
  times: (value) => value.toFixed(2),
};
const MISSING = "-";

/** The report for people. */
export function table(report: BenchReport): string {
  const { model, quantization, threads, rounds, kv, engines, limits, scenarios, file } = report;
  const others = (["wasm", "peer"] as const).filter((who) => engines[who] !== null);
  const head = ["", "", "llamero", ...others.flatMap((who) => [who === "wasm" ? "in wasm" : "llama.cpp", "ratio"])];
  const rows = scenarios.flatMap(({ name, figures }) => {
    const labels = SCENARIOS[name].figures;
    return figures.map(({ unit, median, ratio }, at) => {
      const show = (value: number | null) => value === null ? MISSING : SHOW[unit](value);
      const beside = others.flatMap((who) => [show(median[who]), ratio[who]?.toFixed(2) ?? MISSING]);
      return [at === 0 ? name : "", labels[at]!.label, show(median.llamero), ...beside];
    });
  });
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)));
  const lines = [head, ...rows].map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd());
  return [
    `${model} (${quantization}), ${
      formatBytes(file.fileBytes)
    }, ${threads} threads, keys and values in ${kv}; medians of ${rounds}`,
    ...CONTESTANTS.flatMap((who) =>
      engines[who] === null ? [] : [`${who === "wasm" ? "in wasm: " : ""}${engines[who]}`]
    ),
    ...(limits ? [limitsLine(limits)] : []),
    "",
    ...lines,
    "",
  ].join("\n");
}

function limitsLine({ read_bytes_s, multiply_adds_s, instruction_set, threads }: Limits): string {
  return `the machine: reads ${formatBytes(read_bytes_s)}/s, ${(multiply_adds_s / 1e9).toFixed(0)} G int8 ` +
    `multiply-adds/s (${instruction_set}), ${threads} threads`;
}
