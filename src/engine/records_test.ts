import assert from "node:assert/strict";
import { EngineError, type GenerateEvent, type ModelInfo } from "./engine.ts";
import {
  packEmbedding,
  packJson,
  packLoading,
  packLogprobs,
  packModel,
  packRecord,
  packStarted,
  packText,
} from "./loopback.ts";
import { readModel, readRecords, type RecordSink } from "./records.ts";

const MODEL: ModelInfo = {
  name: "m",
  architecture: "llama",
  contextLength: 8192,
  vocabSize: 49152,
  embeddingLength: 576,
  constrains: false,
  parameters: 134515008,
  quantization: "q4_1",
  chatTemplate: "{{ messages }}",
  bosToken: "<s>",
  eosToken: undefined,
  addsBos: false,
  specialTokens: ["<s>", "</s>"],
  device: "cpu",
  notMapped: "the disk is full",
  defaults: { temperature: 0.9, topK: 50, topP: 0.6, minP: 0.1, repeatPenalty: 1.1, maxLength: 4096 },
};
const ENTRY = { id: 7, token: "hi", bytes: [104, 105], logprob: -2 };
const TOKEN = { ...ENTRY, top: [] };
const DONE = { reason: "stop", prompt_tokens: 1, completion_tokens: 2, queue_ms: 0.5, prefill_ms: 3, decode_ms: 4 };

/** Everything that came out of `bytes`, in order. */
function read(...records: Uint8Array[]): unknown[] {
  const seen: unknown[] = [];
  const sink: RecordSink = {
    loading: (done, total) => seen.push(["loading", done, total]),
    ready: () => seen.push(["ready"]),
    failed: (error) => seen.push(["failed", error.code, error.message]),
    event: (request, event) => seen.push([request, event]),
    embedding: (request, embedding) => seen.push([request, embedding]),
    logprobs: (request, token) => seen.push([request, token]),
    promptLogprobs: (request, token) => seen.push([request, "prompt", token]),
    error: (request, error) => seen.push([request, error.code, error.message]),
  };
  readRecords(concat(records), sink);
  return seen;
}

function concat(records: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(records.reduce((sum, record) => sum + record.length, 0));
  let at = 0;
  for (const record of records) {
    bytes.set(record, at);
    at += record.length;
  }
  return bytes;
}

function text(request: number, completionTokens: number, text: string): [number, GenerateEvent] {
  return [request, { type: "text", text, completionTokens }];
}

Deno.test("no bytes are no records", () => assert.deepEqual(read(), []));

Deno.test("decodes texts of every padding and keeps a leading byte order mark", () => {
  const texts = ["a", "ab", "abc", "abcd", "", "\u{FEFF}é", "🦙\0"];
  const records = texts.map((part, index) => packRecord(index + 1, 4, packText(index, part)));
  assert.deepEqual(read(...records), texts.map((part, index) => text(index + 1, index, part)));
});

Deno.test("decodes a batch that lies inside a larger buffer", () => {
  const record = packRecord(7, 4, packText(1, "hi"));
  const buffer = new Uint8Array(64).fill(255);
  buffer.set(record, 12);
  assert.deepEqual(read(buffer.subarray(12, 12 + record.length)), [text(7, 1, "hi")]);
});

Deno.test("decodes every kind", () => {
  const failure = { code: "invalid_format", message: "no magic" };
  assert.deepEqual(
    read(
      packRecord(0, 1, packLoading(5, 2 ** 40)),
      packRecord(0, 2, new Uint8Array()),
      packRecord(3, 7, packStarted(9)),
      packRecord(0, 3, packJson(failure)),
      packRecord(3, 5, packJson({ ...DONE, stop: "###" })),
      packRecord(4, 6, packJson({ code: "internal", message: "x" })),
      packEmbedding(5, { values: Float32Array.of(0.5, -0), promptTokens: 3 }),
    ),
    [
      ["loading", 5, 2 ** 40],
      ["ready"],
      [3, { type: "started", promptTokens: 9 }],
      ["failed", "invalid_format", "no magic"],
      [3, {
        type: "done",
        reason: "stop",
        stop: "###",
        usage: { promptTokens: 1, completionTokens: 2 },
        timings: { queueMs: 0.5, prefillMs: 3, decodeMs: 4 },
      }],
      [4, "internal", "x"],
      [5, { values: Float32Array.of(0.5, -0), promptTokens: 3 }],
    ],
  );
});

Deno.test("decodes log probabilities, and tokens that are half a character", () => {
  const half = { id: 2 ** 32 - 1, token: "\uFFFD", bytes: [0xe2, 0x82], logprob: -0.5 };
  const chosen = { ...half, top: [ENTRY, half] };
  assert.deepEqual(
    read(
      packRecord(1, 9, packLogprobs(null)),
      packRecord(1, 9, packLogprobs(TOKEN)),
      packRecord(1, 8, packLogprobs(chosen)),
    ),
    [[1, "prompt", null], [1, "prompt", TOKEN], [1, chosen]],
  );
});

Deno.test("takes absent and null optional fields alike", () => {
  const [[, event]] = read(packRecord(1, 5, packJson({ ...DONE, stop: null }))) as [[number, { stop?: string }]];
  assert.equal(event.stop, undefined);
});

const good = packRecord(1, 4, packText(1, "abc"));

function header(length: number, request: number, kind: number, payload: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(length, request, kind, payload).buffer);
}

const MALFORMED: [string, Uint8Array, RegExp][] = [
  ["a cut header", good.subarray(0, 15), /header of 16 bytes, got 15/],
  ["a cut payload", good.subarray(0, 20), /does not fit/],
  ["a length of zero", header(0, 1, 4, 0), /does not fit/],
  ["a length that is no multiple of 4", header(18, 1, 4, 0), /does not fit/],
  ["a length of 2^32-4", header(2 ** 32 - 4, 1, 4, 0), /does not fit/],
  ["a payload longer than its record", header(16, 1, 4, 1), /does not fit/],
  ["a payload of 2^32-1", header(16, 1, 4, 2 ** 32 - 1), /does not fit/],
  ["an unknown kind", packRecord(1, 99, new Uint8Array()), /kind of this table, got 99/],
  ["an embedding without its count", packRecord(1, 10, new Uint8Array()), /whole numbers of 4 bytes, got 0/],
  ["half a number", packRecord(1, 10, new Uint8Array(6)), /whole numbers of 4 bytes, got 6/],
  ["a text without its count", packRecord(1, 4, new Uint8Array(3)), /text payload of 4 bytes/],
  ["half a character", packRecord(1, 4, packText(1, "é").subarray(0, 5)), /UTF-8/],
  ["a log probability of nothing", packRecord(1, 8, new Uint8Array()), /probability of a token, got none/],
  ["half a log probability", packRecord(1, 8, new Uint8Array(11)), /does not fit into 11 bytes/],
  [
    "a token longer than its record",
    packRecord(1, 9, packLogprobs(TOKEN).subarray(0, -1)),
    /does not fit into 13 bytes/,
  ],
  ["a short loading payload", packRecord(0, 1, new Uint8Array(8)), /16 bytes, got 8/],
  ["broken JSON", packRecord(1, 5, new TextEncoder().encode("{")), /JSON object/],
  ["JSON that is no object", packRecord(1, 5, packJson(1)), /JSON object/],
  ["a missing field", packRecord(1, 5, packJson({ ...DONE, queue_ms: undefined })), /queue_ms/],
  ["a field of the wrong type", packRecord(1, 5, packJson({ ...DONE, prompt_tokens: "1" })), /prompt_tokens/],
  ["an unknown reason", packRecord(1, 5, packJson({ ...DONE, reason: "bored" })), /bored/],
  ["an unknown code", packRecord(1, 6, packJson({ code: "odd", message: "" })), /odd/],
];

for (const [name, bytes, sentence] of MALFORMED) {
  Deno.test(`refuses ${name}`, () => {
    assert.throws(
      () => read(bytes),
      (error) => error instanceof EngineError && error.code === "internal" && sentence.test(error.message),
    );
  });
}

Deno.test("decodes a model's description", () => {
  assert.deepEqual(readModel(packModel(MODEL)), MODEL);
  const broken = packModel({ ...MODEL, specialTokens: [1 as unknown as string] });
  assert.throws(() => readModel(broken), { code: "internal", message: /array of texts as special_tokens/ });
});

Deno.test("a model may have no template and recommend nothing, or several templates and little", () => {
  const bare = { ...MODEL, chatTemplate: undefined, defaults: undefined };
  assert.deepEqual(readModel(packModel(bare)), bare);
  const chatTemplate = [{ name: "default", template: "{{ messages }}" }, { name: "tool_use", template: "" }];
  const some = readModel(packModel({ ...MODEL, chatTemplate, defaults: { topP: 0.6 } }));
  assert.deepEqual(some.chatTemplate, chatTemplate);
  assert.deepEqual(JSON.parse(JSON.stringify(some.defaults)), { topP: 0.6 });
  const broken: [Record<string, unknown>, RegExp][] = [
    [{ chatTemplate: 1 }, /a text as chat_template, got number/],
    [{ chatTemplate: ["x"] }, /an object as an element of chat_template, got string/],
    [{ chatTemplate: [{ name: "default" }] }, /a text as template, got undefined/],
    [{ defaults: { topP: "0.6" } }, /a number as top_p, got string/],
  ];
  for (const [fields, message] of broken) {
    const model = { ...MODEL, ...fields } as ModelInfo;
    assert.throws(() => readModel(packModel(model)), { code: "internal", message });
  }
});

Deno.test("gives out what came before a malformed record", () => {
  const seen: unknown[] = [];
  const sink = { event: (request: number) => seen.push(request) } as unknown as RecordSink;
  assert.throws(() => readRecords(concat([good, good.subarray(0, 8)]), sink));
  assert.deepEqual(seen, [1]);
});
