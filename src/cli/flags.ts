/**
 * The command line as data: every flag and every command stands in one table here, and parsing, range checks, help
 * texts and their tests all read it.
 *
 * Absent here on purpose: what the commands do.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { TEMPLATE_NAMES } from "../chat/mod.ts";
import { WINDOW } from "../eval/perplexity.ts";
import { ENGINE_NAMES, SPECULATE } from "../engine/mod.ts";
import { DEFAULT_MODEL } from "../models/catalogue.ts";
import { MAX_CHOICES } from "../protocol/limits.ts";
import { BUILT_IN_SAMPLING } from "../sessions/sampling.ts";
import { KV_TYPES, SCENARIO_NAMES, TURN_NAMES } from "./bench_table.ts";
import { UsageError } from "./errors.ts";

/** Where packed weights are. */
export const PACKED = ["cache", "memory"] as const;

/** A closed interval, unless an end is excluded. */
export interface Range {
  min?: number;
  max?: number;
  /** The interval begins just above `min`. */
  above?: boolean;
}

/** One flag. */
export interface FlagSpec {
  type: "boolean" | "text" | "number" | "integer";
  /** One letter, for those who type it often. */
  short?: string;
  /** What stands for the value in help texts. */
  placeholder?: string;
  range?: Range;
  /** The values that are allowed, when they are few. */
  choices?: readonly string[];
  /** Used when the flag is absent. */
  default?: string | number;
  /** What happens when the flag is absent and that is decided elsewhere. */
  otherwise?: string;
  help: string;
  /** The flag as somebody would use it. */
  example: string;
}

/** How weights can be stored, from the most bits to the fewest; the core's `FileType`. */
const FILE_TYPES = [
  "f32",
  "f16",
  "bf16",
  "q8_0",
  "q6_k",
  "q5_k_m",
  "q5_1",
  "q5_0",
  "q4_k_m",
  "q4_1",
  "q4_0",
] as const;

/** Largest token count that crosses the C border. */
const MAX_TOKENS = 2 ** 31 - 1;

/** Every flag of every command. */
export const FLAGS = {
  model: {
    type: "text",
    short: "m",
    placeholder: "PATH|NAME",
    default: DEFAULT_MODEL,
    help: "a model of the Llama family: a folder (pdparams, safetensors, PyTorch or GGUF), one of its files, or the " +
      "name of a known model, which is fetched when it is not here yet",
    example: "--model ./vicuna-7b-v1.5",
  },
  quantize: {
    type: "text",
    placeholder: "TYPE",
    otherwise: "the weights are used as they are",
    help: "use the weights in this type; made once and kept in the cache",
    choices: FILE_TYPES,
    example: "--quantize q4_k_m",
  },
  lora: {
    type: "text",
    placeholder: "FOLDER[,FOLDER]",
    otherwise: "nothing is merged",
    help: "merge these PEFT adapters into the weights",
    example: "--lora ./my-adapter",
  },
  draft: {
    type: "text",
    placeholder: "PATH",
    otherwise: "replies guess ahead from their own text alone",
    help: "let this smaller model with the same vocabulary guess ahead: the same replies, faster",
    example: "--draft ./llama-68m.gguf",
  },
  speculate: {
    type: "text",
    placeholder: "WHEN",
    default: "auto",
    help: "guess ahead and check several tokens at once, where that pays; replies are the same",
    choices: SPECULATE,
    example: "--speculate off",
  },
  type: {
    type: "text",
    placeholder: "TYPE",
    otherwise: "f16, or q4_k_m for quantize",
    help: "how weights are stored; safetensors can have f32, f16 and bf16",
    choices: FILE_TYPES,
    example: "--type q5_k_m",
  },
  force: { type: "boolean", help: "replace what is there already", example: "--force" },
  "chat-template": {
    type: "text",
    placeholder: "NAME|FILE",
    otherwise: "the model's own, or one that its name asks for",
    help: `how messages become a prompt: ${TEMPLATE_NAMES.join(", ")} (\`model\` is the model's own), ` +
      "or a file with Jinja, also as the chat_template of a tokenizer_config.json",
    example: "--chat-template vicuna-v1.1",
  },
  engine: {
    type: "text",
    placeholder: "NAME",
    default: "auto",
    help: "what computes; `auto` is native where its library can be loaded, else WebAssembly, which is slower",
    choices: ENGINE_NAMES,
    example: "--engine wasm",
  },
  device: {
    type: "text",
    placeholder: "NAME",
    otherwise: "cpu",
    help: "where the model runs: cpu, or cuda or cuda:N (an NVIDIA GPU by its number) in a core built for it",
    example: "--device cuda:1",
  },
  kv: {
    type: "text",
    placeholder: "TYPE",
    otherwise: "f16",
    help: "how conversations keep keys and values; q8_0 takes half the memory of f16",
    choices: KV_TYPES,
    example: "--kv q8_0",
  },
  packed: {
    type: "text",
    placeholder: "WHERE",
    default: "cache",
    help:
      "where weights are in the form that the CPU reads: `cache` makes a file of them once, as large as the model, " +
      "in the cache folder, and maps it at each later start; `memory` makes them at each start",
    choices: PACKED,
    example: "--packed memory",
  },
  system: {
    type: "text",
    placeholder: "TEXT",
    otherwise: "the template's own",
    help: "what the model is told before the conversation",
    example: '--system "Answer in one sentence."',
  },
  temperature: {
    type: "number",
    short: "t",
    range: { min: 0, max: 100 },
    otherwise: `the model's, or ${BUILT_IN_SAMPLING.temperature}`,
    help: "how adventurous the choice of words is; 0 always takes the most probable one",
    example: "--temperature 0",
  },
  "top-p": {
    type: "number",
    range: { min: 0, max: 1, above: true },
    otherwise: `the model's, or ${BUILT_IN_SAMPLING.topP}`,
    help: "choose among the most probable tokens that together reach this probability; 1 keeps all",
    example: "--top-p 0.9",
  },
  "top-k": {
    type: "integer",
    range: { min: 0, max: MAX_TOKENS },
    otherwise: `the model's, or ${BUILT_IN_SAMPLING.topK}`,
    help: "choose among this many most probable tokens; 0 keeps all",
    example: "--top-k 50",
  },
  "min-p": {
    type: "number",
    range: { min: 0, max: 1 },
    otherwise: `the model's, or ${BUILT_IN_SAMPLING.minP}`,
    help: "drop tokens below this share of the highest probability; 0 keeps all",
    example: "--min-p 0.1",
  },
  "repeat-penalty": {
    type: "number",
    range: { min: 0, max: 10, above: true },
    otherwise: `the model's, or ${BUILT_IN_SAMPLING.repeatPenalty}`,
    help: "make tokens that were seen already less probable (above 1) or more probable (below 1)",
    example: "--repeat-penalty 1.1",
  },
  seed: {
    type: "integer",
    range: { min: 0, max: Number.MAX_SAFE_INTEGER },
    otherwise: "random",
    help: "the same seed and conversation give the same reply",
    example: "--seed 42",
  },
  "max-tokens": {
    type: "integer",
    short: "n",
    range: { min: 1, max: MAX_TOKENS },
    otherwise: "as far as the model recommends, or until the context is full",
    help: "longest reply, in tokens",
    example: "--max-tokens 200",
  },
  context: {
    type: "integer",
    range: { min: 1, max: MAX_TOKENS },
    otherwise: "the model's",
    help: "most tokens of prompt and reply together; less needs less memory",
    example: "--context 2048",
  },
  host: {
    type: "text",
    placeholder: "ADDRESS",
    default: "127.0.0.1",
    help: "address to listen on; one that other machines reach needs keys",
    example: "--host ::1",
  },
  keys: {
    type: "text",
    placeholder: "FILE",
    otherwise: "the key in LLAMERO_API_KEY, or everybody may come in",
    help: "the keys that may use the server, a line of `llamero key` each; read again at SIGHUP",
    example: "--keys ./keys.jsonl",
  },
  "insecure-no-key": {
    type: "boolean",
    help: "let everybody in who can connect, from other machines as well",
    example: "--insecure-no-key",
  },
  "allow-host": {
    type: "text",
    placeholder: "NAME[,NAME]",
    otherwise: "localhost and addresses",
    help: "names under which clients may reach the server",
    example: "--allow-host llm.example",
  },
  "allow-origin": {
    type: "text",
    placeholder: "ORIGIN[,ORIGIN]",
    otherwise: "no other pages",
    help: "web pages that may use the server from a browser",
    example: "--allow-origin https://chat.example",
  },
  "tls-cert": {
    type: "text",
    placeholder: "FILE",
    otherwise: "connections are not encrypted",
    help: "certificate chain as PEM",
    example: "--tls-cert ./cert.pem",
  },
  "tls-key": {
    type: "text",
    placeholder: "FILE",
    otherwise: "connections are not encrypted",
    help: "private key of the certificate as PEM",
    example: "--tls-key ./key.pem",
  },
  "limit-tokens": {
    type: "integer",
    range: { min: 1, max: MAX_TOKENS },
    otherwise: "the context is the limit",
    help: "most new tokens of a reply; a request for more is refused",
    example: "--limit-tokens 1024",
  },
  "limit-choices": {
    type: "integer",
    range: { min: 1, max: MAX_CHOICES },
    otherwise: String(MAX_CHOICES),
    help: "most replies to one request",
    example: "--limit-choices 4",
  },
  "request-timeout": {
    type: "number",
    placeholder: "SECONDS",
    range: { min: 0, max: 86_400, above: true },
    otherwise: "no limit",
    help: "longest time for the replies to a request, with their wait; then they end with an error",
    example: "--request-timeout 300",
  },
  "log-prompts": { type: "boolean", help: "log what is asked and replied as well", example: "--log-prompts" },
  models: {
    type: "text",
    placeholder: "NAME[,NAME]",
    otherwise: "all",
    help: "models that the key may use",
    example: "--models vicuna-7b-v1.5",
  },
  "requests-per-minute": {
    type: "integer",
    range: { min: 1, max: 1_000_000 },
    otherwise: "no limit",
    help: "requests that the key may send in a minute",
    example: "--requests-per-minute 60",
  },
  "tokens-per-minute": {
    type: "integer",
    range: { min: 1, max: MAX_TOKENS },
    otherwise: "no limit",
    help: "tokens of prompts and replies that the key may use in a minute",
    example: "--tokens-per-minute 20000",
  },
  "max-running": {
    type: "integer",
    range: { min: 1, max: 1024 },
    otherwise: "no limit",
    help: "replies that the key may have in progress at once",
    example: "--max-running 2",
  },
  "max-waiting": {
    type: "integer",
    range: { min: 0, max: 1024 },
    otherwise: "0",
    help: "replies beyond --max-running that wait instead of being refused",
    example: "--max-waiting 4",
  },
  expires: {
    type: "text",
    placeholder: "DATE",
    otherwise: "never",
    help: "when the key ends, in UTC",
    example: "--expires 2027-01-31",
  },
  port: {
    type: "integer",
    short: "p",
    range: { min: 0, max: 65535 },
    default: 8000,
    help: "port to listen on; 0 takes any free one",
    example: "--port 8080",
  },
  drain: {
    type: "number",
    placeholder: "SECONDS",
    range: { min: 0, max: 3600 },
    default: 30,
    help: "how long replies may go on after a signal to stop; those that are not done by then end with an error",
    example: "--drain 5",
  },
  window: {
    type: "integer",
    range: { min: 4, max: 1_000_000 },
    default: WINDOW,
    help: "tokens that are read together; the second half of them is scored",
    example: "--window 2048",
  },
  windows: {
    type: "integer",
    range: { min: 1, max: 1_000_000 },
    otherwise: "all that the text has",
    help: "stop after so many windows",
    example: "--windows 20",
  },
  store: {
    type: "text",
    placeholder: "FILE|URL|memory",
    otherwise: "a file in llamero's cache folder",
    help: "where conversations and responses are kept: a file, a KV Connect URL (its token in DENO_KV_ACCESS_TOKEN), " +
      "or `memory`, which forgets them at the end",
    example: "--store ./conversations.sqlite",
  },
  "prompt-tokens": {
    type: "integer",
    range: { min: 1, max: 1_000_000 },
    otherwise: "what each turn has",
    help: "length of prompts",
    example: "--prompt-tokens 128",
  },
  "decode-tokens": {
    type: "integer",
    range: { min: 2, max: 1_000_000 },
    otherwise: "what each turn has",
    help: "length of replies",
    example: "--decode-tokens 64",
  },
  rounds: {
    type: "integer",
    range: { min: 1, max: 100 },
    default: 3,
    help: "how often everything is measured; medians are shown",
    example: "--rounds 5",
  },
  peer: {
    type: "boolean",
    help: "measure llama.cpp in turns with llamero (llama-cpp-python in LLAMERO_PEER_PYTHON, else in python3)",
    example: "--peer",
  },
  wasm: {
    type: "boolean",
    help: "measure the WebAssembly engine in turns with the native one",
    example: "--wasm",
  },
  only: {
    type: "text",
    placeholder: "NAME[,NAME]",
    otherwise: "all",
    help: `what to measure: ${SCENARIO_NAMES.join(", ")}`,
    example: "--only prefill,decode",
  },
  quick: { type: "boolean", help: "shorter prompts and replies, for a first look or a slow model", example: "--quick" },
  turn: {
    type: "text",
    placeholder: "NAME",
    otherwise: "all that is to be measured, each in a process of its own",
    help:
      "take one turn in this process and print what was measured as JSON, for profilers; with --wasm in WebAssembly",
    choices: TURN_NAMES,
    example: "--turn decode",
  },
  json: { type: "boolean", help: "machine-readable output: one JSON object per line", example: "--json" },
  quiet: { type: "boolean", short: "q", help: "no progress and no remarks", example: "--quiet" },
  help: { type: "boolean", short: "h", help: "show this text", example: "--help" },
} as const satisfies Record<string, FlagSpec>;

/** The name of a flag, without its hyphens. */
export type FlagName = keyof typeof FLAGS;

type ValueOf<T extends FlagSpec["type"]> = T extends "boolean" ? boolean : T extends "text" ? string : number;

/** The value of each flag; absent ones without a default are missing. */
export type FlagValues = { -readonly [K in FlagName]?: ValueOf<(typeof FLAGS)[K]["type"]> };

/** One command. */
export interface CommandSpec {
  summary: string;
  /** What may follow besides flags, as help texts show it; nothing may when it is missing. */
  positional?: string;
  flags: readonly FlagName[];
  /** Command lines after the program's name. */
  examples: readonly string[];
}

const MODEL = ["model", "quantize", "lora", "engine", "device", "kv", "packed"] as const;
const SPEED = ["draft", "speculate"] as const;
const SAMPLING = ["temperature", "top-p", "top-k", "min-p", "repeat-penalty", "seed", "max-tokens"] as const;
const ACCESS = ["keys", "insecure-no-key", "allow-host", "allow-origin", "tls-cert", "tls-key"] as const;
const LIMITS = ["limit-tokens", "limit-choices", "request-timeout", "log-prompts"] as const;

/** Every command. */
export const COMMANDS = {
  chat: {
    summary: "talk to a model: interactively, or once with a prompt or piped text",
    positional: "[PROMPT...]",
    flags: [...MODEL, ...SPEED, "chat-template", "system", ...SAMPLING, "context", "json", "quiet", "help"],
    examples: [
      "chat",
      'chat "Why is the sky blue?"',
      "chat --temperature 0 --max-tokens 50 Name three rivers",
      'cat notes.txt | llamero chat "Summarise:" -',
      "chat --model ./vicuna-7b-v1.5 --quantize q4_k_m",
    ],
  },
  serve: {
    summary: "serve a model over HTTP and WebSocket, as OpenAI's clients speak it",
    flags: [
      ...MODEL,
      ...SPEED,
      "chat-template",
      ...SAMPLING,
      "context",
      "host",
      "port",
      ...ACCESS,
      ...LIMITS,
      "drain",
      "store",
      "json",
      "quiet",
      "help",
    ],
    examples: [
      "serve",
      "serve --model ./llama-2-7b-chat.Q4_0.gguf --port 8080",
      "serve --engine wasm",
      "serve --host 0.0.0.0 --keys ./keys.jsonl --tls-cert ./cert.pem --tls-key ./key.pem",
    ],
  },
  key: {
    summary: "make a key for serve: its line for the file of keys goes to standard output",
    positional: "NAME",
    flags: [
      "models",
      "requests-per-minute",
      "tokens-per-minute",
      "max-running",
      "max-waiting",
      "expires",
      "json",
      "help",
    ],
    examples: ["key alice >> keys.jsonl", "key bob --requests-per-minute 60 --expires 2027-01-31"],
  },
  pull: {
    summary: "fetch a known model and print where it is",
    positional: "[NAME]",
    flags: ["quiet", "help"],
    examples: ["pull", `pull ${DEFAULT_MODEL}`],
  },
  inspect: {
    summary: "show what a model is, the memory it needs here, and how it is prompted",
    positional: "[MODEL]",
    flags: ["model", "lora", "chat-template", "context", "json", "help"],
    examples: ["inspect ./vicuna-7b-v1.5", "inspect ./llama-2-7b-chat.Q4_0.gguf --json", "inspect"],
  },
  convert: {
    summary: "write a model of any format as GGUF (when OUT ends with .gguf) or safetensors",
    positional: "MODEL OUT",
    flags: ["type", "lora", "force", "json", "quiet", "help"],
    examples: [
      "convert ./vicuna-7b-v1.5 vicuna-7b-v1.5.f16.gguf",
      "convert ./vicuna-7b-v1.5/model_state.pdparams ./vicuna-safetensors --type bf16",
      "convert ./llama-2-7b merged.gguf --lora ./my-adapter --type q8_0",
    ],
  },
  quantize: {
    summary: "write a model as GGUF with fewer bits per weight, as llama.cpp does",
    positional: "MODEL [OUT]",
    flags: ["type", "lora", "force", "json", "quiet", "help"],
    examples: ["quantize ./vicuna-7b-v1.5", "quantize model.f16.gguf model.q5_k_m.gguf --type q5_k_m"],
  },
  "apply-delta": {
    summary: "add the weights of a delta release to those of its base",
    positional: "BASE DELTA OUT",
    flags: ["type", "force", "json", "quiet", "help"],
    examples: ["apply-delta ./llama-7b ./vicuna-7b-delta-v1.1 ./vicuna-7b-v1.1"],
  },
  perplexity: {
    summary: "measure how well a model predicts a text file",
    positional: "FILE",
    flags: [...MODEL, "window", "windows", "context", "json", "quiet", "help"],
    examples: [
      "perplexity wiki.test.raw",
      "perplexity book.txt --model ./vicuna-7b-v1.5 --windows 20",
    ],
  },
  bench: {
    summary: "measure speed and memory beside llama.cpp, and as shares of the machine's limits",
    flags: [
      "model",
      "only",
      "rounds",
      "peer",
      "wasm",
      "quick",
      "prompt-tokens",
      "decode-tokens",
      ...SPEED,
      "kv",
      "packed",
      "turn",
      "json",
      "quiet",
      "help",
    ],
    examples: [
      "bench",
      "bench --peer --only prefill,decode --rounds 5",
      "bench --model ./llama-2-7b-chat.Q4_0.gguf --peer --quick --json",
      "bench --turn decode --decode-tokens 500",
    ],
  },
  test: {
    summary: "check everything: format, lint, types, rooms, and the tests of both languages",
    positional: "[--only STEP]",
    flags: [],
    examples: ["test", "test --only deno-test"],
  },
  version: { summary: "show the version", flags: ["help"], examples: ["version"] },
  help: {
    summary: "show what there is, or how one command works",
    positional: "[COMMAND]",
    flags: ["help"],
    examples: ["help", "help chat"],
  },
} as const satisfies Record<string, CommandSpec>;

/** The name of a command. */
export type CommandName = keyof typeof COMMANDS;

/** A command line that is understood. */
export interface Parsed {
  values: FlagValues;
  positionals: string[];
}

/** The command called `name`. */
export function parseCommand(name: string): CommandName {
  if (Object.hasOwn(COMMANDS, name)) return name as CommandName;
  const hint = suggestion(name, Object.keys(COMMANDS));
  throw new UsageError(`unknown command "${name}"${hint}; llamero help shows what there is`);
}

/**
 * Read what follows the command's name.
 *
 * @throws {UsageError} with the sentence for the person.
 */
export function parseFlags(command: CommandName, args: readonly string[]): Parsed {
  const spec: CommandSpec = COMMANDS[command];
  const options = Object.fromEntries(spec.flags.map((name) => {
    const { type, short } = FLAGS[name] as FlagSpec;
    return [name, { type: type === "boolean" ? "boolean" : "string", ...(short ? { short } : {}) } as const];
  }));
  const { tokens, positionals } = parseArgs({
    args: [...args],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const values: FlagValues = {};
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const name = knownFlag(command, token.name, token.rawName);
    assign(values, name, valueOf(name, token.value));
  }
  if (positionals.length > 0 && !spec.positional) {
    throw new UsageError(`llamero ${command}: expected only flags, got "${positionals[0]}"`);
  }
  return { values: { ...defaults(spec), ...values }, positionals };
}

function defaults(spec: CommandSpec): FlagValues {
  const values: FlagValues = {};
  for (const name of spec.flags) {
    const { default: value } = FLAGS[name] as FlagSpec;
    if (value !== undefined) assign(values, name, value);
  }
  return values;
}

/** `valueOf` and the table keep value and name together; the compiler cannot see that through a union of names. */
function assign(values: FlagValues, name: FlagName, value: string | number | boolean): void {
  (values as Record<string, string | number | boolean>)[name] = value;
}

function knownFlag(command: CommandName, name: string, raw: string): FlagName {
  const flags: readonly string[] = COMMANDS[command].flags;
  if (flags.includes(name)) return name as FlagName;
  const hint = raw.startsWith("--") ? suggestion(name, flags, "--") : "";
  throw new UsageError(`llamero ${command}: unknown flag ${raw}${hint}; llamero help ${command} lists them`);
}

function valueOf(name: FlagName, text: string | undefined): string | number | boolean {
  const spec: FlagSpec = FLAGS[name];
  if (spec.type === "boolean") {
    if (text !== undefined) throw new UsageError(`--${name}: expected no value, got "${text}"`);
    return true;
  }
  // A text may begin with a hyphen, but another flag in the place of a value is a slip.
  if (text === undefined || /^--[a-z]/.test(text)) throw expected(name, text ?? "nothing");
  if (spec.type === "text") {
    if (text === "" || (spec.choices && !spec.choices.includes(text))) throw expected(name, JSON.stringify(text));
    return text;
  }
  const value = text.trim() === "" ? NaN : Number(text);
  if (!fits(spec, value)) throw expected(name, JSON.stringify(text));
  return value;
}

function fits({ type, range = {} }: FlagSpec, value: number): boolean {
  const { min = -Infinity, max = Infinity, above = false } = range;
  const whole = type !== "integer" || Number.isSafeInteger(value);
  return Number.isFinite(value) && whole && value <= max && (above ? value > min : value >= min);
}

function expected(name: FlagName, got: string): UsageError {
  return new UsageError(`--${name}: expected ${describeValue(FLAGS[name])}, got ${got}`);
}

/** What a flag wants, such as `a number above 0 up to 1`. */
export function describeValue({ type, range, choices }: FlagSpec): string {
  if (choices) return `one of ${choices.join(", ")}`;
  if (type === "text") return "a text";
  const noun = type === "integer" ? "an integer" : "a number";
  if (!range) return noun;
  const max = range.max === Number.MAX_SAFE_INTEGER ? "2^53-1" : range.max === MAX_TOKENS ? "2^31-1" : range.max;
  return range.above ? `${noun} above ${range.min} up to ${max}` : `${noun} from ${range.min} to ${max}`;
}

function suggestion(name: string, known: readonly string[], prefix = ""): string {
  const limit = Math.max(1, Math.floor(name.length / 3));
  const near = known.map((each) => ({ each, far: distance(name, each) })).sort((a, b) => a.far - b.far)[0];
  return near && near.far <= limit ? `; did you mean ${prefix}${near.each}?` : "";
}

/** Edits (insert, remove, replace, swap of neighbours) between two short words. */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      row[j] = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + (same ? 0 : 1));
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) row[j] = Math.min(row[j]!, rows[i - 2]![j - 2]! + 1);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}
