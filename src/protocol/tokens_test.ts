import assert from "node:assert/strict";
import {
  parseDetokenizeRequest,
  parseTemplateRequest,
  parseTokenChecks,
  parseTokenizeRequest,
  ProtocolError,
  wireTokenCheck,
} from "./mod.ts";
import { MAX_TOKEN_CHECKS } from "./tokens.ts";

function checkRefused(
  parse: (value: unknown) => unknown,
  value: unknown,
  param: string | null,
  message: RegExp,
  code = "invalid_value",
): void {
  assert.throws(() => parse(value), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.deepEqual([error.param, error.code], [param, code], error.message);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("tokenize: content or prompt, special tokens read and none added unless the request says so", () => {
  const plain = { model: undefined, text: "a", addSpecial: false, parseSpecial: true };
  assert.deepEqual(parseTokenizeRequest({ content: "a" }), plain);
  assert.deepEqual(parseTokenizeRequest({ prompt: "a", content: null, add_special: null, with_pieces: false }), plain);
  assert.deepEqual(parseTokenizeRequest({ content: "a", prompt: "b" }), plain);
  assert.equal(parseTokenizeRequest({ content: "", prompt: "b" }).text, "");
  const all = { model: "m", content: "a", add_special: true, parse_special: false };
  assert.deepEqual(parseTokenizeRequest(all), { model: "m", text: "a", addSpecial: true, parseSpecial: false });
  const refuse = (value: unknown, param: string | null, message: RegExp, code?: string) =>
    checkRefused(parseTokenizeRequest, value, param, message, code);
  refuse({}, "content", /^content: expected a well-formed text, got nothing$/);
  refuse({ content: 3 }, "content", /got 3$/);
  refuse({ prompt: ["a"] }, "prompt", /got a list of 1$/);
  refuse({ content: "\udc00" }, "content", /well-formed/);
  refuse({ content: "a", add_special: "yes" }, "add_special", /expected true or false, got "yes"$/);
  refuse({ content: "a", model: "" }, "model", /1 to 256 characters, got ""$/);
  refuse({ content: "a", with_pieces: true }, "with_pieces", /expected false, .* got true$/, "unsupported_value");
  refuse("a", null, /expected an object, got "a"$/, "unsupported_value");
});

Deno.test("detokenize: a list of ids, at both ends of their range", () => {
  const tokens = [0, 2 ** 31 - 1];
  assert.deepEqual(parseDetokenizeRequest({ tokens }), { model: undefined, tokens });
  assert.deepEqual(parseDetokenizeRequest({ tokens: [], model: "m" }), { model: "m", tokens: [] });
  for (const bad of [-1, 0.5, NaN, 2 ** 31, 2 ** 53, "1", null, [1]]) {
    const message = /^tokens\[1\]: expected an integer from 0 to 2147483647, got /;
    checkRefused(parseDetokenizeRequest, { tokens: [0, bad] }, "tokens[1]", message);
  }
  for (const tokens of [undefined, 3, "1,2"]) {
    checkRefused(parseDetokenizeRequest, { tokens }, "tokens", /expected a list of at most 1048576 token ids, got /);
  }
});

Deno.test("apply-template: messages as a chat completion has them", () => {
  const messages = [{ role: "developer", content: "a" }, { role: "user", content: [{ type: "text", text: "b" }] }];
  assert.deepEqual(parseTemplateRequest({ messages }).messages, [
    { role: "system", content: "a" },
    { role: "user", content: "b" },
  ]);
  checkRefused(parseTemplateRequest, {}, "messages", /got nothing$/);
  checkRefused(parseTemplateRequest, { messages: [{ role: "x" }] }, "messages[0].role", /got "x"$/);
});

Deno.test("token check: each prompt names its model and its new tokens", () => {
  const prompt = { model: "m", prompt: "a", max_tokens: 0 };
  assert.deepEqual(parseTokenChecks({ prompts: [prompt] }), [{ model: "m", prompt: "a", maxTokens: 0 }]);
  assert.equal(parseTokenChecks({ prompts: Array(MAX_TOKEN_CHECKS).fill(prompt) }).length, MAX_TOKEN_CHECKS);
  const refuse = (prompts: unknown, param: string, message: RegExp) =>
    checkRefused(parseTokenChecks, { prompts }, param, message);
  for (const prompts of [undefined, [], "a", Array(MAX_TOKEN_CHECKS + 1).fill(prompt)]) {
    refuse(prompts, "prompts", /expected a list of 1 to 256 prompts, got /);
  }
  refuse([prompt, 3], "prompts[1]", /expected an object, got 3$/);
  refuse([{ ...prompt, model: undefined }], "prompts[0].model", /got nothing$/);
  refuse([{ ...prompt, prompt: [1] }], "prompts[0].prompt", /got a list of 1$/);
  for (const bad of [-1, 1.5, NaN, 2 ** 31, 2 ** 53, "1", null, undefined]) {
    refuse([{ ...prompt, max_tokens: bad }], "prompts[0].max_tokens", /expected an integer from 0 to 2147483647, got /);
  }
});

Deno.test("a prompt fits when it and its new tokens, at least one, do", () => {
  assert.deepEqual(wireTokenCheck(2, 8, 10), { fits: true, tokenCount: 8, contextLength: 10 });
  assert.equal(wireTokenCheck(3, 8, 10).fits, false);
  assert.equal(wireTokenCheck(0, 9, 10).fits, true);
  assert.equal(wireTokenCheck(0, 10, 10).fits, false);
});
