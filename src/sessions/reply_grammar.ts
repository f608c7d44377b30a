/**
 * What a reply must be when functions are to be called, as a grammar in llguidance's dialect of Lark: free text, calls in
 * the notation of the template, and what the request wants of the rest.
 *
 * Arguments of strict functions follow their schema, those of others are some object. Each schema stands for itself, so
 * that references inside it keep their meaning.
 *
 * @module
 */

import type { Tool, ToolChoice } from "../chat/message.ts";
import { NOTATIONS, type NotationTexts, type ToolNotation } from "../chat/notation.ts";
import { THOUGHTS_BEGIN, THOUGHTS_END } from "../chat/thoughts.ts";
import { NO_PARAMETERS } from "../chat/tool_values.ts";
import { type Constraint, type Engine, EngineError } from "../engine/engine.ts";
import { tokensOf } from "./prompt.ts";

/** Any text at all. */
const ANY = "ANY: /(.|\\n)*/";

/** What a reply may be. */
export interface ReplyWishes {
  tools: readonly Tool[];
  toolChoice: ToolChoice;
  /** Whether there may be several calls. */
  parallel: boolean;
  /** What the reply must be where it calls nothing. */
  constraint?: Constraint;
  notation: ToolNotation;
  /** Whether thoughts may come first; `open` when the prompt has begun them. */
  thoughts: boolean | "open";
}

/**
 * The constraint of a reply, if it has one.
 *
 * @throws {EngineError} `unsupported` when the engine cannot constrain replies, or not in this combination.
 */
export async function replyConstraint(engine: Engine, wishes: ReplyWishes): Promise<Constraint | undefined> {
  const { tools, toolChoice, constraint, thoughts } = wishes;
  const held = toolChoice !== "auto" || tools.some(({ strict }) => strict);
  const calls = tools.length > 0 && (held || constraint !== undefined);
  if (!calls && constraint === undefined) return undefined;
  requireConstrains(engine);
  // Whoever writes a whole grammar writes the thoughts into it.
  if (!calls && (!thoughts || constraint!.type === "grammar")) return constraint;
  const marker = await markersOf(engine);
  const rules = calls ? callRules(wishes, marker) : [`said: ${replyRule(constraint!)}`];
  return { type: "grammar", syntax: "lark", grammar: [...startRules(thoughts, marker), ...rules, ANY, ""].join("\n") };
}

/** Refuses what an engine without constraints would ignore. */
export function requireConstrains(engine: Engine): void {
  if (engine.model.constrains) return;
  throw new EngineError("unsupported", "constraining the reply: expected an engine that can, got one that cannot");
}

/** A marker as Lark writes it: a text, or the token that it is and that is no text. */
interface Marker {
  term: string;
  isToken: boolean;
}

type MarkerOf = (text: string) => Marker;

async function markersOf(engine: Engine): Promise<MarkerOf> {
  const known = Object.values(NOTATIONS).flatMap(({ first, before, after }) => [first[0], before[0], after[1]]);
  const markers = new Map<string, Marker>();
  for (const text of [...known, THOUGHTS_BEGIN, THOUGHTS_END]) {
    const id = await controlToken(engine, text);
    markers.set(text, id === undefined ? { term: quoted(text), isToken: false } : { term: `<[${id}]>`, isToken: true });
  }
  return (text) => markers.get(text)!;
}

async function controlToken(engine: Engine, text: string): Promise<number | undefined> {
  if (text === "" || !engine.model.specialTokens.includes(text)) return undefined;
  const ids = await tokensOf(engine, text, { addSpecial: false, parseSpecial: true });
  return ids.length === 1 && await engine.detokenize(ids) === "" ? ids[0] : undefined;
}

/** `said` is what follows the thoughts. */
function startRules(thoughts: boolean | "open", marker: MarkerOf): string[] {
  if (!thoughts) return ["start: said"];
  const closed = [
    "spaces: /[ \\n]{1,4}/",
    ...until("thoughts", marker(THOUGHTS_END)),
  ];
  if (thoughts === "open") return ["start: thoughts spaces? said", ...closed];
  return [`start: (${marker(THOUGHTS_BEGIN).term} thoughts spaces?)? said`, ...closed];
}

/** A rule of any text up to a marker. */
function until(name: string, { term, isToken }: Marker): string[] {
  return [isToken ? `${name}: ANY ${term}` : `${name}[lazy]: ANY ${term}`];
}

function callRules(wishes: ReplyWishes, marker: MarkerOf): string[] {
  const { tools, toolChoice, constraint, parallel } = wishes;
  const texts = NOTATIONS[wishes.notation];
  const named = typeof toolChoice === "object" ? tools.filter(({ name }) => name === toolChoice.name) : tools;
  const bodies = [
    `body: ${named.map((_, index) => `call${index}`).join(" | ")}`,
    ...named.flatMap((tool, index) => callRule(tool, index, texts)),
  ];
  if (toolChoice !== "auto") return [`said: calls`, ...callsRules(texts, parallel, marker), ...bodies];
  if (constraint === undefined) return [...freeRules(texts, parallel, marker), ...bodies];
  return ["said: calls | reply", `reply: ${replyRule(constraint)}`, ...callsRules(texts, parallel, marker), ...bodies];
}

/** Calls and nothing else. */
function callsRules(texts: NotationTexts, parallel: boolean, marker: MarkerOf): string[] {
  const { first, before, after, between, last } = texts;
  const call = terms(marker(before[0]).term, quoted(before[1]), "body", quoted(after[0]), marker(after[1]).term);
  const more = parallel ? `(${terms(quoted(between), "call")})*` : "";
  return [
    `calls: ${terms(marker(first[0]).term, quoted(first[1]), "call", more, quoted(last))}`,
    `call: ${call}`,
  ];
}

/** Text, in which a marker is the beginning of calls and nothing else. */
function freeRules(texts: NotationTexts, parallel: boolean, marker: MarkerOf): string[] {
  const { first, before, after, between, last } = texts;
  if (before[0] !== "") {
    const call = terms("head", quoted(before[1]), "body", quoted(after[0]), marker(after[1]).term);
    return [`said: call${parallel ? "*" : "?"} ANY`, `call: ${call}`, ...until("head", marker(before[0]))];
  }
  const more = parallel ? `(${terms(quoted(between), "body")})*` : "";
  if (first[0] === "") return [`said: TEXT | body ${more}`, "TEXT: /([^{](.|\\n)*)?/"];
  const calls = terms("head", quoted(first[1]), "body", more, quoted(last));
  return [`said: ANY | ${calls}`, ...until("head", marker(first[0]))];
}

function callRule({ name, strict, parameters }: Tool, index: number, texts: NotationTexts): string[] {
  const before = `{"name": ${JSON.stringify(name)}, "${texts.arguments}": `;
  const schema = strict ? parameters ?? NO_PARAMETERS : { type: "object" };
  return [`call${index}: ${quoted(before)} args${index} "}"`, `args${index}: %json ${JSON.stringify(schema)}`];
}

function replyRule(constraint: Constraint): string {
  switch (constraint.type) {
    case "json_schema":
      return `%json ${JSON.stringify(constraint.schema)}`;
    case "json_object":
      return '%json {"type": "object"}';
    case "choice":
      return constraint.choices.map(quoted).join(" | ");
    case "regex":
      return `/${constraint.pattern.replace(/\\[^]|\//g, (found) => found === "/" ? "\\/" : found)}/`;
    case "grammar":
      throw new EngineError("unsupported", "constraining the reply: expected no grammar beside tools, got one");
  }
}

function terms(...parts: readonly string[]): string {
  return parts.filter((part) => part !== "" && part !== '""').join(" ");
}

/** A text as Lark writes it, which is how JSON does. */
function quoted(text: string): string {
  return JSON.stringify(text);
}
