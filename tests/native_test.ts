/** The native engine on the small model: the contract of all engines, and what only it can show. */
import assert from "node:assert/strict";
import { engineContract } from "../src/engine/contract.ts";
import type { Constraint, GenerateRequest } from "../src/engine/engine.ts";
import { openEngine } from "../src/engine/mod.ts";
import golden from "./golden/tiny-llama2.greedy.json" with { type: "json" };
import { TINY_MODEL } from "./support.ts";

engineContract("native engine", () => openEngine({ engine: "native", model: TINY_MODEL }));

Deno.test("native engine: describes its model", async () => {
  await using engine = await openEngine({ engine: "native", model: TINY_MODEL });
  const { device, specialTokens, ...model } = engine.model;
  assert.deepEqual(model, {
    name: "tiny-vicuna-random",
    architecture: "llama",
    contextLength: 512,
    vocabSize: 1024,
    embeddingLength: 64,
    constrains: true,
    parameters: model.parameters,
    quantization: "q8_0",
    chatTemplate: undefined,
    notMapped: undefined,
    defaults: undefined,
    bosToken: "<s>",
    eosToken: "</s>",
    addsBos: true,
  });
  assert.match(device, /^cpu (scalar|neon|neon-dotprod|avx2|avx-vnni|avx512|avx512-vnni|amx)$/);
  assert.deepEqual(specialTokens.filter((token) => token === "<s>" || token === "</s>").sort(), ["</s>", "<s>"]);
});

Deno.test("native engine: kernels that the core does not have are refused by name", async () => {
  const opening = openEngine({ engine: "native", model: TINY_MODEL, cpu: "avx3" });
  await assert.rejects(opening, { code: "invalid_request", message: /expected one of .*scalar, got "avx3"/ });
});

Deno.test("native engine: devices that are not there are refused by name", async () => {
  const open = (device: string) => openEngine({ engine: "native", model: TINY_MODEL, device });
  await using engine = await open("cpu");
  assert.match(engine.model.device, /^cpu /);
  await assert.rejects(open("gpu"), {
    code: "invalid_request",
    message: /expected cpu, cuda or cuda:N .*, got "gpu"$/,
  });
  await assert.rejects(open("cuda:1"), { code: "unsupported", message: /cuda:1 needs a core built with CUDA/ });
});

Deno.test("native engine: a reply is what its schema says, at any temperature", async () => {
  await using engine = await openEngine({ engine: "native", model: TINY_MODEL });
  const schema = {
    type: "object",
    properties: {
      name: { type: "string", maxLength: 12 },
      kind: { enum: ["één", "🦙"] },
      tags: { type: "array", maxItems: 2, items: { type: "integer", minimum: 0, maximum: 9 } },
      next: { anyOf: [{ type: "null" }, { $ref: "#/$defs/point" }] },
    },
    required: ["name", "kind", "tags", "next"],
    additionalProperties: false,
    $defs: {
      point: {
        type: "object",
        properties: { x: { type: "boolean" } },
        required: ["x"],
        additionalProperties: false,
      },
    },
  };
  const sampling = { temperature: 2, topK: 0, topP: 1, minP: 0 };
  const replies = Array.from({ length: 12 }, async (_, seed) => {
    let text = "";
    const request = { prompt: ["Hello"], sampling: { ...sampling, seed }, constraint: { type: "json_schema", schema } };
    for await (const event of engine.generate(request as GenerateRequest)) {
      if (event.type === "text") text += event.text;
      if (event.type === "done") assert.equal(event.reason, "stop");
    }
    return JSON.parse(text);
  });
  for (const { name, kind, tags, next } of await Promise.all(replies)) {
    assert.ok([...name].length <= 12 && ["één", "🦙"].includes(kind));
    assert.ok(tags.length <= 2 && tags.every((tag: number) => Number.isInteger(tag) && tag >= 0 && tag <= 9));
    assert.ok(next === null || typeof next.x === "boolean");
  }
});

Deno.test("native engine: constraints made to hurt are refused in a second, and replies go on", async () => {
  await using engine = await openEngine({ engine: "native", model: TINY_MODEL });
  const nested = Array.from({ length: 100_000 }).reduce<unknown>((inner) => [inner], 1);
  const constraints = [
    { type: "regex", pattern: "(".repeat(60_000) },
    { type: "json_schema", schema: nested },
    { type: "json_schema", schema: { allOf: [{ $ref: "#" }, { $ref: "#" }] } },
    { type: "json_schema", schema: { enum: ["x".repeat(10 * 2 ** 20)] } },
  ] as Constraint[];
  for (const constraint of constraints) {
    const began = performance.now();
    await assert.rejects(Array.fromAsync(engine.generate({ prompt: ["a"], constraint })), { code: "invalid_request" });
    assert.ok(performance.now() - began < 1000);
    const events = await Array.fromAsync(engine.generate({ prompt: ["a"], maxTokens: 1 }));
    assert.equal(events.at(-1)?.type, "done");
  }
  const events = await Array.fromAsync(
    engine.generate({ prompt: ["a"], constraint: { type: "regex", pattern: "(a+)+$" }, maxTokens: 9 }),
  );
  assert.match(events.map((event) => event.type === "text" ? event.text : "").join(""), /^a+$/);
});

Deno.test("native engine: progress rises to the whole", async () => {
  const seen: number[] = [];
  await using _engine = await openEngine({
    engine: "native",
    model: TINY_MODEL,
    onProgress: ({ done, total }) => seen.push(done / total),
  });
  assert.ok(seen.length > 0 && seen.every((share, at) => share > 0 && share <= 1 && share >= (seen[at - 1] ?? 0)));
});

Deno.test("native engine: log probabilities differ as llama.cpp's logits do", async () => {
  const { prompt, top } = golden.prefill as { prompt: string; top: [number, number][] };
  // With the cache that llama.cpp had for the golden files.
  await using engine = await openEngine({ engine: "native", model: TINY_MODEL, kv: "f32" });
  const { text } = golden.prompts.find(({ name }) => name === prompt)!;
  const request = { prompt: [text], maxTokens: 1, sampling: { temperature: 0 }, logprobs: 20, ignoreEos: true };
  const ours = new Map<number, number>();
  for await (const event of engine.generate(request)) {
    if (event.type === "text") {
      event.logprobs!.forEach((chosen) => chosen.top.forEach((t) => ours.set(t.id, t.logprob)));
    }
  }
  const shared = top.filter(([id]) => ours.has(id));
  assert.ok(shared.length >= 15, `${shared.length} of the most probable tokens are llama.cpp's too`);
  const offsets = shared.map(([id, logit]) => logit - ours.get(id)!);
  const mean = offsets.reduce((sum, offset) => sum + offset) / offsets.length;
  const apart = offsets.map((offset) => Math.abs(offset - mean));
  assert.ok(Math.max(...apart) < golden.tolerance.logit, `${Math.max(...apart)}`);
  assert.ok(apart.reduce((sum, each) => sum + each) / apart.length < 2 * golden.tolerance.logit_mean, `${apart}`);
});

Deno.test("native engine: a special token that a user typed stays text", async () => {
  await using engine = await openEngine({ engine: "native", model: TINY_MODEL });
  const end = (await engine.tokenize(["</s>"])).at(-1);
  assert.ok((await engine.tokenize(["a</s>"])).includes(end!));
  assert.ok(!(await engine.tokenize(["a<", "/s>"])).includes(end!));
  assert.equal(await engine.detokenize(await engine.tokenize(["a<", "/s>"])), "a</s>");
});

Deno.test("native engine: files that are no model are refused with what was wanted and what came", async (t) => {
  const dir = await Deno.makeTempDir();
  try {
    const model = await Deno.readFile(TINY_MODEL);
    const unknown = new TextEncoder().encode("llamb");
    const patched = model.slice();
    // The value of general.architecture stands first in the file; the keys say llama too and stay.
    patched.set(unknown, new TextDecoder("latin1").decode(model).indexOf("llama"));
    const cases: [name: string, bytes: Uint8Array, code: string, words: RegExp][] = [
      ["text.gguf", new TextEncoder().encode("this is not a model"), "invalid_format", /GGUF/],
      ["empty.gguf", new Uint8Array(), "io", /empty/],
      ["truncated.gguf", model.subarray(0, model.length - 1000), "invalid_format", /file ends early: wanted .*got/],
      ["header.gguf", model.subarray(0, 100), "invalid_format", /file ends early: wanted .*got/],
      ["architecture.gguf", patched, "unsupported", /architecture "llamb" .* known is llama/],
    ];
    for (const [name, bytes, code, words] of cases) {
      await t.step(name, async () => {
        await Deno.writeFile(`${dir}/${name}`, bytes);
        await assert.rejects(openEngine({ engine: "native", model: `${dir}/${name}` }), {
          name: "EngineError",
          code,
          message: words,
        });
      });
    }
    await assert.rejects(openEngine({ engine: "native", model: `${dir}/none.gguf` }), {
      code: "io",
      message: /No such file/,
    });
    await assert.rejects(openEngine({ engine: "native", model: dir }), {
      code: "invalid_request",
      message: /expected one model in .*, got architecture.gguf, .*: name the file/,
    });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
