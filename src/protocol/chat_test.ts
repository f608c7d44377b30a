import assert from "node:assert/strict";
import type OpenAI from "openai";
import {
  chatChoice,
  chatChunk,
  type ChatCompletion,
  chatCompletion,
  type ChatCompletionChunk,
  chatLogprobs,
  type ChatRequest,
  chatSchema,
  chatUsage,
  MAX_CHOICES,
  parseChatRequest,
  ProtocolError,
  wireTimings,
} from "./mod.ts";
import { MAX_MESSAGES, MAX_PARTS } from "./message.ts";

const minimal = { model: "m", messages: [{ role: "user", content: "hi" }] };

function check(fields: Record<string, unknown>, expected: Partial<ChatRequest>): void {
  assert.partialDeepStrictEqual(parseChatRequest({ ...minimal, ...fields }), expected);
}

function checkRefused(value: unknown, param: string | null, message: RegExp, code = "invalid_value"): void {
  assert.throws(() => parseChatRequest(value), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.deepEqual([error.param, error.code], [param, code], error.message);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /[^.]\.$|Invalid/);
    return true;
  });
}

function checkField(fields: Record<string, unknown>, message: RegExp, code?: string): void {
  checkRefused({ ...minimal, ...fields }, Object.keys(fields)[0]!, message, code);
}

Deno.test("a minimal request leaves every choice to the engine", () => {
  assert.deepEqual(parseChatRequest(minimal), {
    model: "m",
    messages: [{ role: "user", content: "hi" }],
    n: 1,
    sampling: {},
    generation: {},
    maxTokens: undefined,
    stop: [],
    tools: [],
    toolChoice: "auto",
    parallelToolCalls: true,
    constraint: undefined,
    variables: {},
    reasoning: true,
    stream: false,
    includeUsage: false,
    ignored: [],
  });
});

Deno.test("null is absence in every optional field", () => {
  const { model: _, messages: __, ...optional } = chatSchema.shape;
  const others = ["functions", "function_call", "modalities", "audio", "user", "metadata"];
  const nulls = Object.fromEntries([...Object.keys(optional), ...others].map((name) => [name, null]));
  assert.deepEqual(parseChatRequest({ ...minimal, ...nulls }), parseChatRequest(minimal));
});

Deno.test("fields arrive under our names, at both ends of their ranges", () => {
  check({ temperature: 0 }, { sampling: { temperature: 0 } });
  check({ temperature: 2 }, { sampling: { temperature: 2 } });
  check({ top_p: 1, min_p: 0, top_k: 0 }, { sampling: { topP: 1, minP: 0, topK: 0 } });
  check({ seed: 2 ** 53 - 1 }, { sampling: { seed: 2 ** 53 - 1 } });
  check({ repetition_penalty: 1.1 }, { sampling: { repeatPenalty: 1.1 } });
  check({ repetition_penalty: 1.1, repeat_penalty: 1.2 }, { sampling: { repeatPenalty: 1.2 } });
  check({ max_tokens: 1 }, { maxTokens: 1 });
  check({ max_tokens: 1, max_completion_tokens: 2 }, { maxTokens: 2 });
  check({ stop: "END" }, { stop: ["END"] });
  check({ stop: Array(16).fill("x") }, { stop: Array(16).fill("x") });
  check({ stream: true, stream_options: { include_usage: true } }, { stream: true, includeUsage: true });
});

Deno.test("messages: text parts are joined, developer is system, an empty assistant turn is allowed", () => {
  const messages = [
    { role: "developer", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }] },
    { role: "user", content: "", name: "ignored" },
    { role: "assistant", content: null },
    { role: "assistant" },
  ];
  check({ messages }, {
    messages: [
      { role: "system", content: "ab" },
      { role: "user", content: "" },
      { role: "assistant", content: "" },
      { role: "assistant", content: "" },
    ],
  });
});

Deno.test("values that mean off pass, and fields that do nothing are named", () => {
  const off = {
    n: 1,
    tools: [],
    tool_choice: "auto",
    logprobs: false,
    top_logprobs: 0,
    functions: [],
    modalities: ["text"],
  };
  assert.deepEqual(parseChatRequest({ ...minimal, ...off }), parseChatRequest(minimal));
  check({ response_format: { type: "text" } }, { constraint: undefined });
  const idle = {
    user: "u",
    metadata: { a: "b" },
    store: true,
    service_tier: "auto",
    frobnicate: 1,
    "a\r\nb": 1,
    none: null,
  };
  check(idle, { ignored: ["user", "metadata", "store", "service_tier", "frobnicate"] });
});

Deno.test("what is not implemented and would change the reply is refused by name", () => {
  const refused = "unsupported_value";
  checkField({ functions: [{}] }, /tools are their successors/, refused);
  checkField({ function_call: { name: "f" } }, /got an object$/, refused);
  checkField({ modalities: ["text", "audio"] }, /got a list of 2$/, refused);
  checkField({ audio: { voice: "x" } }, /got an object$/, refused);
  checkField({ web_search_options: {} }, /got an object$/, refused);
});

Deno.test("choices and log probabilities", () => {
  check({ n: MAX_CHOICES, logprobs: true }, { n: MAX_CHOICES, generation: { logprobs: 0 } });
  check({ logprobs: true, top_logprobs: 20 }, { generation: { logprobs: 20 } });
  for (const n of [0, -1, MAX_CHOICES + 1, 1e9, NaN, 1.5, "2"]) {
    checkField({ n }, /^n: expected an integer from 1 to 16/);
  }
  for (const top_logprobs of [-1, 21, NaN, 2 ** 53]) checkField({ top_logprobs, logprobs: true }, /from 0 to 20/);
  checkField({ top_logprobs: 1 }, /expected logprobs to be true beside it, got nothing$/);
  checkField({ logprobs: 5 }, /expected true or false, got 5$/);
});

const TOOL = {
  type: "function",
  function: { name: "f", description: "d", parameters: { type: "object" }, strict: true },
};

Deno.test("tools arrive with what they say, and the choice of one that is there", () => {
  const tool = { name: "f", description: "d", parameters: { type: "object" }, strict: true };
  const bare = { type: "function", function: { name: "g.x-1", description: null, parameters: null } };
  check({ tools: [TOOL, bare], parallel_tool_calls: false }, {
    tools: [tool, { name: "g.x-1" }],
    toolChoice: "auto",
    parallelToolCalls: false,
  });
  for (const choice of ["none", "auto", "required"] as const) {
    check({ tools: [TOOL], tool_choice: choice }, { toolChoice: choice });
  }
  check({ tools: [TOOL], tool_choice: { type: "function", function: { name: "f" } } }, { toolChoice: { name: "f" } });
  const allowed = (mode: string, ...names: string[]) => ({
    type: "allowed_tools",
    allowed_tools: { mode, tools: names.map((name) => ({ type: "function", function: { name } })) },
  });
  check({ tools: [TOOL, bare], tool_choice: allowed("required", "g.x-1") }, {
    tools: [{ name: "g.x-1" }],
    toolChoice: "required",
  });
  checkField({ tool_choice: allowed("auto", "nobody"), tools: [TOOL] }, /expected one of the tools, got "nobody"$/);
  checkField({ tool_choice: "required" }, /expected "none" or "auto", as there are no tools, got "required"$/);
  checkField({ tool_choice: { type: "function", function: { name: "h" } }, tools: [TOOL] }, /got "h"$/);
  checkField({ tool_choice: 7, tools: [TOOL] }, /^tool_choice: expected "none", "auto", "required" or an object/);
  checkField({ tools: [TOOL, TOOL] }, /expected functions of different names, got two called "f"$/);
  checkField({ tools: Array(129).fill(TOOL) }, /expected a list of at most 128 functions, got a list of 129$/);
  const refuse = (tool: unknown, param: string, message: RegExp) =>
    checkRefused({ ...minimal, tools: [tool] }, param, message);
  refuse({}, "tools[0].type", /expected "function", got nothing$/);
  refuse({ type: "custom", custom: {} }, "tools[0].type", /got "custom"$/);
  refuse({ type: "function" }, "tools[0].function", /expected an object, got nothing$/);
  for (const name of ["", "a b", "x".repeat(65), "é", 5, null]) {
    refuse({ type: "function", function: { name } }, "tools[0].function.name", /expected a name of 1 to 64 letters/);
  }
  const nested = (depth: number): object => depth === 0 ? {} : { a: nested(depth - 1) };
  const described = (parameters: unknown) => ({ type: "function", function: { name: "f", parameters } });
  check({ tools: [described(nested(64))] }, { toolChoice: "auto" });
  const deep = JSON.parse('{"a":'.repeat(100_000) + "1" + "}".repeat(100_000));
  for (const parameters of [nested(65), deep, [], "x", 5, true]) {
    refuse(
      described(parameters),
      "tools[0].function.parameters",
      /expected a JSON schema, an object of at most 64 nested/,
    );
  }
});

Deno.test("calls, results and thoughts in messages", () => {
  const call = { id: "1", type: "function", function: { name: "f", arguments: "{}" } };
  const messages = [
    { role: "assistant", content: null, tool_calls: [call], reasoning_content: "t" },
    { role: "tool", tool_call_id: "1", content: [{ type: "text", text: "r" }] },
    { role: "assistant", content: "x", tool_calls: [], reasoning: "u", function_call: null, refusal: null },
  ];
  check({ messages }, {
    messages: [
      { role: "assistant", content: "", toolCalls: [{ id: "1", name: "f", arguments: "{}" }], reasoning: "t" },
      { role: "tool", content: "r", toolCallId: "1" },
      { role: "assistant", content: "x", reasoning: "u" },
    ],
  });
});

Deno.test("formats of the reply, one at a time", () => {
  const schema = { type: "object" };
  const asked: [Record<string, unknown>, ChatRequest["constraint"]][] = [
    [{ response_format: { type: "json_object" } }, { type: "json_object" }],
    [{ response_format: { type: "json_object", schema } }, { type: "json_schema", schema }],
    [{ response_format: { type: "json_schema", json_schema: { name: "n", schema, strict: true } } }, {
      type: "json_schema",
      schema,
    }],
    [{ response_format: { type: "json_schema", json_schema: { name: "n" } } }, { type: "json_object" }],
    [{ json_schema: schema }, { type: "json_schema", schema }],
    [{ grammar: "root ::= x" }, { type: "grammar", syntax: "gbnf", grammar: "root ::= x" }],
    [{ structured_outputs: { json: schema } }, { type: "json_schema", schema }],
    [{ structured_outputs: { json_object: true } }, { type: "json_object" }],
    [{ structured_outputs: { regex: "a+" } }, { type: "regex", pattern: "a+" }],
    [{ structured_outputs: { choice: ["a", "b"] } }, { type: "choice", choices: ["a", "b"] }],
    [{ structured_outputs: { grammar: "start: x" } }, { type: "grammar", syntax: "lark", grammar: "start: x" }],
    [{ structured_outputs: {} }, undefined],
  ];
  for (const [fields, constraint] of asked) check(fields, { constraint });
  checkField(
    { grammar: "x", response_format: { type: "json_object" } },
    /expected one format of the reply, got several$/,
  );
  checkRefused({ ...minimal, structured_outputs: { regex: "a", choice: ["b"] } }, "structured_outputs", /got several$/);
  const refuse = (fields: Record<string, unknown>, param: string, message: RegExp) =>
    checkRefused({ ...minimal, ...fields }, param, message);
  refuse(
    { response_format: { type: "xml" } },
    "response_format.type",
    /expected "text", "json_object" or .* got "xml"$/,
  );
  refuse({ response_format: "json" }, "response_format", /expected an object, got "json"$/);
  refuse({ response_format: { type: "json_schema" } }, "response_format.json_schema", /got nothing$/);
  refuse({ structured_outputs: { choice: [] } }, "structured_outputs.choice", /got a list of 0$/);
  refuse({ structured_outputs: { regex: "" } }, "structured_outputs.regex", /got ""$/);
});

Deno.test("how much to think, and variables of the template", () => {
  check({ reasoning_effort: "low" }, { variables: { reasoning_effort: "low", enable_thinking: true } });
  check({ reasoning_effort: "none" }, { variables: { reasoning_effort: "none", enable_thinking: false } });
  check({ reasoning_effort: "none", chat_template_kwargs: { enable_thinking: true, x: [1] } }, {
    variables: { reasoning_effort: "none", enable_thinking: true, x: [1] },
  });
  check({ reasoning_format: "none" }, { reasoning: false });
  checkField({ reasoning_effort: "huge" }, /^reasoning_effort: expected one of none, minimal/);
  checkField({ reasoning_format: "x" }, /got "x"$/);
  const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`v${index}`, 1]));
  const nested = (depth: number): unknown => depth === 0 ? 1 : [nested(depth - 1)];
  for (const chat_template_kwargs of [[], "x", many, { x: nested(16) }]) {
    checkField({ chat_template_kwargs }, /^chat_template_kwargs: expected an object of at most 64 variables/);
  }
});

Deno.test("limits on tokens outside their range, and things that are no numbers, are refused by name", () => {
  for (const name of ["max_tokens", "max_completion_tokens"]) {
    for (const bad of [NaN, Infinity, -Infinity, -1, 0, "1", 1.5, 2 ** 31, 2 ** 53, 1e300, true, [1], {}]) {
      checkField({ [name]: bad }, new RegExp(`^${name}: expected an integer from 1 to 2147483647, got `));
    }
  }
});

Deno.test("stop: at most 16 texts of 1 to 1024 characters", () => {
  checkField({ stop: Array(17).fill("x") }, /or a list of at most 16, got a list of 17$/);
  checkField({ stop: "" }, /got ""$/);
  checkField({ stop: "x".repeat(1025) }, /got "x{40}"\.\.\.$/);
  checkField({ stop: 7 }, /got 7$/);
  checkRefused({ ...minimal, stop: ["ok", ""] }, "stop[1]", /^stop\[1\]: /);
});

Deno.test("messages: the refused place is named down to the part", () => {
  const refuse = (messages: unknown, param: string, message: RegExp) =>
    checkRefused({ ...minimal, messages }, param, message);
  refuse([], "messages", /expected a list of 1 to 4096 messages, got a list of 0$/);
  refuse("hi", "messages", /got "hi"$/);
  refuse(undefined, "messages", /got nothing$/);
  refuse([3], "messages[0]", /expected a message with role and content, got 3$/);
  refuse([{ role: "ipython", content: "x" }], "messages[0].role", /or "tool", got "ipython"$/);
  refuse([{ role: "tool", content: "x" }], "messages[0].tool_call_id", /got nothing$/);
  refuse([{ role: "tool", tool_call_id: "1" }], "messages[0].content", /got nothing$/);
  refuse([{ content: "x" }], "messages[0].role", /got nothing$/);
  refuse([{ role: "user" }], "messages[0].content", /got nothing$/);
  refuse([{ role: "user", content: null }], "messages[0].content", /got null$/);
  refuse([{ role: "user", content: [] }], "messages[0].content", /got a list of 0$/);
  refuse([{ role: "user", content: "\ud800" }], "messages[0].content", /well-formed/);
  const image = { type: "image_url", image_url: { url: "http://169.254.169.254/" } };
  const parts = [{ type: "text", text: "see" }, image];
  refuse([{ role: "user", content: parts }], "messages[0].content[1].type", /expected "text", got "image_url"$/);
  refuse([{ role: "user", content: [{ type: "text" }] }], "messages[0].content[0].text", /got nothing$/);
  refuse([{ role: "assistant", tool_calls: [{}] }], "messages[0].tool_calls[0].id", /got nothing$/);
  refuse(
    [{ role: "assistant", tool_calls: {} }],
    "messages[0].tool_calls",
    /list of at most 128 calls, got an object$/,
  );
  const loose = { id: "1", type: "function", function: { name: "f", arguments: {} } };
  refuse(
    [{ role: "assistant", tool_calls: [loose] }],
    "messages[0].tool_calls[0].function.arguments",
    /got an object$/,
  );
  refuse([{ role: "assistant", function_call: { name: "f" } }], "messages[0].function_call", /but tool_calls/);
  refuse(Array(MAX_MESSAGES + 1).fill(minimal.messages[0]), "messages", /got a list of 4097$/);
  const many = Array(MAX_PARTS + 1).fill({ type: "text", text: "" });
  refuse([{ role: "user", content: many }], "messages[0].content", /got a list of 1025$/);
});

Deno.test("other fields and the whole", () => {
  checkRefused({ messages: minimal.messages }, "model", /^model: expected a well-formed text of 1 to 256 /);
  checkField({ stream: "yes" }, /^stream: expected true or false, got "yes"$/);
  checkField({ stream_options: [] }, /^stream_options: expected an object, got a list of 0$/);
  checkRefused({ ...minimal, stream_options: { include_usage: 1 } }, "stream_options.include_usage", /got 1$/);
  for (const value of [null, 3, "x", [], undefined]) {
    checkRefused(value, null, /^request: expected an object, got /, "unsupported_value");
  }
});

Deno.test("shapes are those of OpenAI's own client", () => {
  const head = { id: "chatcmpl-1", created: 1, model: "m" };
  const usage = chatUsage(3, 4);
  const token = { id: 5, token: "x", bytes: [120], logprob: -Infinity };
  const logprobs = chatLogprobs([{ ...token, top: [token] }]);
  const toolCalls = [{ id: "1", name: "f", arguments: "{}" }];
  const said = { content: "", reasoning: "t", toolCalls, logprobs, finishReason: "tool_calls" } as const;
  const timings = wireTimings({ promptTokens: 3, completionTokens: 4 }, { queueMs: 1, prefillMs: 0, decodeMs: 2000 });
  const whole: ChatCompletion = chatCompletion(head, { choices: [chatChoice(0, said)], usage, timings });
  const delta = {
    tool_calls: [{ index: 0, id: "1", type: "function", function: { name: "f", arguments: "" } }],
  } as const;
  const chunk: ChatCompletionChunk = chatChunk(head, { delta: { tool_calls: [...delta.tool_calls] }, usage: null });
  // These two lines are checked by the compiler.
  const theirs: [OpenAI.ChatCompletion, OpenAI.ChatCompletionChunk] = [whole, chunk];
  assert.deepEqual(theirs.map(({ object }) => object), ["chat.completion", "chat.completion.chunk"]);
  assert.equal(whole.usage.total_tokens, 7);
  assert.deepEqual(whole.choices[0]!.message, {
    role: "assistant",
    content: null,
    refusal: null,
    reasoning_content: "t",
    tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: "{}" } }],
  });
  const shown = { token: "x", logprob: -9999, bytes: [120] };
  assert.deepEqual(logprobs, { content: [{ ...shown, top_logprobs: [shown] }], refusal: null });
  assert.deepEqual([timings.prompt_per_second, timings.predicted_per_second], [0, 2]);
  assert.deepEqual(chatChunk(head, { usage }).choices, []);
  assert(!("usage" in chatChunk(head, { delta: {} })));
});
