/**
 * The rule between rooms: use points one way only. Reads `use` and `import` lines and a few forbidden words, and fails
 * on each that breaks the tables below.
 *
 *     deno run --allow-read scripts/check_rooms.ts
 *
 * Absent here on purpose: parsing. Comments are blanked and the rest is matched as text, which is exact enough for code
 * that rustfmt and deno fmt have laid out.
 *
 * @module
 */
import { dirname, join, normalize, relative } from "node:path";

/** One side of the house and which rooms each of its rooms may use (besides itself). */
export interface House {
  /** Folder of the rooms, from the root of the checkout. */
  dir: string;
  /** File names that belong to it. */
  suffix: ".rs" | ".ts";
  rooms: Readonly<Record<string, readonly string[]>>;
}

/** What stands between the lowest room and the ones that join things. */
const RUST_PARTS = ["error", "tokenizer", "sampling", "kernels", "model"];

/**
 * core-rs: error → formats, tokenizer, sampling, kernels, quantize → model → load → checkpoint → convert, inspect and
 * engine → records, constrain → platform → ffi, wasm.
 */
export const RUST: House = {
  dir: "core-rs/src",
  suffix: ".rs",
  rooms: {
    error: [],
    formats: ["error"],
    tokenizer: ["error"],
    sampling: ["error"],
    kernels: ["error"],
    // Floats to the blocks that files store.
    quantize: ["error", "formats", "kernels"],
    model: ["error", "kernels"],
    // The one place where formats meet the model and the tokenizer.
    load: [...RUST_PARTS, "formats"],
    // Files of any format as one thing: GGUF's keys and names, and rows of tensors.
    checkpoint: [...RUST_PARTS, "formats", "quantize", "load"],
    // A checkpoint written down again, and described.
    convert: ["error", "formats", "kernels", "quantize", "checkpoint"],
    inspect: ["error", "formats", "model", "quantize", "checkpoint", "load", "convert"],
    // Who runs next and when one ends; it is stepped from outside and knows no thread.
    engine: [...RUST_PARTS],
    // What a reply must be, compiled for the engine.
    constrain: ["error", "tokenizer", "engine"],
    // What leaves a host, and its bytes; the same through both borders.
    records: ["error", "engine"],
    // What differs between machines (threads, clocks, seeds, mapped files), and the loops that drive an engine with it.
    platform: [
      ...RUST_PARTS,
      "formats",
      "quantize",
      "checkpoint",
      "load",
      "convert",
      "inspect",
      "engine",
      "constrain",
      "records",
    ],
    // The same verbs outward, for C and for JavaScript.
    ffi: ["error", "sampling", "engine", "records", "platform"],
    wasm: ["error", "sampling", "engine", "records", "platform"],
    // The crate's front door: names the rooms, uses none.
    lib: [],
  },
};

/** src: protocol → engine, chat, models → sessions → api → edge, and eval; cli → main. */
export const TYPESCRIPT: House = {
  dir: "src",
  suffix: ".ts",
  rooms: {
    protocol: [],
    engine: [],
    chat: [],
    models: [],
    sessions: ["protocol", "engine", "chat"],
    api: ["protocol", "engine", "chat", "sessions"],
    // Scores of a model over texts.
    eval: ["engine"],
    cli: ["protocol", "engine", "chat", "models", "sessions", "api", "eval"],
    // The only places that join real parts: the program, and the service for runtimes at the edge.
    edge: ["protocol", "engine", "chat", "sessions", "api"],
    main: ["protocol", "engine", "chat", "models", "sessions", "api", "eval", "cli"],
  },
};

/** Words that are allowed in some places only. */
export interface WordRule {
  word: RegExp;
  /** Whether a file, by its path from the root, must not have the word. */
  forbidden: (path: string) => boolean;
  /** Whether one line of such a file may have it all the same, by the line that follows. */
  except?: (path: string, next: string) => boolean;
  reason: string;
}

/** Rooms that run on any runtime. */
const NEUTRAL_ROOMS = ["src/api", "src/chat", "src/protocol", "src/sessions"];
/** What else src/edge.ts needs: the engine in WebAssembly, which shares its room with code for Deno. */
const NEUTRAL_FILES = new Set([
  "src/edge.ts",
  ...["engine", "records", "request", "streams", "wasm", "wasm_core", "wasm_link", "wasm_worker"].map((
    name,
  ) => `src/engine/${name}.ts`),
]);

/** Every rule about words. */
export const WORD_RULES: readonly WordRule[] = [
  {
    // Other conditions (test, feature, debug_assertions) are no matter of the machine.
    word:
      /\bcfg(?:_attr)?!?\s*\(.*\btarget_(?:arch|family|os|env|feature|pointer_width)\b|\bcfg(?:_attr)?!?\s*\(.*\b(?:unix|windows)\b/,
    forbidden: (path) => inside(path, "core-rs/src") && !inside(path, "core-rs/src/kernels", "core-rs/src/platform"),
    // Some rooms are there for one kind of machine as a whole: exported symbols or JavaScript glue, and what the edge does
    // without (checkpoints of other formats, conversion, grammars). Nothing but their names in the crate's front door needs a
    // condition.
    except: (path, next) =>
      path === "core-rs/src/lib.rs" && /^pub mod (?:checkpoint|constrain|convert|ffi|inspect|wasm);$/.test(next),
    reason: "code for one kind of machine belongs to kernels/ or platform/",
  },
  {
    word: /\bDeno\s*[.[]|\bfrom "(?:node:|hono\/deno)/,
    forbidden: (path) => (NEUTRAL_ROOMS.some((dir) => inside(path, dir)) || NEUTRAL_FILES.has(path)) && !isTest(path),
    reason: "this code runs on any runtime",
  },
  {
    word: /\bnew Worker\b/,
    forbidden: (path) => path !== "src/engine/wasm_link.ts" && !isTest(path),
    reason: "only src/engine/wasm_link.ts starts Workers",
  },
  {
    word: /\bllamero(?:_bg\.wasm|\.js)\b/,
    forbidden: (path) => inside(path, "src") && path !== "src/engine/open.ts" && !isTest(path),
    reason: "generated files are found by src/engine/open.ts or handed in",
  },
  {
    word: /\bDeno\.dlopen\b/,
    forbidden: (path) => path !== "src/engine/native.ts" && !isTest(path),
    reason: "only src/engine/native.ts loads the core",
  },
];

/** A broken rule. */
export interface Breach {
  path: string;
  /** From 1. */
  line: number;
  reason: string;
}

/** All breaches of one file, given by its path from the root and its text. */
export function checkFile(path: string, text: string): Breach[] {
  const house = [RUST, TYPESCRIPT].find(({ dir, suffix }) => inside(path, dir) && path.endsWith(suffix));
  const lines = withoutComments(text).split("\n");
  return [...(house ? useBreaches(house, path, lines) : []), ...wordBreaches(path, lines)];
}

/** The room that a path inside a house belongs to: its folder, or the file's own name at the top (a test's is that of what it tests). */
export function roomOf({ dir, suffix }: House, path: string): string {
  const [first = ""] = relative(dir, path).split("/");
  return first.endsWith(suffix) ? first.slice(0, -suffix.length).replace(/_test$/, "") : first;
}

function useBreaches(house: House, path: string, lines: readonly string[]): Breach[] {
  const room = roomOf(house, path);
  const allowed = house.rooms[room];
  if (!allowed) {
    return [{ path, line: 1, reason: `unknown room ${room}; its place is a line in scripts/check_rooms.ts` }];
  }
  const used = house.suffix === ".rs" ? rustUses(path, lines) : typescriptUses(house, path, lines);
  return used.filter((use) => use.room !== room && !allowed.includes(use.room)).map(({ line, room: other }) => ({
    path,
    line,
    reason: `${room} must not use ${other}; it may use ${allowed.join(", ") || "no other room"}`,
  }));
}

interface Use {
  room: string;
  line: number;
}

/** `crate::room` and as many `super::` as lead to the crate's top, also with a brace group over several lines. */
function rustUses(path: string, lines: readonly string[]): Use[] {
  const text = lines.join("\n");
  const depth = moduleDepth(path);
  const uses: Use[] = [];
  for (const match of text.matchAll(/\b(crate|super(?:\s*::\s*super)*)\s*::\s*(?:([a-z_][a-z0-9_]*)|\{)/g)) {
    if (match[1] !== "crate" && match[1]!.split("::").length < depth) continue;
    const rooms = match[2] ? [match[2]] : braceHeads(text.slice(match.index + match[0].length));
    const line = lineAt(text, match.index);
    // Items at the crate's top (macros, constants) are not rooms.
    uses.push(...rooms.filter((room) => Object.hasOwn(RUST.rooms, room)).map((room) => ({ room, line })));
  }
  return uses;
}

/** How many `super` lead from a file's module to the crate's top: 1 for `a.rs` and `a/mod.rs`, 2 for `a/b.rs`. */
function moduleDepth(path: string): number {
  return relative(RUST.dir, path).replace(/(\/mod)?\.rs$/, "").split("/").length;
}

/** First names inside a brace group, given the text after its opening brace. */
function braceHeads(text: string): string[] {
  let [depth, head, heads] = [0, "", [] as string[]];
  for (const char of text) {
    if (char === "}" && depth === 0) break;
    if (char === "{") depth++;
    else if (char === "}") depth--;
    else if (char === "," && depth === 0) [heads, head] = [[...heads, head], ""];
    else if (depth === 0) head += char;
  }
  return [...heads, head].map((each) => each.trim().split(/\s*(?:::|\s)/)[0]!).filter(Boolean);
}

/** Relative imports and exports, static, dynamic and as `new URL("...", import.meta.url)`. */
function typescriptUses(house: House, path: string, lines: readonly string[]): Use[] {
  const text = lines.join("\n");
  const uses: Use[] = [];
  for (const match of text.matchAll(/(?:\bfrom|\bimport|\bimport\s*\(|\bnew URL\s*\()\s*(["'`])(\.[^"'`]*)\1/g)) {
    const target = normalize(join(dirname(path), match[2]!));
    if (inside(target, house.dir)) uses.push({ room: roomOf(house, target), line: lineAt(text, match.index) });
  }
  return uses;
}

function wordBreaches(path: string, lines: readonly string[]): Breach[] {
  return WORD_RULES.filter((rule) => rule.forbidden(path)).flatMap(({ word, except, reason }) =>
    lines.flatMap((text, i) =>
      word.test(text) && !except?.(path, lines[i + 1] ?? "")
        ? [{ path, line: i + 1, reason: `${text.trim()}: ${reason}` }]
        : []
    )
  );
}

/** The text with comments blanked; line numbers stay. Quotes are left alone, as import paths are inside them. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\/|(?<!:)\/\/.*/g, (comment) => comment.replace(/[^\n]/g, " "));
}

function lineAt(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}

function inside(path: string, ...dirs: string[]): boolean {
  return dirs.some((dir) => path.startsWith(`${dir}/`));
}

function isTest(path: string): boolean {
  return path.endsWith("_test.ts");
}

/** All breaches in the checkout at `root`. */
export async function checkRooms(root: string): Promise<Breach[]> {
  const breaches: Breach[] = [];
  for (const { dir, suffix } of [RUST, TYPESCRIPT]) {
    for (const path of await filesBelow(root, dir, suffix)) {
      breaches.push(...checkFile(path, await Deno.readTextFile(join(root, path))));
    }
  }
  return breaches;
}

async function filesBelow(root: string, dir: string, suffix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(join(root, dir))) {
    const path = `${dir}/${name}`;
    if (isDirectory) found.push(...await filesBelow(root, path, suffix));
    else if (name.endsWith(suffix)) found.push(path);
  }
  return found.sort();
}

if (import.meta.main) {
  const breaches = await checkRooms(join(import.meta.dirname!, ".."));
  for (const { path, line, reason } of breaches) console.error(`${path}:${line}: ${reason}`);
  if (breaches.length > 0) Deno.exit(1);
}
