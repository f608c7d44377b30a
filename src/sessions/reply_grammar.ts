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

/** Space between the tokens of JSON: llama.cpp's. */
const JSON_SPACE = "\\x20|\\n{1,2}[\\x20\\t]{0,20}";

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
  const opened = marker(THOUGHTS_END) === "" ? false : thoughts;
  const rules = calls ? callRules(wishes, marker) : [`said: ${replyRule(constraint!)}`];
  return { type: "grammar", syntax: "lark", grammar: [...startRules(opened, marker), ...rules, ANY, ""].join("\n") };
}

/** Refuses what an engine without constraints would ignore. */
export function requireConstrains(engine: Engine): void {
  if (engine.model.constrains) return;
  throw new EngineError("unsupported", "constraining the reply: expected an engine that can, got one that cannot");
}

/** A marker as Lark writes it; empty for a token that is no text, as no constrained reply may have it. */
type MarkerOf = (text: string) => string;

async function markersOf(engine: Engine): Promise<MarkerOf> {
  const known = Object.values(NOTATIONS).flatMap(({ first, before, after }) => [first[0], before[0], after[1]]);
  const silent = new Set([""]);
  for (const text of [...known, THOUGHTS_BEGIN, THOUGHTS_END]) if (await isSilent(engine, text)) silent.add(text);
  return (text) => silent.has(text) ? "" : quoted(text);
}

async function isSilent(engine: Engine, text: string): Promise<boolean> {
  if (!engine.model.specialTokens.includes(text)) return false;
  const ids = await tokensOf(engine, text, { addSpecial: false, parseSpecial: true });
  return ids.length === 1 && await engine.detokenize(ids) === "";
}

/** `said` is what follows the thoughts. */
function startRules(thoughts: boolean | "open", marker: MarkerOf): string[] {
  if (!thoughts) return ["start: said"];
  const begun = thoughts === "open"
    ? "thoughts spaces? said"
    : `(${terms(marker(THOUGHTS_BEGIN), "thoughts spaces?")})? said`;
  return [`start: ${begun}`, "spaces: /[ \\n]{1,4}/", `thoughts[lazy]: ANY ${marker(THOUGHTS_END)}`];
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
  const schema = schemaOf(constraint);
  if (schema !== undefined && texts.first[1] + texts.before[0] + texts.before[1] === "") {
    return [`said: ${json(schemaOrCall(schema, named, texts))}`];
  }
  return ["said: calls | reply", `reply: ${replyRule(constraint)}`, ...callsRules(texts, parallel, marker), ...bodies];
}

/** Calls and nothing else. */
function callsRules(texts: NotationTexts, parallel: boolean, marker: MarkerOf): string[] {
  const { first, before, after, between, last } = texts;
  const call = terms(marker(before[0]), quoted(before[1]), "body", quoted(after[0]), marker(after[1]));
  const more = parallel ? `(${terms(quoted(between), "call")})*` : "";
  return [`calls: ${terms(marker(first[0]), quoted(first[1]), "call", more, quoted(last))}`, `call: ${call}`];
}

/** Text, in which a marker is the beginning of calls and nothing else; without a marker, calls are the whole reply. */
function freeRules(texts: NotationTexts, parallel: boolean, marker: MarkerOf): string[] {
  const { first, before, after, between, last } = texts;
  if (marker(before[0]) !== "") {
    const call = terms("head", quoted(before[1]), "body", quoted(after[0]), marker(after[1]));
    return [`said: call${parallel ? "*" : "?"} ANY`, `call: ${call}`, `head[lazy]: ANY ${marker(before[0])}`];
  }
  const more = parallel ? `(${terms(quoted(between), "body")})*` : "";
  const calls = (head: string) => terms(head, quoted(first[1]), "body", more, quoted(last));
  if (marker(first[0]) !== "") return [`said: ANY | ${calls("head")}`, `head[lazy]: ANY ${marker(first[0])}`];
  return [`said: TEXT | ${calls("")}`, "TEXT: /([^{\\[](.|\\n)*)?/"];
}

function schemaOf(constraint: Constraint): unknown {
  if (constraint.type === "json_object") return { type: "object" };
  return constraint.type === "json_schema" ? constraint.schema : undefined;
}

/** Where nothing but its fields tells a call from a reply, both are one schema: the library does not look ahead. */
function schemaOrCall(reply: unknown, tools: readonly Tool[], texts: NotationTexts): unknown {
  const calls = tools.map(({ name }, index) => ({
    type: "object",
    properties: { name: { const: name }, [texts.arguments]: { $ref: `#/$defs/args${index}` } },
    required: ["name", texts.arguments],
    additionalProperties: false,
  }));
  const args = tools.map((tool, index) => [`args${index}`, moved(argumentsSchema(tool), `#/$defs/args${index}`)]);
  return {
    anyOf: [...calls, { $ref: "#/$defs/reply" }],
    $defs: { ...Object.fromEntries(args), reply: moved(reply, "#/$defs/reply") },
  };
}

/** A schema whose references to itself find it at `place`. */
function moved(schema: unknown, place: string): unknown {
  if (typeof schema !== "object" || schema === null) return schema;
  if (Array.isArray(schema)) return schema.map((each) => moved(each, place));
  return Object.fromEntries(
    Object.entries(schema).map(([key, value]) => {
      const refers = key === "$ref" && typeof value === "string" && value.startsWith("#");
      return [key, refers ? place + value.slice(1) : moved(value, place)];
    }),
  );
}

function argumentsSchema({ strict, parameters }: Tool): unknown {
  return strict ? parameters ?? NO_PARAMETERS : { type: "object" };
}

function callRule(tool: Tool, index: number, texts: NotationTexts): string[] {
  const before = `{"name": ${JSON.stringify(tool.name)}, "${texts.arguments}": `;
  return [`call${index}: ${quoted(before)} args${index} "}"`, `args${index}: ${json(argumentsSchema(tool))}`];
}

function replyRule(constraint: Constraint): string {
  switch (constraint.type) {
    case "json_schema":
    case "json_object":
      return json(schemaOf(constraint));
    case "choice":
      return constraint.choices.map(quoted).join(" | ");
    case "regex":
      return `/${constraint.pattern.replace(/\\[^]|\//g, (found) => found === "/" ? "\\/" : found)}/`;
    case "grammar":
      throw new EngineError("unsupported", "constraining the reply: expected no grammar beside tools, got one");
  }
}

/** A JSON value of a schema. Without a bound on spaces a small model may never get past them. */
function json(schema: unknown): string {
  return `%json ${JSON.stringify({ ...schema as object, "x-guidance": { whitespace_pattern: JSON_SPACE } })}`;
}

function terms(...parts: readonly string[]): string {
  return parts.filter((part) => part !== "" && part !== '""').join(" ");
}

/** A text as Lark writes it, which is how JSON does. */
function quoted(text: string): string {
  return JSON.stringify(text);
}
