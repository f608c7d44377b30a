import assert from "node:assert/strict";
import { describe, MAX_JSON_DEPTH, parseJson } from "./check.ts";
import { parseChatRequest, ProtocolError, receiveFrame } from "./mod.ts";

Deno.test("describe: small values as they are, others by kind and size", () => {
  const shown = [undefined, null, -0.5, Infinity, true, "a\n", [1, 2], { a: 1 }, "x".repeat(41)].map(describe);
  const long = `"${"x".repeat(40)}"...`;
  assert.deepEqual(shown, ["nothing", "null", "-0.5", "Infinity", "true", '"a\\n"', "a list of 2", "an object", long]);
});

Deno.test("text that is not JSON is refused with an excerpt", () => {
  for (const text of ["", "{", "{'a': 1}", "NaN", "[1,]", "[".repeat(MAX_JSON_DEPTH)]) {
    assert.throws(() => parseJson(text), (error) => {
      assert(error instanceof ProtocolError);
      assert.deepEqual([error.code, error.param], ["invalid_json", null]);
      assert.match(error.message, /^request: expected JSON, got "/);
      assert(error.message.length < 300, error.message);
      return true;
    });
  }
});

Deno.test("JSON that is too deep is refused before it becomes a value; brackets in strings are no depth", () => {
  const nested = (open: string, close: string, levels: number) => `${open.repeat(levels)}1${close.repeat(levels)}`;
  const refusal = /^ProtocolError: request: expected JSON of at most 256 levels, got more$/;
  for (const [open, close] of [["[", "]"], ['{"a":', "}"], ['[{"a":', "}]"]] as const) {
    const levels = MAX_JSON_DEPTH / (open.match(/[[{]/g)!.length);
    parseJson(nested(open, close, levels));
    assert.throws(() => parseJson(nested(open, close, levels + 1)), refusal);
    assert.throws(() => parseJson(nested(open, close, 1_000_000)), refusal);
    assert.throws(() => parseJson(open.repeat(1_000_000)), refusal);
  }
  const inString = ["[".repeat(1000), '\\"' + "[".repeat(1000), "\\\\", '\\\\\\"' + "[".repeat(1000)];
  for (const text of inString) assert.equal((parseJson(`["${text}"]`) as string[]).length, 1);
  assert.equal((parseJson(`[${Array.from({ length: 10_000 }, () => "[]").join()}]`) as unknown[]).length, 10_000);
});

Deno.test("hostile JSON is refused or ignored, in bounded time", () => {
  const deep = "[".repeat(100_000) + "]".repeat(100_000);
  const request = (fields: string) => parseJson(`{"model":"m","messages":[{"role":"user","content":"x"}],${fields}}`);
  assert.throws(() => parseChatRequest(request(`"stop":${deep}`)), ProtocolError);
  assert.throws(() => parseChatRequest(request(`"temperature":1e999`)), /expected a number from 0 to 2, got Infinity/);
  assert.throws(() => receiveFrame(deep), ProtocolError);
  const polluted = parseChatRequest(request(`"__proto__":{"stream":true},"constructor":1`));
  assert.deepEqual([polluted.stream, ({} as { stream?: boolean }).stream], [false, undefined]);
});
