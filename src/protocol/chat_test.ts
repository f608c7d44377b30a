import assert from "node:assert/strict";
import type OpenAI from "openai";
import {
  chatChunk,
  type ChatCompletion,
  chatCompletion,
  type ChatCompletionChunk,
  type ChatRequest,
  chatUsage,
  parseChatRequest,
  ProtocolError,
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
    sampling: {
      temperature: undefined,
      topK: undefined,
      topP: undefined,
      minP: undefined,
      repeatPenalty: undefined,
      seed: undefined,
    },
    maxTokens: undefined,
    stop: [],
    stream: false,
    includeUsage: false,
  });
});

Deno.test("null is absence in every optional field", () => {
  const names = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "repetition_penalty", "seed", "stop"];
  names.push("max_tokens", "max_completion_tokens", "stream", "stream_options", "n", "tools", "tool_choice");
  names.push("response_format", "logprobs", "logit_bias", "presence_penalty", "user", "metadata");
  const nulls = Object.fromEntries(names.map((name) => [name, null]));
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

Deno.test("values that mean off and unknown fields pass", () => {
  const off = { n: 1, tools: [], tool_choice: "none", logprobs: false, logit_bias: {}, presence_penalty: 0 };
  assert.deepEqual(parseChatRequest({ ...minimal, ...off, frobnicate: 1 }), parseChatRequest(minimal));
  check({ response_format: { type: "text" } }, { stream: false });
});

Deno.test("what is not implemented and would change the reply is refused by name", () => {
  const refused = "unsupported_value";
  checkField({ n: 2 }, /^n: expected 1, as nothing else is supported, got 2$/, refused);
  checkField({ n: 1e9 }, /got 1000000000/, refused);
  checkField({ tools: [{}] }, /got a list of 1/, refused);
  checkField({ response_format: { type: "json_object" } }, /got an object/, refused);
  checkField({ logprobs: true }, /got true/, refused);
  checkField({ frequency_penalty: 0.5 }, /got 0.5/, refused);
  checkField({ logit_bias: { 50256: -100 } }, /got an object/, refused);
});

Deno.test("numbers outside their range, and things that are no numbers, are refused with the field's name", () => {
  const names = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "repetition_penalty", "seed"];
  names.push("max_tokens", "max_completion_tokens");
  for (const name of names) {
    for (const bad of [NaN, Infinity, -Infinity, -1, "1", 2 ** 53, 1e300, true, [1], {}]) {
      checkField({ [name]: bad }, new RegExp(`^${name}: expected an? (number|integer) (from|above) `));
    }
  }
  for (const name of ["top_k", "seed", "max_tokens"]) checkField({ [name]: 1.5 }, /expected an integer .* got 1.5$/);
  for (const name of ["top_p", "repeat_penalty", "max_tokens"]) checkField({ [name]: 0 }, /got 0$/);
  checkField({ temperature: 2.0000001 }, /^temperature: expected a number from 0 to 2, got 2.0000001$/);
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
  refuse([{ role: "tool", content: "x" }], "messages[0].role", /got "tool"$/);
  refuse([{ content: "x" }], "messages[0].role", /got nothing$/);
  refuse([{ role: "user" }], "messages[0].content", /got nothing$/);
  refuse([{ role: "user", content: null }], "messages[0].content", /got null$/);
  refuse([{ role: "user", content: [] }], "messages[0].content", /got a list of 0$/);
  refuse([{ role: "user", content: "\ud800" }], "messages[0].content", /well-formed/);
  const image = { type: "image_url", image_url: { url: "http://169.254.169.254/" } };
  const parts = [{ type: "text", text: "see" }, image];
  refuse([{ role: "user", content: parts }], "messages[0].content[1].type", /expected "text", got "image_url"$/);
  refuse([{ role: "user", content: [{ type: "text" }] }], "messages[0].content[0].text", /got nothing$/);
  refuse([{ role: "assistant", tool_calls: [{}] }], "messages[0].tool_calls", /tools are not supported/);
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
  const whole: ChatCompletion = chatCompletion(head, { content: "x", finishReason: "stop", usage });
  const chunk: ChatCompletionChunk = chatChunk(head, { delta: { content: "x" }, usage: null });
  // These two lines are checked by the compiler.
  const theirs: [OpenAI.ChatCompletion, OpenAI.ChatCompletionChunk] = [whole, chunk];
  assert.deepEqual(theirs.map(({ object }) => object), ["chat.completion", "chat.completion.chunk"]);
  assert.equal(whole.usage.total_tokens, 7);
  assert.deepEqual(chatChunk(head, { usage }).choices, []);
  assert(!("usage" in chatChunk(head, { delta: {} })));
});
