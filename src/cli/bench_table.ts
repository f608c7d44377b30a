/**
 * What `llamero bench` measures, as data: turns (one process that loads the model and does one thing), and scenarios
 * (figures made of one or more turns). Both engines take the same turns; `scripts/llama_cpp_bench.py` is the other one.
 *
 * Absent here on purpose: processes, models, how a table looks.
 *
 * @module
 */

/** Who takes turns. */
export const CONTESTANTS = ["llamero", "wasm", "peer"] as const;
/** One of {@linkcode CONTESTANTS}. */
export type Contestant = (typeof CONTESTANTS)[number];

/** How keys and values are kept. */
export const KV_TYPES = ["f16", "q8_0"] as const;
/** One of {@linkcode KV_TYPES}. */
export type KvType = (typeof KV_TYPES)[number];

/** Tokens of the short prompt that every turn begins with: it ends loading, and warms what the rest is measured on. */
export const FIRST_PROMPT = 16;
/** Places of the context beyond those that a turn asks for. */
export const SPARE_TOKENS = 16;

/** The counts of a turn. */
export interface Counts {
  /** Tokens of each prompt; 0 ends the turn with its first token. */
  prompt: number;
  /** Tokens of each reply, 2 or more: the first one belongs to the prompt. */
  reply: number;
}

/** One thing to measure in a process of its own. */
export interface Turn extends Counts {
  /** Conversations that decode together; default one. */
  conversations?: number;
  /** How keys and values are kept, unless the command line says. */
  kv?: KvType;
  /** Measure what the machine can do before and after, in the same process. */
  limits?: boolean;
  /** With another process that keeps a core busy. */
  busy?: boolean;
  /** The prompt is a text and its beginning once more, which the reply goes on with. */
  quote?: boolean;
  /** llamero may guess tokens ahead. It may not in other turns: replies to noise often repeat themselves, and are guessed. */
  speculates?: boolean;
  /** Who takes it; default all. */
  by?: readonly Contestant[];
  /** Counts with `--quick`. */
  quick?: Partial<Counts>;
}

const NATIVE: readonly Contestant[] = ["llamero", "peer"];
const OURS: readonly Contestant[] = ["llamero"];

/** Every turn. A round takes those that its scenarios need, in this order. */
export const TURNS = {
  load: { prompt: 0, reply: 0 },
  prefill: { prompt: 512, reply: 2, limits: true, quick: { prompt: 128 } },
  decode: { prompt: 32, reply: 64, limits: true, quick: { reply: 16 } },
  guess: { prompt: 32, reply: 64, speculates: true, by: OURS, quick: { reply: 16 } },
  busy: { prompt: 32, reply: 32, busy: true, by: NATIVE, quick: { reply: 8 } },
  batch: { prompt: 32, reply: 64, conversations: 8, by: NATIVE, quick: { prompt: 8, reply: 16 } },
  near: { prompt: 100, reply: 32, kv: "q8_0", by: NATIVE, quick: { reply: 16 } },
  far: { prompt: 3500, reply: 32, kv: "q8_0", by: NATIVE, quick: { prompt: 1000, reply: 16 } },
  memory: { prompt: 512, reply: 16, quick: { prompt: 128, reply: 2 } },
  plain: { prompt: 512, reply: 128, quote: true, by: OURS, quick: { reply: 48 } },
  quote: { prompt: 512, reply: 128, quote: true, speculates: true, by: OURS, quick: { reply: 48 } },
} as const satisfies Record<string, Turn>;

/** The name of a turn. */
export type TurnName = keyof typeof TURNS;
/** All of them, in order. */
export const TURN_NAMES = Object.keys(TURNS) as TurnName[];

/** What the command line says about counts. */
export interface CountFlags {
  quick?: boolean | undefined;
  "prompt-tokens"?: number | undefined;
  "decode-tokens"?: number | undefined;
}

/** A turn with the counts that are wanted; a turn that only loads stays one. */
export function turnNamed(name: TurnName, flags: CountFlags = {}): Turn {
  const turn: Turn = TURNS[name];
  const { prompt, reply } = { ...turn, ...(flags.quick ? turn.quick : {}) };
  if (prompt === 0) return turn;
  return { ...turn, prompt: flags["prompt-tokens"] ?? prompt, reply: flags["decode-tokens"] ?? reply };
}

/** Places of a context that a turn takes in one conversation. */
export function contextOf({ prompt, reply }: Counts): number {
  return Math.max(prompt + reply, FIRST_PROMPT + 1);
}

/** What the machine can do at most, as the core measures it. */
export interface Limits {
  threads: number;
  instruction_set: string;
  read_bytes_s: number;
  multiply_adds_s: number;
}

/** What a process says that took a turn. */
export interface Measured {
  engine: string;
  /** What computes, such as `cpu avx2`, where that is known. */
  device?: string;
  /** Seconds since 1970 at the first token of the short prompt. */
  first_token_at: number;
  /** From the begin of opening the model to that token. */
  load_s: number;
  /** Most memory that was resident at once. */
  peak_bytes: number;
  /** Missing where nothing but loading was measured. */
  prefill_tok_s?: number;
  /** Of all conversations together. */
  decode_tok_s?: number;
  limits?: Limits;
  /** The share of the reply's tokens that follow their three predecessors as they did before. */
  repeated?: number;
}

/** A turn as its beginner sees it. */
export interface Seen extends Measured {
  /** From the start of the process to the first token. */
  start_s: number;
}

/** What is known of a model without loading it. */
export interface Facts {
  contextLength: number;
  quantization: string;
  /** All files. */
  fileBytes: number;
  /** Weights that each token reads: all but the table of embeddings, of which it reads a row. */
  bytesPerToken: number;
  /** Weights of the layers: each is multiplied once for each token of a prompt. */
  layerParameters: number;
  /** Bytes of keys and values for a token. */
  cacheBytes: Readonly<Record<KvType, number>>;
}

/** How a figure is meant: rates, shares and multiples are better when they are more. */
export type Unit = "seconds" | "rate" | "bytes" | "share" | "times";

/** What a figure is made of: one contestant's turns of one round, and the model. */
export interface Source {
  turns: Readonly<Partial<Record<TurnName, Seen>>>;
  facts: Facts;
  /** How keys and values are kept where that is not the turn's own choice. */
  kv: KvType;
  flags: CountFlags;
}

/** One number of a scenario. */
export interface Figure {
  /** Its name in JSON. */
  name: string;
  label: string;
  unit: Unit;
  /** Not a number where a turn is missing. */
  of: (source: Source) => number;
}

/** Figures that answer one question. */
export interface Scenario {
  /** What is measured. */
  about: string;
  turns: readonly TurnName[];
  figures: readonly Figure[];
}

/** Every scenario, in the order in which they are shown. */
export const SCENARIOS = {
  load: {
    about: "from the start of a process to the first token of a short prompt, the file in the page cache",
    turns: ["load"],
    figures: [
      { name: "start_s", label: "start to first token", unit: "seconds", of: ({ turns }) => some(turns.load?.start_s) },
      { name: "load_s", label: "of that, the model", unit: "seconds", of: ({ turns }) => some(turns.load?.load_s) },
    ],
  },
  prefill: {
    about: "reading a prompt",
    turns: ["prefill"],
    figures: [
      { name: "tok_s", label: "reading a prompt", unit: "rate", of: ({ turns }) => some(turns.prefill?.prefill_tok_s) },
      {
        name: "share_of_int8_peak",
        label: "multiply-adds to the int8 peak",
        unit: "share",
        of: ({ turns: { prefill }, facts }) =>
          facts.layerParameters * some(prefill?.prefill_tok_s) / some(prefill?.limits?.multiply_adds_s),
      },
    ],
  },
  decode: {
    about: "writing a reply at a short context",
    turns: ["decode"],
    figures: [
      { name: "tok_s", label: "writing a reply", unit: "rate", of: ({ turns }) => some(turns.decode?.decode_tok_s) },
      {
        name: "share_of_bandwidth",
        label: "weights read to the bandwidth",
        unit: "share",
        of: ({ turns: { decode }, facts }) =>
          facts.bytesPerToken * some(decode?.decode_tok_s) / some(decode?.limits?.read_bytes_s),
      },
    ],
  },
  batch: {
    about: "8 conversations that write together",
    turns: ["decode", "batch"],
    figures: [
      { name: "tok_s", label: "8 replies, sum", unit: "rate", of: ({ turns }) => some(turns.batch?.decode_tok_s) },
      {
        name: "times_single",
        label: "8 replies to one",
        unit: "times",
        of: ({ turns }) => some(turns.batch?.decode_tok_s) / some(turns.decode?.decode_tok_s),
      },
    ],
  },
  depth: {
    about: "writing a reply behind a long context, keys and values in q8_0",
    turns: ["near", "far"],
    figures: [
      { name: "near_tok_s", label: "short context", unit: "rate", of: ({ turns }) => some(turns.near?.decode_tok_s) },
      { name: "far_tok_s", label: "long context", unit: "rate", of: ({ turns }) => some(turns.far?.decode_tok_s) },
      {
        name: "share_of_near",
        label: "long to short",
        unit: "share",
        of: ({ turns }) => some(turns.far?.decode_tok_s) / some(turns.near?.decode_tok_s),
      },
    ],
  },
  memory: {
    about: "the most that is resident at once",
    turns: ["memory"],
    figures: [
      { name: "peak_bytes", label: "peak", unit: "bytes", of: ({ turns }) => some(turns.memory?.peak_bytes) },
      {
        name: "times_file_and_cache",
        label: "peak to file and cache",
        unit: "times",
        of: ({ turns, facts, kv, flags }) =>
          some(turns.memory?.peak_bytes) /
          (facts.fileBytes + facts.cacheBytes[kv] * contextOf(turnNamed("memory", flags))),
      },
    ],
  },
  quote: {
    about: "a reply that repeats what the prompt says, and one that does not, with and without speculation",
    turns: ["decode", "guess", "plain", "quote"],
    figures: [
      { name: "tok_s", label: "quoting", unit: "rate", of: ({ turns }) => some(turns.quote?.decode_tok_s) },
      {
        name: "plain_tok_s",
        label: "no speculation",
        unit: "rate",
        of: ({ turns }) => some(turns.plain?.decode_tok_s),
      },
      {
        name: "times_plain",
        label: "with to without",
        unit: "times",
        of: ({ turns }) => some(turns.quote?.decode_tok_s) / some(turns.plain?.decode_tok_s),
      },
      {
        name: "decode_times_plain",
        label: "the same, not quoting",
        unit: "times",
        of: ({ turns }) => some(turns.guess?.decode_tok_s) / some(turns.decode?.decode_tok_s),
      },
      { name: "repeated", label: "tokens as before", unit: "share", of: ({ turns }) => some(turns.plain?.repeated) },
    ],
  },
  neighbour: {
    about: "writing a reply while another process keeps a core busy",
    turns: ["decode", "busy"],
    figures: [
      { name: "tok_s", label: "busy machine", unit: "rate", of: ({ turns }) => some(turns.busy?.decode_tok_s) },
      {
        name: "share_of_quiet",
        label: "busy to quiet",
        unit: "share",
        of: ({ turns }) => some(turns.busy?.decode_tok_s) / some(turns.decode?.decode_tok_s),
      },
    ],
  },
} as const satisfies Record<string, Scenario>;

/** The name of a scenario. */
export type ScenarioName = keyof typeof SCENARIOS;
/** All of them, in order. */
export const SCENARIO_NAMES = Object.keys(SCENARIOS) as ScenarioName[];

function some(value: number | undefined): number {
  return value ?? NaN;
}

/** The middle value, or the mean of the two in the middle; not a number of none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
