import assert from "node:assert/strict";
import type { Constraint } from "../engine/engine.ts";
import { FakeEngine } from "../engine/fake.ts";
import { replyConstraint, type ReplyWishes } from "./reply_grammar.ts";

const PARAMETERS = { type: "object", properties: { a: { $ref: "#/$defs/a" } }, $defs: { a: { type: "string" } } };
const STRICT = { name: "f", parameters: PARAMETERS, strict: true };
const LOOSE = { name: 'g"', parameters: PARAMETERS };
const NO_WISHES: ReplyWishes = { tools: [], toolChoice: "auto", parallel: true, notation: "hermes", thoughts: false };
const JSON_OBJECT: Constraint = { type: "json_object" };

async function constraint(wishes: Partial<ReplyWishes>, engine = new FakeEngine()): Promise<Constraint | undefined> {
  return await replyConstraint(engine, { ...NO_WISHES, ...wishes });
}

/** The rules of the grammar that `wishes` become. */
async function rules(wishes: Partial<ReplyWishes>, engine?: FakeEngine): Promise<string[]> {
  const found = await constraint(wishes, engine);
  assert(found?.type === "grammar" && found.syntax === "lark", JSON.stringify(found));
  return found.grammar.trimEnd().split("\n");
}

const ANY = "ANY: /(.|\\n)*/";
const CALL0 = 'call0: "{\\"name\\": \\"f\\", \\"arguments\\": " args0 "}"';
const json = (schema: object) =>
  `%json ${JSON.stringify({ ...schema, "x-guidance": { whitespace_pattern: "\\x20|\\n{1,2}[\\x20\\t]{0,20}" } })}`;
const ARGS0 = `args0: ${json(PARAMETERS)}`;

Deno.test("what needs no grammar gets none, and what the request wants stays what it is", async () => {
  assert.equal(await constraint({}), undefined);
  assert.equal(await constraint({ tools: [LOOSE] }), undefined);
  assert.equal(await constraint({ constraint: JSON_OBJECT }), JSON_OBJECT);
  const grammar: Constraint = { type: "grammar", syntax: "gbnf", grammar: "x" };
  assert.equal(await constraint({ constraint: grammar, thoughts: true }), grammar);
  await assert.rejects(constraint({ constraint: grammar, tools: [LOOSE] }), { code: "unsupported" });
});

Deno.test("calls that must come, in each notation", async () => {
  const hermes = await rules({ tools: [STRICT, LOOSE], toolChoice: "required" });
  assert.deepEqual(hermes, [
    "start: said",
    "said: calls",
    'calls: call ("\\n" call)*',
    'call: "<tool_call>" "\\n" body "\\n" "</tool_call>"',
    "body: call0 | call1",
    CALL0,
    ARGS0,
    'call1: "{\\"name\\": \\"g\\\\\\"\\", \\"arguments\\": " args1 "}"',
    `args1: ${json({ type: "object" })}`,
    ANY,
  ]);
  const one = await rules({ tools: [LOOSE, STRICT], toolChoice: { name: "f" }, parallel: false, notation: "llama" });
  assert.deepEqual(one, [
    "start: said",
    "said: calls",
    "calls: call",
    "call: body",
    "body: call0",
    CALL0.replace("arguments", "parameters"),
    ARGS0,
    ANY,
  ]);
  const mistral = await rules({ tools: [STRICT], toolChoice: "required", notation: "mistral" });
  assert.equal(mistral[2], 'calls: "[TOOL_CALLS]" "[" call (", " call)* "]"');
});

Deno.test("free text with strict calls in it, in each notation", async () => {
  const said = async (wishes: Partial<ReplyWishes>) => (await rules({ tools: [STRICT], ...wishes })).slice(1, -4);
  assert.deepEqual(await said({}), [
    "said: call* ANY",
    'call: head "\\n" body "\\n" "</tool_call>"',
    'head[lazy]: ANY "<tool_call>"',
  ]);
  assert.equal((await said({ parallel: false }))[0], "said: call? ANY");
  assert.deepEqual(await said({ notation: "llama" }), [
    'said: TEXT | body ("; " body)*',
    "TEXT: /([^{\\[](.|\\n)*)?/",
  ]);
  assert.deepEqual(await said({ notation: "mistral" }), [
    'said: ANY | head "[" body (", " body)* "]"',
    'head[lazy]: ANY "[TOOL_CALLS]"',
  ]);
});

Deno.test("calls, or what the request wants", async () => {
  const reply = async (constraint: Constraint) => (await rules({ tools: [LOOSE], constraint })).slice(1, 3);
  assert.deepEqual(await reply(JSON_OBJECT), ["said: calls | reply", `reply: ${json({ type: "object" })}`]);
  assert.equal((await reply({ type: "json_schema", schema: { const: 1 } }))[1], `reply: ${json({ const: 1 })}`);
  assert.equal((await reply({ type: "choice", choices: ["a", '"'] }))[1], 'reply: "a" | "\\""');
  assert.equal((await reply({ type: "regex", pattern: "a/b\\/\\d" }))[1], "reply: /a\\/b\\/\\d/");
});

Deno.test("calls without a marker and JSON are one schema, in which references find their place", async () => {
  const constraint: Constraint = { type: "json_schema", schema: { $ref: "#/definitions/x", definitions: { x: {} } } };
  const [, said] = await rules({ tools: [STRICT, LOOSE], notation: "llama", constraint });
  const call = (name: string, index: number) => ({
    type: "object",
    properties: { name: { const: name }, parameters: { $ref: `#/$defs/args${index}` } },
    required: ["name", "parameters"],
    additionalProperties: false,
  });
  const schema = {
    anyOf: [call("f", 0), call('g"', 1), { $ref: "#/$defs/reply" }],
    $defs: {
      args0: { ...PARAMETERS, properties: { a: { $ref: "#/$defs/args0/$defs/a" } } },
      args1: { type: "object" },
      reply: { $ref: "#/$defs/reply/definitions/x", definitions: { x: {} } },
    },
  };
  assert.equal(said, `said: ${json(schema)}`);
});

Deno.test("thoughts come first", async () => {
  const closed = ["spaces: /[ \\n]{1,4}/", 'thoughts[lazy]: ANY "</think>"', `said: ${json({ type: "object" })}`, ANY];
  assert.deepEqual(await rules({ constraint: JSON_OBJECT, thoughts: "open" }), [
    "start: thoughts spaces? said",
    ...closed,
  ]);
  assert.deepEqual(await rules({ constraint: JSON_OBJECT, thoughts: true }), [
    'start: ("<think>" thoughts spaces?)? said',
    ...closed,
  ]);
});

Deno.test("markers that are tokens and no text are left out, as no constrained reply has them", async () => {
  const specialTokens = ["<s>", "[TOOL_CALLS]", "<tool_call>", "</tool_call>", "</think>"];
  const engine = new FakeEngine({ model: { specialTokens } });
  const decode = engine.decode.bind(engine);
  engine.decode = (ids) => ids.length === 1 && ids[0]! < specialTokens.length ? "" : decode(ids);
  const mistral = await rules({ tools: [STRICT], notation: "mistral" }, engine);
  assert.equal(mistral[1], 'said: TEXT | "[" body (", " body)* "]"');
  const hermes = await rules({ tools: [STRICT], toolChoice: "required", thoughts: true }, engine);
  assert.equal(hermes[0], "start: said");
  assert(hermes.includes('call: "\\n" body "\\n"'), hermes.join("\n"));
});

Deno.test("an engine that cannot constrain is not asked to", async () => {
  const engine = new FakeEngine({ model: { constrains: false } });
  for (
    const wishes of [
      { constraint: JSON_OBJECT },
      { tools: [STRICT] },
      { tools: [LOOSE], toolChoice: "required" } as const,
    ]
  ) {
    await assert.rejects(constraint(wishes, engine), { code: "unsupported", message: /expected an engine that can/ });
  }
  assert.equal(await constraint({ tools: [LOOSE] }, engine), undefined);
});
