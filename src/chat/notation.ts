/**
 * How models write calls of functions: what a reply that calls must look like, and by what a template shows that its model
 * writes so. Reading is more lenient: `tool_parser.ts` takes them all.
 *
 * @module
 */

/** Name of a notation. */
export type ToolNotation = "hermes" | "llama" | "mistral";

/** The fixed texts of a notation. A marker may be a token of its own. */
export interface NotationTexts {
  /** Marker, and what follows it, before all calls. */
  first: readonly [marker: string, text: string];
  /** The same before each call. */
  before: readonly [marker: string, text: string];
  /** Name of the field with the arguments. */
  arguments: "arguments" | "parameters";
  /** What ends each call: text, then a marker. */
  after: readonly [text: string, marker: string];
  /** Between two calls. */
  between: string;
  /** After the last call. */
  last: string;
}

/** The notations. */
export const NOTATIONS: Readonly<Record<ToolNotation, NotationTexts>> = {
  hermes: {
    first: ["", ""],
    before: ["<tool_call>", "\n"],
    arguments: "arguments",
    after: ["\n", "</tool_call>"],
    between: "\n",
    last: "",
  },
  llama: {
    first: ["", ""],
    before: ["", ""],
    arguments: "parameters",
    after: ["", ""],
    between: "; ",
    last: "",
  },
  mistral: {
    first: ["[TOOL_CALLS]", "["],
    before: ["", ""],
    arguments: "arguments",
    after: ["", ""],
    between: ", ",
    last: "]",
  },
};

/** What a template has that writes so, and what it has not. */
const SIGNS: readonly { notation: ToolNotation; has: RegExp; lacks?: RegExp }[] = [
  // Later Qwen, GLM and MiniMax models put XML inside the same tags.
  { notation: "hermes", has: /<tool_call>/, lacks: /<function=|<arg_key>|<invoke / },
  // Later Mistral models write `[TOOL_CALLS]name[ARGS]{...}`.
  { notation: "mistral", has: /\[TOOL_CALLS\]/, lacks: /\[ARGS\]/ },
  // Others of a like notation have no role called so.
  { notation: "llama", has: /^(?=[^]*"parameters": )[^]*ipython/ },
];

/** How a Jinja template writes calls; undefined when it has no tools, or writes them in a way that is not known here. */
export function notationOf(source: string): ToolNotation | undefined {
  if (!/\btools\b/.test(source)) return undefined;
  return SIGNS.find(({ has, lacks }) => has.test(source) && !lacks?.test(source))?.notation;
}
