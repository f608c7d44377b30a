import assert from "node:assert/strict";
import { parseResponseRequest, ProtocolError, type ProtocolErrorCode, type ResponseRequest } from "./mod.ts";

const minimal = { model: "m", input: "hi" };

function parse(fields: Record<string, unknown> = {}): ResponseRequest {
  return parseResponseRequest({ ...minimal, ...fields });
}

function checkRefused(
  fields: unknown,
  param: string | null,
  message: RegExp,
  code: ProtocolErrorCode = "invalid_value",
): void {
  assert.throws(() => parseResponseRequest(fields), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.deepEqual([error.param, error.code], [param, code], error.message);
    assert.match(error.message, message);
    return true;
  });
}

const tool = { type: "function", name: "f", parameters: { type: "object" }, strict: true };

Deno.test("what a request leaves open, and null as absence", () => {
  const open = parse();
  const fields = ["instructions", "tools", "tool_choice", "text", "reasoning", "conversation", "store", "metadata"];
  const nulls = Object.fromEntries(
    [...fields, "include", "max_output_tokens", "truncation", "user"].map((f) => [f, null]),
  );
  assert.deepEqual(parse(nulls), open);
  assert.partialDeepStrictEqual(open, {
    model: "m",
    tools: [],
    toolChoice: "auto",
    parallelToolCalls: true,
    truncate: false,
    store: true,
    stream: false,
    background: false,
    generate: true,
    stop: [],
  });
  assert.deepEqual([open.constraint, open.generation, open.variables, open.ignored], [undefined, {}, {}, []]);
  assert.partialDeepStrictEqual(open.echo, {
    store: true,
    tool_choice: "auto",
    tools: [],
    metadata: {},
    temperature: null,
  });
});

Deno.test("all that a request may say, and what its response repeats", () => {
  const format = { type: "json_schema", name: "n", schema: { type: "object" }, strict: true };
  const request = parse({
    instructions: "be brief",
    previous_response_id: "resp_1",
    tools: [tool],
    tool_choice: { type: "function", name: "f" },
    parallel_tool_calls: false,
    text: { format, verbosity: "medium" },
    reasoning: { effort: "low", summary: "auto" },
    max_output_tokens: 7,
    temperature: 0,
    top_p: 0.5,
    xtc_probability: 0.5,
    min_tokens: 2,
    include: ["message.output_text.logprobs", "reasoning.encrypted_content"],
    top_logprobs: 3,
    truncation: "auto",
    metadata: { a: "b" },
    store: true,
    background: true,
    stream: true,
    user: "u",
    stop: "x",
    service_tier: "flex",
    unknown: 1,
  });
  const shown = { type: "function", name: "f", description: null, parameters: { type: "object" }, strict: true };
  assert.partialDeepStrictEqual(request, {
    instructions: "be brief",
    previousResponseId: "resp_1",
    tools: [{ name: "f", parameters: { type: "object" }, strict: true }],
    toolChoice: { name: "f" },
    parallelToolCalls: false,
    constraint: { type: "json_schema", schema: { type: "object" } },
    variables: { reasoning_effort: "low", enable_thinking: true },
    sampling: { temperature: 0, topP: 0.5, xtcProbability: 0.5 },
    generation: { minTokens: 2, logprobs: 3 },
    maxTokens: 7,
    ignored: ["service_tier", "unknown"],
    truncate: true,
    background: true,
    stream: true,
    stop: ["x"],
  });
  assert.deepEqual(request.echo, {
    background: true,
    conversation: null,
    instructions: "be brief",
    max_output_tokens: 7,
    max_tool_calls: null,
    metadata: { a: "b" },
    parallel_tool_calls: false,
    previous_response_id: "resp_1",
    prompt_cache_key: null,
    reasoning: { effort: "low", summary: "auto" },
    safety_identifier: null,
    service_tier: "default",
    store: true,
    temperature: 0,
    text: { format, verbosity: "medium" },
    tool_choice: { type: "function", name: "f" },
    tools: [shown],
    top_logprobs: 3,
    top_p: 0.5,
    truncation: "auto",
    user: "u",
  });
});

Deno.test("log probabilities are reported when they are included, not when they are only counted", () => {
  assert.equal(parse({ include: ["message.output_text.logprobs"] }).generation.logprobs, 0);
  assert.equal(parse({ top_logprobs: 5 }).generation.logprobs, undefined);
});

Deno.test("tools that are allowed are the ones that are offered", () => {
  const tools = [tool, { type: "function", name: "g" }];
  const allowed = (mode: string, ...names: string[]) => ({
    type: "allowed_tools",
    mode,
    tools: names.map((name) => ({ type: "function", name })),
  });
  const some = parse({ tools, tool_choice: allowed("required", "g") });
  assert.deepEqual([some.tools.map(({ name }) => name), some.toolChoice, some.echo.tools.length], [
    ["g"],
    "required",
    2,
  ]);
  const missing = { ...minimal, tools, tool_choice: allowed("auto", "h") };
  checkRefused(missing, "tool_choice", /expected one of the tools, got "h"$/);
  checkRefused({ ...minimal, tools, tool_choice: { type: "function", name: "h" } }, "tool_choice", /got "h"$/);
  checkRefused({ ...minimal, tool_choice: "required" }, "tool_choice", /as there are no tools, got "required"$/);
  checkRefused({ ...minimal, tools: [tool, tool] }, "tools", /got two called "f"$/);
});

Deno.test("a conversation by its id or as an object", () => {
  assert.equal(parse({ conversation: "conv_1" }).conversationId, "conv_1");
  assert.deepEqual(parse({ conversation: { id: "conv_1" } }).echo.conversation, { id: "conv_1" });
  const both = { ...minimal, conversation: "conv_1", previous_response_id: "resp_1" };
  checkRefused(both, "previous_response_id", /expected nothing beside a conversation/);
});

Deno.test("an input may be missing where there is something to continue", () => {
  assert.deepEqual(parseResponseRequest({ previous_response_id: "resp_1" }).input, []);
  for (const input of [undefined, null, []]) {
    checkRefused({ model: "m", input }, "input", /expected an input, got none$/);
  }
});

Deno.test("refused requests name the field; every number has its range on both sides", () => {
  const cases: [Record<string, unknown>, string, RegExp][] = [
    [{ model: 3 }, "model", /got 3$/],
    [{ model: "" }, "model", /got ""$/],
    [{ instructions: 3 }, "instructions", /got 3$/],
    [{ previous_response_id: "" }, "previous_response_id", /got ""$/],
    [{ previous_response_id: "x".repeat(257) }, "previous_response_id", /1 to 256/],
    [{ conversation: 3 }, "conversation", /expected an id or an object with one, got 3$/],
    [{ tools: [3] }, "tools[0]", /got 3$/],
    [{ tools: [{ type: "function" }] }, "tools[0].name", /got nothing$/],
    [{ tools: [{ ...tool, parameters: "x" }] }, "tools[0].parameters", /expected a JSON schema, .*got "x"$/],
    [{ tools: Array.from({ length: 129 }, () => tool) }, "tools", /at most 128 functions, got a list of 129$/],
    [{ tool_choice: "any" }, "tool_choice", /got "any"$/],
    [{ parallel_tool_calls: "yes" }, "parallel_tool_calls", /expected true or false, got "yes"$/],
    [{ text: { format: { type: "json_schema", name: "n" } } }, "text.format.schema", /got nothing$/],
    [{ reasoning: { effort: "huge" } }, "reasoning.effort", /expected one of none, .*, got "huge"$/],
    [{ include: ["x"] }, "include[0]", /got "x"$/],
    [{ metadata: { a: 3 } }, "metadata.a", /got 3$/],
    [{ metadata: { a: "x".repeat(513) } }, "metadata.a", /0 to 512/],
    [{ metadata: Object.fromEntries([...Array(17).keys()].map((k) => [k, ""])) }, "metadata", /at most 16 texts/],
    [{ truncation: "some" }, "truncation", /got "some"$/],
    [{ background: true, store: false }, "background", /got store false$/],
    [{ store: 0 }, "store", /got 0$/],
    [{ user: "x".repeat(257) }, "user", /0 to 256/],
  ];
  const numbers = {
    temperature: [-1, 2.1],
    top_p: [0, 1.1],
    top_logprobs: [-1, 21, 0.5],
    max_tool_calls: [0, 2 ** 53],
  };
  for (const [field, values] of Object.entries({ ...numbers, max_output_tokens: [-1, 0, 2 ** 31, 2 ** 53] })) {
    for (const value of [...values, NaN, Infinity, "1"]) cases.push([{ [field]: value }, field, /expected an? /]);
  }
  for (const [fields, param, message] of cases) checkRefused({ ...minimal, ...fields }, param, message);
  checkRefused(3, null, /expected an object, got 3$/, "unsupported_value");
});

Deno.test("what is not there is refused as not supported", () => {
  const cases: [Record<string, unknown>, string, RegExp][] = [
    [{ tools: [{ type: "web_search" }] }, "tools[0].type", /got "web_search"; tools of the server's own/],
    [{ tool_choice: { type: "mcp", server_label: "x" } }, "tool_choice.type", /got "mcp"/],
    [{ text: { format: { type: "grammar" } } }, "text.format.type", /got "grammar"/],
    [{ prompt: { id: "p" } }, "prompt", /expected nothing, as nothing else is supported, got an object$/],
    [{ context_management: [{}] }, "context_management", /got a list of 1$/],
    [{ moderation: { model: "m" } }, "moderation", /got an object$/],
    [{ input: [{ role: "user", content: [{ type: "input_image" }] }] }, "input[0].content[0].type", /"input_image"/],
  ];
  for (const [fields, param, message] of cases) {
    checkRefused({ ...minimal, ...fields }, param, message, "unsupported_value");
  }
});
