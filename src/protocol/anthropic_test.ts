import assert from "node:assert/strict";
import {
  MAX_TOOLS,
  type MessagesRequest,
  parseCountTokensRequest,
  parseMessagesRequest,
  ProtocolError,
} from "./mod.ts";
import { MAX_MESSAGES, MAX_PARTS } from "./message.ts";

const hi = { role: "user", content: "hi" };
const minimal = { model: "m", max_tokens: 9, messages: [hi] };
const weather = { name: "weather", description: "d", input_schema: { type: "object" } };

function check(fields: Record<string, unknown>, expected: Partial<MessagesRequest>): void {
  assert.partialDeepStrictEqual(parseMessagesRequest({ ...minimal, ...fields }), expected);
}

function refuse(fields: Record<string, unknown>, param: string | null, message: RegExp, code = "invalid_value"): void {
  assert.throws(() => parseMessagesRequest({ ...minimal, ...fields }), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.deepEqual([error.param, error.code], [param, code], error.message);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /[^.]\.$|Invalid|Unrecognized/);
    return true;
  });
}

Deno.test("a minimal request leaves sampling to the engine, and thinking is off", () => {
  const { sampling, ...rest } = parseMessagesRequest(minimal);
  assert.deepEqual(rest, {
    model: "m",
    messages: [hi],
    tools: [],
    toolChoice: "auto",
    parallelToolCalls: true,
    variables: { enable_thinking: false },
    generation: {},
    constraint: undefined,
    maxTokens: 9,
    stop: [],
    stream: false,
    ignored: [],
  });
  assert.deepEqual(Object.values(sampling).filter((value) => value !== undefined), []);
});

Deno.test("null is absence in every optional field", () => {
  const names = ["temperature", "top_p", "top_k", "min_p", "seed", "stop_sequences", "stream", "system", "tools"];
  names.push("tool_choice", "thinking", "output_config", "metadata", "cache_control", "service_tier");
  names.push("container", "context_management", "mcp_servers", "thread");
  const nulls = Object.fromEntries(names.map((name) => [name, null]));
  assert.deepEqual(parseMessagesRequest({ ...minimal, ...nulls }), parseMessagesRequest(minimal));
});

Deno.test("fields arrive under our names, at both ends of their ranges; other samplers are extensions", () => {
  check({ temperature: 0, top_p: 1, top_k: 0 }, { sampling: { temperature: 0, topP: 1, topK: 0 } });
  check({ temperature: 1, min_p: 0.1, seed: 2 ** 53 - 1 }, {
    sampling: { temperature: 1, minP: 0.1, seed: 2 ** 53 - 1 },
  });
  check({ min_tokens: 2, stop_token_ids: [5] }, { generation: { minTokens: 2, stopTokenIds: [5] } });
  check({ max_tokens: 1 }, { maxTokens: 1 });
  check({ max_tokens: 2 ** 31 - 1 }, { maxTokens: 2 ** 31 - 1 });
  check({ stop_sequences: Array(16).fill("x"), stream: true }, { stop: Array(16).fill("x"), stream: true });
});

Deno.test("numbers outside their range, and things that are no numbers, are refused with the field's name", () => {
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "seed", "min_p"]) {
    for (const bad of [NaN, Infinity, -1, "1", 2 ** 53, 1e300, true, [1], {}]) {
      refuse({ [name]: bad }, name, new RegExp(`^${name}: expected an? (number|integer) (from|above) `));
    }
  }
  refuse({ temperature: 1.01 }, "temperature", /from 0 to 1, got 1.01$/);
  refuse({ max_tokens: 0 }, "max_tokens", /from 1 to 2147483647, got 0$/);
  refuse({ max_tokens: 2 ** 31 }, "max_tokens", /got 2147483648$/);
  refuse({ max_tokens: undefined }, "max_tokens", /got nothing$/);
  refuse({ stop_sequences: "x" }, "stop_sequences", /expected a list of at most 16 .*, got "x"$/);
  refuse({ stop_sequences: Array(17).fill("x") }, "stop_sequences", /got a list of 17$/);
  refuse({ stop_sequences: [""] }, "stop_sequences[0]", /got ""$/);
});

Deno.test("system: a text or text blocks, before the messages", () => {
  const system = { role: "system", content: "be brief" } as const;
  check({ system: "be brief" }, { messages: [system, { role: "user", content: "hi" }] });
  const blocks = [{ type: "text", text: "be ", cache_control: { type: "ephemeral" } }, { type: "text", text: "brief" }];
  check({ system: blocks }, { messages: [system, { role: "user", content: "hi" }] });
  assert.deepEqual(parseMessagesRequest({ ...minimal, system: "" }).messages, [hi]);
  refuse({ system: [{ type: "image" }] }, "system[0].type", /expected "text", got "image"$/);
});

Deno.test("messages: texts are joined, calls and thoughts belong to their message, results stand alone", () => {
  const messages = [
    { role: "user", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }] },
    {
      role: "assistant",
      content: [
        { type: "thinking", thinking: "hm", signature: "" },
        { type: "text", text: "let me see" },
        { type: "tool_use", id: "t1", name: "weather", input: { city: "Paris" } },
        { type: "tool_use", id: "t2", name: "clock", input: {} },
      ],
    },
    {
      role: "user",
      content: [
        {
          type: "tool_result",
          tool_use_id: "t1",
          content: [{ type: "text", text: "sunny" }, { type: "text", text: "!" }],
        },
        { type: "tool_result", tool_use_id: "t2", is_error: true },
        { type: "text", text: "and?" },
      ],
    },
    { role: "system", content: "hurry" },
    { role: "assistant", content: "so" },
    { role: "user", content: [] },
    { role: "user", content: "?" },
  ];
  assert.deepEqual(parseMessagesRequest({ ...minimal, messages }).messages, [
    { role: "user", content: "ab" },
    {
      role: "assistant",
      content: "let me see",
      reasoning: "hm",
      toolCalls: [
        { id: "t1", name: "weather", arguments: '{"city":"Paris"}' },
        { id: "t2", name: "clock", arguments: "{}" },
      ],
    },
    { role: "tool", content: "sunny!", toolCallId: "t1" },
    { role: "tool", content: "", toolCallId: "t2" },
    { role: "user", content: "and?" },
    { role: "system", content: "hurry" },
    { role: "assistant", content: "so" },
    { role: "user", content: "?" },
  ]);
});

Deno.test("messages: the refused place is named down to the block; nothing is fetched", () => {
  const refuseAll = (messages: unknown, param: string, message: RegExp, code?: string) =>
    refuse({ messages }, param, message, code);
  refuseAll([], "messages", /expected a list of 1 to 4096 messages, got a list of 0$/);
  refuseAll("hi", "messages", /got "hi"$/);
  refuseAll([3], "messages[0]", /expected a message with role and content, got 3$/);
  refuseAll([{ role: "tool", content: "x" }], "messages[0].role", /expected "user", .* got "tool"$/);
  refuseAll([{ role: "user", content: 5 }], "messages[0].content", /got 5$/);
  refuseAll([{ role: "user", content: "\ud800" }], "messages[0].content", /well-formed/);
  const image = { type: "image", source: { type: "url", url: "http://169.254.169.254/" } };
  for (const block of [image, { type: "document" }, { type: "tool_use" }]) {
    const message = new RegExp(`expected "text" or "tool_result", got "${block.type}"$`);
    refuseAll([{ role: "user", content: [block] }], "messages[0].content[0].type", message);
  }
  const result = { type: "tool_result", tool_use_id: "t", content: [image] };
  refuseAll([{ role: "user", content: [result] }], "messages[0].content[0].content[0].type", /got "image"$/);
  refuseAll(
    [{ role: "user", content: [{ type: "tool_result" }] }],
    "messages[0].content[0].tool_use_id",
    /got nothing$/,
  );
  const use = { type: "tool_use", id: "t", name: "a b", input: {} };
  refuseAll([{ role: "assistant", content: [use] }, hi], "messages[0].content[0].name", /got "a b"$/);
  refuseAll(
    [{ role: "assistant", content: [{ ...use, name: "a", input: "{}" }] }, hi],
    "messages[0].content[0].input",
    /expected an object, got "\{\}"$/,
  );
  refuseAll(
    [{ role: "assistant", content: [{ type: "redacted_thinking" }] }, hi],
    "messages[0].content[0].type",
    /got/,
  );
  refuseAll(Array(MAX_MESSAGES + 1).fill(hi), "messages", /got a list of 4097$/);
  const many = Array(MAX_PARTS + 1).fill({ type: "text", text: "" });
  refuseAll([{ role: "user", content: many }], "messages[0].content", /got a list of 1025$/);
});

Deno.test("a reply that the caller begins is refused, as a template would begin another", () => {
  const messages = [hi, { role: "assistant", content: "The answer is" }];
  refuse(
    { messages },
    "messages[1].role",
    /expected "user" in the last message, .* got "assistant"$/,
    "unsupported_value",
  );
});

Deno.test("tools and the choice among them", () => {
  const tools = [weather, { type: "custom", name: "clock", input_schema: { type: "object" }, strict: true }];
  check({ tools }, {
    tools: [
      { name: "weather", description: "d", parameters: { type: "object" } },
      { name: "clock", parameters: { type: "object" }, strict: true },
    ],
    toolChoice: "auto",
  });
  const choose = (tool_choice: unknown, toolChoice: MessagesRequest["toolChoice"], parallelToolCalls = true) =>
    check({ tools, tool_choice }, { toolChoice, parallelToolCalls });
  choose({ type: "auto" }, "auto");
  choose({ type: "any", disable_parallel_tool_use: false }, "required");
  choose({ type: "any", disable_parallel_tool_use: true }, "required", false);
  choose({ type: "tool", name: "clock" }, { name: "clock" });
  choose({ type: "none" }, "none");
  check({ tool_choice: { type: "none" } }, { tools: [], toolChoice: "none" });

  refuse({ tools: [{ type: "web_search_20250305", name: "web_search" }] }, "tools[0].type", /the server runs no tools/);
  refuse({ tools: [{ name: "a" }] }, "tools[0].input_schema", /expected a JSON schema, .* got nothing$/);
  refuse({ tools: [{ ...weather, name: "x".repeat(129) }] }, "tools[0].name", /at most 128 letters/);
  refuse({ tools: [weather, weather] }, "tools", /expected functions of different names, got two called "weather"$/);
  const many = Array.from({ length: MAX_TOOLS + 1 }, (_, index) => ({ ...weather, name: `t${index}` }));
  refuse({ tools: many }, "tools", /got a list of 129$/);
  refuse({ tool_choice: { type: "any" } }, "tool_choice", /expected tools beside it, got none$/);
  refuse({ tools, tool_choice: { type: "tool", name: "x" } }, "tool_choice.name", /one of the tools, got "x"$/);
  refuse({ tools, tool_choice: { type: "required" } }, "tool_choice.type", /got "required"$/);
  refuse({ tools, tool_choice: "auto" }, "tool_choice", /expected an object with a type, got "auto"$/);
});

Deno.test("thinking is a variable of the template; its budget is told to do nothing", () => {
  check({ thinking: { type: "enabled", budget_tokens: 1024 } }, {
    variables: { enable_thinking: true },
    ignored: ["thinking.budget_tokens"],
  });
  check({ thinking: { type: "adaptive" } }, { variables: { enable_thinking: true } });
  check({ thinking: { type: "disabled" } }, { variables: { enable_thinking: false } });
  for (const bad of [1023, 2 ** 31, -1, "1024", NaN, undefined]) {
    refuse({ thinking: { type: "enabled", budget_tokens: bad } }, "thinking.budget_tokens", /from 1024 to 2147483647/);
  }
  refuse({ thinking: { type: "between_tools" } }, "thinking.type", /got "between_tools"$/);
});

Deno.test("a schema of the output constrains the reply", () => {
  const schema = { type: "object" };
  check({ output_config: { format: { type: "json_schema", schema } } }, {
    constraint: { type: "json_schema", schema },
  });
  refuse({ output_config: { format: { type: "json" } } }, "output_config.format.type", /got "json"$/);
});

Deno.test("fields of cost and place are named; what would change the reply and fields that are none are refused", () => {
  check({
    metadata: { user_id: "u" },
    service_tier: "auto",
    cache_control: {},
    context_management: {},
    output_config: { effort: "low" },
  }, {
    ignored: ["cache_control", "context_management", "metadata", "service_tier", "output_config.effort"],
  });
  const failed = { role: "user", content: [{ type: "tool_result", tool_use_id: "t", is_error: true }] };
  check({ messages: [failed] }, { ignored: ["tool_result.is_error"] });
  const unsupported = "unsupported_value";
  refuse({ container: "c" }, "container", /expected null \(nothing is run\).* got "c"$/, unsupported);
  refuse({ mcp_servers: [{ url: "http://x" }] }, "mcp_servers", /nothing is fetched/, unsupported);
  const thread = "thread_unsupported_request";
  refuse({ thread: { type: "create" } }, "thread", /conversations are not kept/, thread);
  refuse({ frobnicate: 1 }, null, /^request: expected fields of this API, got "frobnicate"$/);
  refuse({ metadata: { user_id: 5 } }, "metadata.user_id", /got 5$/);
  for (const value of [null, 3, "x", [], undefined]) {
    assert.throws(() => parseMessagesRequest(value), /^ProtocolError: request: expected an object, got /);
  }
});

Deno.test("counting tokens takes the same prompt and none of the sampling", () => {
  const { max_tokens: _, ...prompt } = minimal;
  const { maxTokens: _1, sampling: _2, stop: _3, stream: _4, generation: _5, ...same } = parseMessagesRequest({
    ...minimal,
    system: "s",
    tools: [weather],
  });
  assert.deepEqual(parseCountTokensRequest({ ...prompt, system: "s", tools: [weather] }), same);
  assert.throws(() => parseCountTokensRequest(minimal), /expected fields of this API, got "max_tokens"$/);
});
