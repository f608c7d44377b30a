import assert from "node:assert/strict";
import type { GenerateRequest, SamplingParams } from "./engine.ts";
import { checkRequest, encodeRequest } from "./request.ts";

function refusal(request: unknown): string {
  try {
    checkRequest(request as GenerateRequest);
  } catch (error) {
    return (error as Error).message;
  }
  return "accepted";
}

Deno.test("says what was expected and what came", () => {
  const prompt = ["x"];
  const cases: [unknown, string][] = [
    [null, "checking request: expected an object, got null"],
    [{ prompt: "x" }, 'checking prompt: expected an array of texts, got "x"'],
    [{ prompt: ["x", 1] }, "checking prompt[1]: expected a text, got 1"],
    [{ prompt: ["\uDC00"] }, 'checking prompt[0]: expected well-formed Unicode, got "\\udc00"'],
    [{ prompt, maxTokens: 0 }, "checking maxTokens: expected a whole number from 1 to 2147483647, got 0"],
    [{ prompt, sampling: { topP: 0 } }, "checking sampling.topP: expected a number above 0 up to 1, got 0"],
    [
      { prompt, sampling: { temperature: NaN } },
      "checking sampling.temperature: expected a number from 0 to 100, got NaN",
    ],
    [
      { prompt, sampling: { seed: "x".repeat(99) } },
      "checking sampling.seed: expected a whole number from 0 to 9007199254740991, got a text of 99 characters",
    ],
    [{ prompt, stop: ["a", ""] }, "checking stop[1]: expected 1 to 1024 characters, got 0"],
    [{ prompt, promptIds: [1] }, "checking prompt: expected no parts besides promptIds, got an array"],
    [
      { prompt, stopTokenIds: [1, -1] },
      "checking stopTokenIds[1]: expected a whole number from 0 to 4294967295, got -1",
    ],
    [
      { prompt, sampling: { logitBias: [[1, 101]] } },
      "checking sampling.logitBias[0][1]: expected a number from -100 to 100, got 101",
    ],
    [
      { prompt, sampling: { samplers: ["dry", "dry"] } },
      'checking sampling.samplers[1]: expected each name once, got "dry"',
    ],
    [
      { prompt, sampling: { allowedTokenIds: [] } },
      "checking sampling.allowedTokenIds: expected at least 1 token ids, got 0",
    ],
    [
      { prompt, constraint: { type: "xml" } },
      'checking constraint.type: expected one of json_schema, json_object, regex, choice, grammar, got "xml"',
    ],
    [
      { prompt, constraint: { type: "regex", pattern: "" } },
      "checking constraint.pattern: expected 1 to 65536 bytes, got 0",
    ],
    [
      { prompt, constraint: { type: "json_object", schema: {} } },
      "checking constraint.schema: expected nothing in a json_object, got object",
    ],
    [{ prompt, ignoreEos: {} }, "checking ignoreEos: expected true or false, got object"],
  ];
  for (const [request, sentence] of cases) assert.equal(refusal(request), sentence);
});

Deno.test("counts stop texts in characters, not UTF-16 units", () => {
  assert.equal(refusal({ prompt: ["x"], stop: ["🦙".repeat(1024)] }), "accepted");
  assert.match(refusal({ prompt: ["x"], stop: ["🦙".repeat(1025)] }), /got 1025/);
});

Deno.test("writes a schema as a text", () => {
  const schema = { type: "string", enum: ["é"] };
  const { constraint } = JSON.parse(encodeRequest({ prompt: ["a"], constraint: { type: "json_schema", schema } }));
  assert.deepEqual(constraint, { type: "json_schema", schema: '{"type":"string","enum":["é"]}' });
  for (const constraint of [{ type: "regex", pattern: "a" }, { type: "choice", choices: ["a"] }] as const) {
    assert.deepEqual(JSON.parse(encodeRequest({ prompt: ["a"], constraint })).constraint, constraint);
  }
});

Deno.test("writes only the fields that are given", () => {
  assert.equal(encodeRequest({ prompt: ["a", "b"] }), '{"prompt":["a","b"]}');
  const sampling: SamplingParams = {
    temperature: 0,
    topNSigma: 1,
    repeatLastN: 64,
    dryPenaltyLastN: 3,
    samplers: ["top_k"],
    logitBias: [[1, 2.5], [2, -Infinity]],
    allowedTokenIds: [1, 2],
    seed: 2 ** 53 - 1,
  };
  assert.deepEqual(
    JSON.parse(
      encodeRequest({
        prompt: [],
        promptIds: [1],
        maxTokens: 3,
        stop: ["s"],
        stopTokenIds: [2],
        minTokens: 1,
        ignoreEos: true,
        sampling,
      }),
    ),
    {
      prompt: [],
      prompt_ids: [1],
      max_tokens: 3,
      stop: ["s"],
      stop_token_ids: [2],
      min_tokens: 1,
      ignore_eos: true,
      temperature: 0,
      top_n_sigma: 1,
      repeat_last_n: 64,
      dry_penalty_last_n: 3,
      samplers: ["top_k"],
      logit_bias: [[1, 2.5], [2, null]],
      allowed_token_ids: [1, 2],
      seed: 9007199254740991,
    },
  );
});
