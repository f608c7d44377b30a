/**
 * What a reply must be, on the wire: OpenAI's `response_format`, vLLM's `structured_outputs` and llama.cpp's `grammar`
 * and `json_schema`; one of them at most.
 *
 * Absent here on purpose: what schemas and grammars mean; whoever compiles them says what is wrong with them.
 *
 * @module
 */

import { z } from "zod";
import { ProtocolError, text, wanted, wantedTag } from "./check.ts";

/** Most lists and objects inside each other in a schema. */
export const MAX_SCHEMA_DEPTH = 64;
/** Longest regular expression or grammar, in UTF-16 code units. */
export const MAX_GRAMMAR_LENGTH = 2 ** 16;
/** Most texts of a choice. */
export const MAX_CHOICE_TEXTS = 256;
/** Longest of them, in UTF-16 code units. */
export const MAX_CHOICE_LENGTH = 1024;

/** What the whole reply must be. */
export type WireConstraint =
  | { type: "json_schema"; schema: unknown }
  | { type: "json_object" }
  | { type: "regex"; pattern: string }
  | { type: "choice"; choices: string[] }
  | { type: "grammar"; syntax: "lark" | "gbnf"; grammar: string };

const object = wanted("an object");
const aSchema = wanted(`a JSON schema, an object of at most ${MAX_SCHEMA_DEPTH} nested values`);
const aName = wanted("a name of 1 to 64 letters, digits, _ and -");
const grammarText = text(1, MAX_GRAMMAR_LENGTH);

/** A JSON schema: an object, not nested so deeply that reading it is an attack. */
export const schemaObject = z.record(z.string(), z.unknown(), aSchema)
  .refine((schema) => nestedAtMost(schema, MAX_SCHEMA_DEPTH), aSchema);

/** Zod field of a schema with a name, as OpenAI has it. */
const namedSchema = z.object({
  name: z.string(aName).regex(/^[\w-]{1,64}$/, aName).nullish(),
  description: text().nullish(),
  schema: schemaObject.nullish(),
  strict: z.boolean(wanted("true or false")).nullish(),
}, object);

const responseFormat = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object"), schema: schemaObject.nullish() }),
  z.object({ type: z.literal("json_schema"), json_schema: namedSchema }),
], wantedTag("type", '"text", "json_object" or "json_schema"', "an object"));

/** Zod fields of what a reply must be. */
export const formatFields = {
  response_format: responseFormat.nullish(),
  structured_outputs: z.object({
    json: schemaObject.nullish(),
    json_object: z.literal(true, wanted("true")).nullish(),
    regex: grammarText.nullish(),
    choice: z.array(text(1, MAX_CHOICE_LENGTH), wanted(`a list of 1 to ${MAX_CHOICE_TEXTS} texts`)).min(1)
      .max(MAX_CHOICE_TEXTS).nullish(),
    grammar: grammarText.nullish(),
  }, object).nullish(),
  grammar: grammarText.nullish(),
  json_schema: schemaObject.nullish(),
};

type FormatFields = { [K in keyof typeof formatFields]?: z.output<(typeof formatFields)[K]> };

/**
 * What the reply must be; undefined for free text.
 *
 * @throws {ProtocolError} when it is asked for twice.
 */
export function toConstraint(fields: FormatFields): WireConstraint | undefined {
  const { response_format: format, structured_outputs: outputs, grammar, json_schema } = fields;
  const asked: [string, WireConstraint | null | undefined][] = [
    ["response_format", format && formatConstraint(format)],
    ["structured_outputs", outputs?.json && { type: "json_schema", schema: outputs.json }],
    ["structured_outputs", outputs?.json_object && { type: "json_object" }],
    ["structured_outputs", outputs?.regex == null ? null : { type: "regex", pattern: outputs.regex }],
    ["structured_outputs", outputs?.choice && { type: "choice", choices: outputs.choice }],
    ["structured_outputs", outputs?.grammar == null ? null : lark(outputs.grammar)],
    ["grammar", grammar == null ? null : { type: "grammar", syntax: "gbnf", grammar }],
    ["json_schema", json_schema && { type: "json_schema", schema: json_schema }],
  ];
  const given = asked.filter(([, constraint]) => constraint != null);
  if (given.length > 1) {
    const [param] = given[1]!;
    throw new ProtocolError("invalid_value", `${param}: expected one format of the reply, got several`, param);
  }
  return given[0]?.[1] ?? undefined;
}

function formatConstraint(format: z.output<typeof responseFormat>): WireConstraint | undefined {
  if (format.type === "text") return undefined;
  const schema = format.type === "json_schema" ? format.json_schema.schema : format.schema;
  return schema ? { type: "json_schema", schema } : { type: "json_object" };
}

function lark(grammar: string): WireConstraint {
  return { type: "grammar", syntax: "lark", grammar };
}

/** Whether no value of `value` lies deeper than `most`; without recursion, as that is what the limit is for. */
export function nestedAtMost(value: unknown, most: number): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > most) return false;
    level = level.flatMap((each) => typeof each === "object" && each !== null ? Object.values(each) : []);
  }
  return true;
}
