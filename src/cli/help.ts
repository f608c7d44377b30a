/**
 * Help texts, made from the tables in flags.ts.
 *
 * @module
 */
import {
  type CommandName,
  COMMANDS,
  type CommandSpec,
  describeValue,
  type FlagName,
  FLAGS,
  type FlagSpec,
} from "./flags.ts";

/** Help texts are at most this wide. */
const WIDTH = 100;
/** Column of the explanations in a list of flags. */
const FLAG_COLUMN = 30;
const COMMAND_COLUMN = 13;

/** What there is. */
export function overview(): string {
  const commands = Object.entries(COMMANDS).map(([name, { summary }]) => item(name, summary, COMMAND_COLUMN));
  return [
    "llamero: talk to models of the Llama family on this machine, or serve them.",
    "",
    "usage: llamero COMMAND [FLAGS]",
    "",
    ...commands,
    "",
    "examples:",
    ...["chat", "serve"].flatMap((name) => examples(COMMANDS[name as CommandName])),
    "",
    "llamero help COMMAND shows the flags of one command.",
    "",
  ].join("\n");
}

/** How one command works. */
export function commandHelp(name: CommandName): string {
  const spec: CommandSpec = COMMANDS[name];
  const usage = ["usage: llamero", name, spec.positional, spec.flags.length > 0 ? "[FLAGS]" : undefined];
  const flags = spec.flags.length > 0 ? ["", "flags:", ...spec.flags.map(flagLine)] : [];
  const lines = [`llamero ${name}: ${spec.summary}.`, "", usage.filter(Boolean).join(" "), ...flags];
  return [...lines, "", "examples:", ...examples(spec), ""].join("\n");
}

function flagLine(name: FlagName): string {
  const spec: FlagSpec = FLAGS[name];
  const short = spec.short ? `-${spec.short}, ` : "    ";
  const value = spec.type === "boolean" ? "" : ` ${spec.placeholder ?? "N"}`;
  return item(`${short}--${name}${value}`, `${spec.help}${details(spec)}`, FLAG_COLUMN);
}

/** What the flag takes and what happens without it, in brackets. */
function details(spec: FlagSpec): string {
  const without = spec.default ?? spec.otherwise;
  const takes = spec.type === "text" && !spec.choices || spec.type === "boolean" ? undefined : describeValue(spec);
  const parts = [takes, without === undefined ? undefined : `default: ${without}`].filter(Boolean);
  return parts.length > 0 ? ` (${parts.join("; ")})` : "";
}

function examples(spec: CommandSpec): string[] {
  return spec.examples.map((example) => example.includes("| llamero") ? `  ${example}` : `  llamero ${example}`);
}

/** A term and its explanation, wrapped under itself. */
function item(term: string, text: string, column: number): string {
  const lines = wrap(text, WIDTH - column - 2);
  const indent = " ".repeat(column + 2);
  const first = term.length < column ? `  ${term.padEnd(column)}${lines.shift()}` : `  ${term}`;
  return [first, ...lines.map((line) => indent + line)].join("\n");
}

function wrap(text: string, width: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line && line.length + word.length + 1 > width) lines.push(word);
    else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  return lines;
}
