import assert from "node:assert/strict";
import { ProtocolError } from "./check.ts";
import {
  MAX_EMBEDDING_INPUTS,
  parseEmbeddingsRequest,
  parseOllamaEmbeddings,
  shortened,
  wireVector,
} from "./embeddings.ts";

const parse = (fields: Record<string, unknown>) => parseEmbeddingsRequest({ model: "m", ...fields }, 8);

Deno.test("embeddings: a text, texts, ids or lists of ids", () => {
  const forms: [unknown, unknown][] = [["a", ["a"]], [["a", "b"], ["a", "b"]], [[1, 2], [[1, 2]]], [[[1], [2]], [[1], [
    2,
  ]]]];
  for (const [input, inputs] of forms) {
    assert.deepEqual(parse({ input }), { model: "m", inputs, format: "float", dimensions: undefined });
  }
  assert.deepEqual(parse({ input: "a", encoding_format: "base64", dimensions: 8, user: "u" }), {
    model: "m",
    inputs: ["a"],
    format: "base64",
    dimensions: 8,
  });
  assert.equal(parse({ input: Array(MAX_EMBEDDING_INPUTS).fill("a") }).inputs.length, MAX_EMBEDDING_INPUTS);
  assert.deepEqual(parseOllamaEmbeddings({ model: "m", prompt: "a" }).inputs, ["a"]);
});

Deno.test("embeddings: what cannot be embedded is refused by name", () => {
  const refused: [Record<string, unknown>, string, RegExp][] = [
    [{}, "input", /got nothing$/],
    [{ input: "" }, "input", /not empty, .* got ""$/],
    [{ input: [] }, "input", /list of 1 to 2048 .* got a list of 0$/],
    [{ input: ["a", ""] }, "input[1]", /got ""$/],
    [{ input: [[]] }, "input[0]", /got a list of 0$/],
    [{ input: "\udc00" }, "input", /well-formed/],
    [{ input: Array(MAX_EMBEDDING_INPUTS + 1).fill("a") }, "input", /got a list of 2049$/],
    [{ input: "a", encoding_format: "int8" }, "encoding_format", /"float" or "base64", got "int8"$/],
    [{ input: "a", model: "" }, "model", /got ""$/],
  ];
  for (const id of [-1, 0.5, NaN, 2 ** 31, 2 ** 53, null]) {
    refused.push([{ input: [0, id] }, "input[1]", /token|integer/]);
  }
  for (const dimensions of [0, -1, 9, 1.5, NaN, 2 ** 31, 2 ** 53, "8"]) {
    refused.push([{ input: "a", dimensions }, "dimensions", /an integer from 1 to /]);
  }
  for (const [fields, param, message] of refused) {
    assert.throws(
      () => parse(fields),
      (error) => error instanceof ProtocolError && error.param === param && message.test(error.message),
      JSON.stringify(fields),
    );
  }
  assert.throws(() => parseOllamaEmbeddings({ model: "m", prompt: ["a", "b"] }), { param: "prompt" });
});

Deno.test("vectors: shortened ones have length 1 again, bytes are little-endian", () => {
  const values = Float32Array.of(0.36, 0.48, 0.8);
  assert.equal(shortened(values), values);
  assert.deepEqual([...shortened(values, 2)].map((value) => value.toFixed(6)), ["0.600000", "0.800000"]);
  assert.deepEqual(shortened(Float32Array.of(0, 1), 1), Float32Array.of(0));
  assert.deepEqual(wireVector(Float32Array.of(1, -0.5), "float"), [1, -0.5]);
  assert.equal(wireVector(Float32Array.of(1, -0.5), "base64"), "AACAPwAAAL8=");
});
