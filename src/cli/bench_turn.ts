/**
 * One turn of `llamero bench` in this process: load the model, do one thing, say what was measured.
 *
 * Absent here on purpose: other processes, repetition, llama.cpp (scripts/llama_cpp_bench.py does the same with it).
 *
 * @module
 */
import type { DoneEvent, Engine, GenerateRequest } from "../engine/engine.ts";
import {
  contextOf,
  FIRST_PROMPT,
  type Limits,
  type Measured,
  SPARE_TOKENS,
  type Turn,
  turnNamed,
} from "./bench_table.ts";
import type { TurnName } from "./bench_table.ts";
import type { Deps } from "./deps.ts";
import { CommandError } from "./errors.ts";
import type { FlagValues } from "./flags.ts";
import { loadModel, type LocatedModel } from "./model.ts";

/** What is quoted: plain enough for a small model to go on with once it has begun. */
const TEXT = `The lighthouse at the end of the harbour wall was built in 1874 by a company of masons from the north. ` +
  `It stands on a base of granite blocks, each of which was cut by hand and brought here on a barge. The lamp was lit ` +
  `with oil for its first forty years, then with gas, and since 1931 with electricity. Three keepers lived in the house ` +
  `beside it, together with their families, a cow and a number of hens. In a winter storm the waves reach the gallery, ` +
  `and the whole tower hums like a bell. When the last keeper left in 1987, he took the clock from the watch room with ` +
  `him, because it had never been wrong. Visitors may climb the hundred and twelve steps on Sundays; the view from the ` +
  `top reaches from the islands in the west to the chimneys of the old cannery, which has been a museum since 2004.`;
/** So much of it is begun once more: enough to show what is going on. */
const BEGUN = 0.25;
/** Tokens that a lookup of what was said before would go by. */
const LOOKUP = 3;
/** Ids below this are control tokens in most vocabularies. */
const FIRST_ID = 3;

/** Take the turn that `values` name. */
export async function takeTurn(deps: Deps, model: LocatedModel, values: FlagValues): Promise<Measured> {
  const turn = turnNamed(values.turn as TurnName, values);
  const begun = deps.now();
  const context = values.context ?? contextOf(turn) + SPARE_TOKENS;
  const engine = values.wasm ? "wasm" : "native";
  await using opened = await loadModel(deps, model, { kv: turn.kv, ...values, engine, context, quiet: true });
  checkContext(opened, turn);
  await generate(opened, idsOf(opened, FIRST_PROMPT, 0), 1);
  const firstToken = deps.now();
  const rates = turn.prompt === 0 ? {} : await limited(deps, turn, values, () => measure(deps, opened, turn));
  return {
    engine: `llamero ${deps.version}`,
    device: opened.model.device,
    first_token_at: firstToken / 1000,
    load_s: (firstToken - begun) / 1000,
    peak_bytes: deps.peakBytes(),
    ...rates,
  };
}

type Rates = Pick<Measured, "prefill_tok_s" | "decode_tok_s" | "repeated" | "limits">;

function checkContext({ model }: Engine, turn: Turn): void {
  const needed = contextOf(turn);
  if (needed > model.contextLength) {
    throw new CommandError(
      `measuring failed: expected at most ${model.contextLength} tokens of prompt and reply, got ${needed}`,
    );
  }
}

/** With what the machine can do before and after, in the mean, where that is wanted. */
async function limited(deps: Deps, turn: Turn, values: FlagValues, work: () => Promise<Rates>): Promise<Rates> {
  if (!turn.limits || values.wasm) return await work();
  const before = await machineLimits(deps);
  const rates = await work();
  const after = await machineLimits(deps);
  const mean = (name: "read_bytes_s" | "multiply_adds_s") => (before[name] + after[name]) / 2;
  const limits = { ...before, read_bytes_s: mean("read_bytes_s"), multiply_adds_s: mean("multiply_adds_s") };
  return { ...rates, limits };
}

async function machineLimits(deps: Deps): Promise<Limits> {
  return await deps.runTask({ task: "machine" }, {}) as unknown as Limits;
}

async function measure(deps: Deps, engine: Engine, turn: Turn): Promise<Rates> {
  const { conversations = 1, prompt, reply, quote } = turn;
  if (conversations > 1) {
    const prompts = Array.from({ length: conversations }, (_, at) => idsOf(engine, prompt, at + 1));
    return { decode_tok_s: await together(deps, engine, prompts, reply) };
  }
  const { done, text } = await generate(engine, quote ? QUOTING : idsOf(engine, prompt, 1), reply);
  const { usage, timings } = done;
  return {
    prefill_tok_s: usage.promptTokens / timings.prefillMs * 1000,
    decode_tok_s: (usage.completionTokens - 1) / timings.decodeMs * 1000,
    ...(quote ? { repeated: await repeated(engine, QUOTING, text) } : {}),
  };
}

const QUOTING = `${TEXT}\n\n${TEXT.slice(0, TEXT.length * BEGUN)}`;

function requestOf(prompt: string | readonly number[], maxTokens: number): GenerateRequest {
  const what = typeof prompt === "string" ? { prompt: [prompt] } : { prompt: [], promptIds: prompt };
  return { ...what, maxTokens, ignoreEos: true, sampling: { temperature: 0 } };
}

async function generate(
  engine: Engine,
  prompt: string | readonly number[],
  maxTokens: number,
): Promise<{ done: DoneEvent; text: string }> {
  let text = "";
  for await (const event of engine.generate(requestOf(prompt, maxTokens))) {
    if (event.type === "text") text += event.text;
    if (event.type === "done") return { done: event, text };
  }
  throw new CommandError("measuring failed: a reply ended without figures");
}

/** The rate of all conversations together, while all of them write: from the last one's first token to the first end. */
async function together(
  deps: Deps,
  engine: Engine,
  prompts: readonly (readonly number[])[],
  reply: number,
): Promise<number> {
  const mark = () => ({ ms: deps.now(), tokens: engine.stats().generatedTokens });
  const at: { first?: ReturnType<typeof mark>; last?: ReturnType<typeof mark> } = {};
  let writing = 0;
  await Promise.all(prompts.map(async (prompt) => {
    let silent = true;
    for await (const event of engine.generate(requestOf(prompt, reply))) {
      if (event.type === "text" && silent) {
        silent = false;
        if (++writing === prompts.length) at.first = mark();
      }
      if (event.type === "done") at.last ??= mark();
    }
  }));
  const { first, last } = at;
  if (!first || !last || last.ms <= first.ms) {
    const got = "one that ended before another began";
    throw new CommandError(`measuring failed: expected ${prompts.length} conversations to write together, got ${got}`);
  }
  return (last.tokens - first.tokens) / (last.ms - first.ms) * 1000;
}

function idsOf({ model }: Engine, count: number, seed: number): number[] {
  return randomIds(count, model.vocabSize, seed);
}

/** Token ids that are the same everywhere (scripts/llama_cpp_bench.py has this generator too): none says anything. */
export function randomIds(count: number, vocabSize: number, seed: number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    // Numerical Recipes, second edition, 7.1.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return FIRST_ID + Math.floor(state * (vocabSize - FIRST_ID) / 2 ** 32);
  });
}

/** How much of `reply` a lookup in what was said before would have known. */
async function repeated(engine: Engine, prompt: string, reply: string): Promise<number> {
  const [asked, all] = [await engine.tokenize([prompt]), await engine.tokenize([prompt + reply])];
  return repeatedShare(all, asked.length);
}

/** The share of `ids` from `from` on that follow the three before them as they did the last time that those came. */
export function repeatedShare(ids: readonly number[], from: number): number {
  const followed = new Map<string, number>();
  let hits = 0;
  for (let at = LOOKUP; at < ids.length; at++) {
    const before = ids.slice(at - LOOKUP, at).join(" ");
    if (at >= from && followed.get(before) === ids[at]) hits++;
    followed.set(before, ids[at]!);
  }
  return hits / Math.max(ids.length - from, 1);
}
