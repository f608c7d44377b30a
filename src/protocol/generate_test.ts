import assert from "node:assert/strict";
import { generateError, type GenerateRequest, parseGenerateRequest, ProtocolError } from "./mod.ts";

const LARGEST = 2 ** 31 - 1;

function parse(parameters: Record<string, unknown>): GenerateRequest {
  return parseGenerateRequest({ inputs: "hi", parameters });
}

function checkRefused(value: unknown, param: string | null, message: RegExp, code = "invalid_value"): void {
  assert.throws(() => parseGenerateRequest(value), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.deepEqual([error.param, error.code], [param, code], error.message);
    assert.match(error.message, message);
    return true;
  });
}

const GREEDY = {
  temperature: 0,
};

Deno.test("a minimal request is greedy", () => {
  const minimal = {
    inputs: "hi",
    sampling: GREEDY,
    maxTokens: undefined,
    stop: [],
    constraint: undefined,
    returnFullText: false,
  };
  assert.deepEqual(parseGenerateRequest({ inputs: "hi" }), { ...minimal, details: false });
  assert.deepEqual(parseGenerateRequest({ inputs: "hi", parameters: null }), { ...minimal, details: false });
});

Deno.test("chance is asked for by do_sample, temperature, top_k or top_p", () => {
  const cases: [Record<string, unknown>, number | undefined][] = [
    [{ do_sample: true }, undefined],
    [{ do_sample: true, temperature: 0.5 }, 0.5],
    [{ do_sample: false, temperature: 0.5 }, 0.5],
    [{ top_k: 5 }, undefined],
    [{ top_p: 0.5 }, undefined],
    [{ typical_p: 0.5 }, undefined],
    [{ do_sample: false }, 0],
    [{ seed: 1, repetition_penalty: 1.2, temperature: null }, 0],
  ];
  for (const [parameters, temperature] of cases) assert.equal(parse(parameters).sampling.temperature, temperature);
});

Deno.test("null is absence in every parameter", () => {
  const names = ["max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "seed", "stop"];
  names.push("return_full_text", "details", "best_of", "decoder_input_details", "frequency_penalty", "grammar");
  names.push("top_n_tokens", "truncate", "typical_p", "watermark", "adapter_id");
  assert.deepEqual(parse(Object.fromEntries(names.map((name) => [name, null]))), parse({}));
});

Deno.test("parameters arrive under our names, at both ends of their ranges", () => {
  const cases: [Record<string, unknown>, Partial<GenerateRequest>][] = [
    [{ max_new_tokens: 1 }, { maxTokens: 1 }],
    [{ max_new_tokens: LARGEST }, { maxTokens: LARGEST }],
    [{ temperature: 100 }, { sampling: { temperature: 100 } }],
    [{ top_k: 1 }, { sampling: { topK: 1 } }],
    [{ top_k: LARGEST }, { sampling: { topK: LARGEST } }],
    [{ top_p: 1 }, { sampling: { topP: 1 } }],
    [{ typical_p: 0.5, frequency_penalty: 2 }, { sampling: { typicalP: 0.5, frequencyPenalty: 2 } }],
    [{ repetition_penalty: 10 }, { sampling: { repeatPenalty: 10 } }],
    [{ seed: 0 }, { sampling: { seed: 0 } }],
    [{ seed: 2 ** 53 - 1 }, { sampling: { seed: 2 ** 53 - 1 } }],
    [{ stop: ["a", "b"] }, { stop: ["a", "b"] }],
    [{ grammar: { type: "json", value: { type: "object" } } }, {
      constraint: { type: "json_schema", schema: { type: "object" } },
    }],
    [{ grammar: { type: "json_schema", value: { name: "x", schema: {} } } }, {
      constraint: { type: "json_schema", schema: {} },
    }],
    [{ grammar: { type: "regex", value: "a+" } }, { constraint: { type: "regex", pattern: "a+" } }],
    [{ return_full_text: true, details: true }, { returnFullText: true, details: true }],
  ];
  for (const [parameters, expected] of cases) assert.partialDeepStrictEqual(parse(parameters), expected);
});

Deno.test("parameters outside their ranges are refused by name", () => {
  const outside: Record<string, unknown[]> = {
    max_new_tokens: [0, -1, 1.5, 2 ** 31, "5", NaN],
    do_sample: [1],
    temperature: [0, -1, 100.1, NaN, Infinity, "1"],
    top_k: [0, -1, 1.5, 2 ** 31],
    top_p: [0, 1.1, -1],
    typical_p: [0, 1.1, -1],
    frequency_penalty: [-2.1, 2.1],
    repetition_penalty: [0, 10.1],
    seed: [-1, 2 ** 53],
    stop: ["", Array(17).fill("x")],
    grammar: ["x", []],
    return_full_text: ["yes"],
    details: [0],
  };
  for (const [name, values] of Object.entries(outside)) {
    for (const value of values) {
      checkRefused({ inputs: "hi", parameters: { [name]: value } }, `parameters.${name}`, /: expected .*, got /);
    }
  }
});

Deno.test("what would change the reply and is not there is refused, its off value is not", () => {
  const off = { best_of: 1, decoder_input_details: false, top_n_tokens: 0 };
  assert.deepEqual(parse({ ...off, watermark: false }), parse({}));
  const refused = { ...off, truncate: 5, watermark: true, adapter_id: "x" };
  for (const name of Object.keys(refused)) {
    const parameters = { [name]: name in off ? 2 : refused[name as keyof typeof refused] };
    const message = /expected .*, as nothing else is supported, got /;
    checkRefused({ inputs: "hi", parameters }, `parameters.${name}`, message, "unsupported_value");
  }
});

Deno.test("grammars that are wrong are refused by name", () => {
  const refuse = (grammar: unknown, param: string, message: RegExp) =>
    checkRefused({ inputs: "hi", parameters: { grammar } }, `parameters.grammar.${param}`, message);
  refuse({ type: "gbnf", value: "x" }, "type", /expected "json", "regex" or "json_schema", got "gbnf"$/);
  refuse({ type: "json", value: "x" }, "value", /expected a JSON schema/);
  refuse({ type: "regex", value: "" }, "value", /got ""$/);
});

Deno.test("inputs are one text that is not empty", () => {
  for (const inputs of [undefined, null, "", 5, ["hi"], "\ud800"]) {
    checkRefused({ inputs }, "inputs", /: expected .*text/);
  }
});

Deno.test("failures have the kinds of their clients", () => {
  const kinds = [[400, "validation"], [413, "validation"], [429, "overloaded"], [500, "generation"]] as const;
  for (const [status, error_type] of kinds) assert.deepEqual(generateError("x", status), { error: "x", error_type });
});
