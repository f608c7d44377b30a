/**
 * `llamero bench`: loading, prefill, decode and memory of one model, in turns with the WebAssembly engine and llama.cpp
 * when they are asked for, so that all meet the same machine in the same state.
 *
 * Each round loads the model anew. Prefill is the whole prompt, decode the reply without its first token, which the
 * prefill already gives. Memory is what the process holds at the end of a round, less what earlier rounds have left in
 * it: for llamero that includes Deno. It is the highest of all rounds, since memory that an allocator kept is used again.
 *
 * @module
 */
import type { DoneEvent, Engine } from "../engine/engine.ts";
import { formatBytes } from "../models/progress.ts";
import type { Deps } from "./deps.ts";
import { CommandError } from "./errors.ts";
import type { FlagValues, Parsed } from "./flags.ts";
import { loadModel, type LocatedModel, locateModel } from "./model.ts";

/** Figures of one round, or medians of several. */
export interface Figures {
  load_s: number;
  prefill_tok_s: number;
  decode_tok_s: number;
  rss_gb: number;
}

/** What `--json` prints. */
export interface BenchReport {
  model: string;
  quantization: string;
  device: string;
  threads: number;
  prompt_tokens: number;
  decode_tokens: number;
  rounds: number;
  llamero: Figures;
  /** The WebAssembly engine under the same conditions, when it was measured. */
  wasm: Figures & { device: string } | null;
  /** WebAssembly divided by native: above 1 is better for rates, worse for time and memory. */
  wasm_ratios: Figures | null;
  /** llama.cpp under the same conditions, when it was measured. */
  peer: Figures & { engine: string } | null;
  /** llamero divided by llama.cpp: above 1 is better for rates, worse for time and memory. */
  ratios: Figures | null;
}

/** A word that is one token nearly everywhere; the prompt is made of it. */
const FILLER = " the";
/** A short reply before the measured one: first calls touch cold pages. */
const WARM_UP_TOKENS = 2;
/** Python that is tried for the comparison when `LLAMERO_PEER_PYTHON` is not set. */
const DEFAULT_PYTHON = "python3";
const FIGURES = ["load_s", "prefill_tok_s", "decode_tok_s", "rss_gb"] as const satisfies (keyof Figures)[];

/** The command. */
export async function bench(deps: Deps, { values }: Parsed): Promise<number> {
  const model = await locateModel(deps, values);
  const python = deps.terminal.env("LLAMERO_PEER_PYTHON") || (values.peer ? DEFAULT_PYTHON : undefined);
  const report = await measure(deps, model, values, python);
  deps.terminal.out(values.json ? `${JSON.stringify(report)}\n` : table(report));
  if (!python && !values.json && !values.quiet) {
    deps.terminal.err(
      "llamero: set LLAMERO_PEER_PYTHON to a python that has llama-cpp-python to compare with llama.cpp\n",
    );
  }
  return 0;
}

interface Ours {
  figures: Figures;
  promptTokens: number;
  decodeTokens: number;
  quantization: string;
  device: string;
}

interface Peers {
  engine: string;
  figures: Figures;
}

async function measure(deps: Deps, model: LocatedModel, values: FlagValues, python?: string): Promise<BenchReport> {
  const [ours, wasm, peers]: [Ours[], Ours[], Peers[]] = [[], [], []];
  const heldAtStart = deps.residentBytes();
  const [rounds, threads] = [values.rounds!, navigator.hardwareConcurrency];
  for (let round = 1; round <= rounds; round++) {
    const note = (who: string) => values.quiet || deps.terminal.err(`round ${round} of ${rounds}: ${who}\n`);
    note("llamero");
    ours.push(await measureOurs(deps, model, { ...values, engine: "native" }, heldAtStart));
    if (values.wasm) {
      note("llamero in WebAssembly");
      wasm.push(await measureOurs(deps, model, { ...values, engine: "wasm" }, heldAtStart));
    }
    if (!python) continue;
    note("llama.cpp");
    peers.push(await measurePeer(deps, model, { ...ours[0]!, threads }, python));
  }
  const { promptTokens, decodeTokens, quantization, device } = ours[0]!;
  const llamero = summary(ours);
  const inWasm = values.wasm ? { device: wasm[0]!.device, ...summary(wasm) } : null;
  const peer = python ? { engine: peers[0]!.engine, ...summary(peers) } : null;
  return {
    model: model.file,
    quantization,
    device,
    threads,
    prompt_tokens: promptTokens,
    decode_tokens: decodeTokens,
    rounds,
    llamero,
    wasm: inWasm,
    wasm_ratios: inWasm && ratiosOf(inWasm, llamero),
    peer,
    ratios: peer && ratiosOf(llamero, peer),
  };
}

async function measureOurs(
  deps: Deps,
  model: LocatedModel,
  values: FlagValues,
  heldAtStart: number,
): Promise<Ours> {
  const leftBehind = deps.residentBytes() - heldAtStart;
  const started = deps.now();
  await using engine = await loadModel(deps, model, { ...values, quiet: true });
  const loadMs = deps.now() - started;
  const [promptTokens, decodeTokens] = [values["prompt-tokens"]!, values["decode-tokens"]!];
  const { contextLength, quantization, device } = engine.model;
  if (promptTokens + decodeTokens > contextLength) {
    throw new CommandError(
      `measuring failed: expected at most ${contextLength} tokens of prompt and reply, got ${
        promptTokens + decodeTokens
      }`,
    );
  }
  await generate(engine, FILLER, WARM_UP_TOKENS);
  const { usage, timings } = await generate(engine, await promptOf(engine, promptTokens), decodeTokens);
  return {
    promptTokens: usage.promptTokens,
    decodeTokens: usage.completionTokens,
    quantization,
    device,
    figures: {
      load_s: round(loadMs / 1000),
      prefill_tok_s: round(usage.promptTokens / timings.prefillMs * 1000),
      decode_tok_s: round((usage.completionTokens - 1) / timings.decodeMs * 1000),
      rss_gb: round((deps.residentBytes() - leftBehind) / 1e9),
    },
  };
}

async function generate(engine: Engine, prompt: string, maxTokens: number): Promise<DoneEvent> {
  const request = { prompt: [prompt], maxTokens, ignoreEos: true, sampling: { temperature: 0 } };
  for await (const event of engine.generate(request)) if (event.type === "done") return event;
  throw new CommandError("measuring failed: a reply ended without figures");
}

/** A prompt of `tokens` tokens, or the nearest count that repeating a word can reach from below. */
export async function promptOf(engine: Engine, tokens: number): Promise<string> {
  const count = async (words: number) => (await engine.tokenize([FILLER.repeat(words)])).length;
  let [low, high] = [1, tokens + 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (await count(middle) <= tokens) low = middle;
    else high = middle;
  }
  return FILLER.repeat(low);
}

async function measurePeer(
  deps: Deps,
  model: LocatedModel,
  { promptTokens, decodeTokens, threads }: { promptTokens: number; decodeTokens: number; threads: number },
  python: string,
): Promise<Peers> {
  const args = [model.path, promptTokens, decodeTokens, threads].map(String);
  const { code, stdout, stderr } = await deps.runPeer(python, args).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new CommandError(`measuring llama.cpp failed: expected a program ${python}, found none`, { cause: error });
  });
  if (code !== 0) {
    const reason = stderr.trim().split("\n").at(-1) || `status ${code}`;
    throw new CommandError(`measuring llama.cpp with ${python} failed: ${reason}`);
  }
  return readPeer(stdout, python);
}

/** The last line of the script is its one JSON object. */
function readPeer(stdout: string, python: string): Peers {
  const line = stdout.trim().split("\n").at(-1) ?? "";
  try {
    const fields = JSON.parse(line) as Record<string, unknown>;
    const figures = each((name) => {
      const value = fields[name];
      if (typeof value !== "number") throw new TypeError(`expected a number ${name}, got ${JSON.stringify(value)}`);
      return value;
    });
    return { engine: String(fields.engine ?? "llama.cpp"), figures };
  } catch (error) {
    throw new CommandError(`measuring llama.cpp with ${python} failed: ${(error as Error).message}`, { cause: error });
  }
}

function each(value: (name: keyof Figures) => number): Figures {
  return Object.fromEntries(FIGURES.map((name) => [name, value(name)])) as Record<keyof Figures, number>;
}

/** Medians, and the highest memory. */
function summary(rounds: readonly { figures: Figures }[]): Figures {
  return each((name) => {
    const values = rounds.map(({ figures }) => figures[name]);
    return round(name === "rss_gb" ? Math.max(...values) : median(values));
  });
}

function ratiosOf(figures: Figures, base: Figures): Figures {
  return each((name) => round(figures[name] / base[name]));
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}

const ROWS: readonly { name: keyof Figures; label: string; show: (value: number) => string }[] = [
  { name: "load_s", label: "load", show: (value) => `${value.toFixed(2)} s` },
  { name: "prefill_tok_s", label: "prefill", show: (value) => `${value.toFixed(1)} tokens/s` },
  { name: "decode_tok_s", label: "decode", show: (value) => `${value.toFixed(1)} tokens/s` },
  { name: "rss_gb", label: "memory", show: (value) => formatBytes(value * 1e9) },
];

function table(report: BenchReport): string {
  const { llamero, wasm, wasm_ratios, peer, ratios } = report;
  const head = ["", "llamero", ...(wasm ? ["in wasm", "ratio"] : []), ...(peer ? [peer.engine, "ratio"] : [])];
  const rows = ROWS.map(({ name, label, show }) => [
    label,
    show(llamero[name]),
    ...(wasm && wasm_ratios ? [show(wasm[name]), wasm_ratios[name].toFixed(2)] : []),
    ...(peer && ratios ? [show(peer[name]), ratios[name].toFixed(2)] : []),
  ]);
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)));
  const lines = [head, ...rows].map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd());
  const { model, quantization, device, threads, prompt_tokens, decode_tokens, rounds } = report;
  return [
    `${model} (${quantization}), ${device}, ${threads} threads`,
    `${prompt_tokens} tokens of prompt, ${decode_tokens} of reply, medians of ${rounds}; the highest memory`,
    "",
    ...lines,
    "",
  ].join("\n");
}
