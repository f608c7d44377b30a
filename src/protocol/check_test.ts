import assert from "node:assert/strict";
import { describe, parseJson } from "./check.ts";
import { parseChatRequest, parseClientFrame, ProtocolError } from "./mod.ts";

Deno.test("describe: small values as they are, others by kind and size", () => {
  const shown = [undefined, null, -0.5, Infinity, true, "a\n", [1, 2], { a: 1 }, "x".repeat(41)].map(describe);
  const long = `"${"x".repeat(40)}"...`;
  assert.deepEqual(shown, ["nothing", "null", "-0.5", "Infinity", "true", '"a\\n"', "a list of 2", "an object", long]);
});

Deno.test("text that is not JSON is refused with an excerpt", () => {
  for (const text of ["", "{", "{'a': 1}", "NaN", "[1,]", "[".repeat(100_000)]) {
    assert.throws(() => parseJson(text), (error) => {
      assert(error instanceof ProtocolError);
      assert.deepEqual([error.code, error.param], ["invalid_json", null]);
      assert.match(error.message, /^request: expected JSON, got "/);
      assert(error.message.length < 300, error.message);
      return true;
    });
  }
});

Deno.test("hostile JSON is refused or ignored, in bounded time", () => {
  const deep = "[".repeat(100_000) + "]".repeat(100_000);
  const request = (fields: string) => parseJson(`{"model":"m","messages":[{"role":"user","content":"x"}],${fields}}`);
  assert.throws(() => parseChatRequest(request(`"stop":${deep}`)), ProtocolError);
  assert.throws(() => parseChatRequest(request(`"temperature":1e999`)), /expected a number from 0 to 2, got Infinity/);
  assert.throws(() => parseClientFrame(deep), ProtocolError);
  const polluted = parseChatRequest(request(`"__proto__":{"stream":true},"constructor":1`));
  assert.deepEqual([polluted.stream, ({} as { stream?: boolean }).stream], [false, undefined]);
});
