import assert from "node:assert/strict";
import { EngineError } from "../engine/engine.ts";
import { FakeEngine, type FakeOptions } from "../engine/fake.ts";
import { rawPrompt, tokensOf } from "./prompt.ts";

const withoutBos = { model: { addsBos: false } };

async function checkSpelled(fake: FakeOptions, written: string[], parts: string[]): Promise<void> {
  const engine = new FakeEngine(fake);
  const ids = engine.encode(written);
  const prompt = await rawPrompt(engine, ids);
  assert.deepEqual(prompt, { parts, text: parts.join("") });
  assert.deepEqual(engine.encode(prompt.parts), ids);
}

async function checkRefused(ids: number[], code: string, message: RegExp, engine = new FakeEngine()): Promise<void> {
  await assert.rejects(rawPrompt(engine, ids), (error) => {
    assert(error instanceof EngineError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("a text is one part, in which special tokens are recognised; it brings at most one begin token", async () => {
  const text = "USER: hi</s>";
  assert.deepEqual(await rawPrompt(new FakeEngine(), text), { parts: [text], text });
  assert.deepEqual(await rawPrompt(new FakeEngine(), `<s>${text}`), { parts: [text], text: `<s>${text}` });
  assert.deepEqual((await rawPrompt(new FakeEngine(withoutBos), `<s>${text}`)).parts, [`<s>${text}`]);
  assert.deepEqual(await rawPrompt(new FakeEngine(), ""), { parts: [""], text: "" });
});

Deno.test("ids are spelled: special tokens apart, and text that only looks like one stays text", async () => {
  await checkSpelled({}, ["a🦙b"], ["a🦙b"]);
  await checkSpelled({}, ["</s>a</s></s>b"], ["</s>", "a", "</s>", "</s>", "b"]);
  await checkSpelled({}, ["a<", "/s>b</s>"], ["a<", "/s>b", "</s>"]);
  await checkSpelled(withoutBos, ["<s>a"], ["<s>", "a"]);
  await checkSpelled({}, ["<s>a"], ["<s>", "a"]);
  await checkSpelled({}, [""], []);
});

Deno.test("ids that the engine cannot be given exactly are refused", async () => {
  const engine = new FakeEngine();
  const text = engine.encode(["ab"]);
  await checkRefused(text.slice(1), "unsupported", /expected 0 \.\.\., as the model wants these around every prompt/);
  const { vocabSize } = engine.model;
  await checkRefused([...text, vocabSize], "invalid_request", /expected ids below \d+, got \d+$/);
  // Two ids for one text: the tokenizer only ever gives the first.
  const decode = engine.decode.bind(engine);
  engine.decode = (ids) => decode(ids).replaceAll("b", "a");
  await checkRefused(text, "unsupported", /got others after the first 2$/, engine);
  engine.decode = (ids) => `${decode(ids)}!`;
  await checkRefused(text, "unsupported", /got others after the first 3$/, engine);
});

Deno.test("ids: as many as the context has room for, and none of a special token of one character as text", async () => {
  const engine = new FakeEngine({ model: { contextLength: 4 } });
  assert.deepEqual((await rawPrompt(engine, engine.encode(["ab"]))).parts, ["ab"]);
  await checkRefused(engine.encode(["abc"]), "context_overflow", /expected fewer than 4 tokens, got 4$/, engine);
  const short = new FakeEngine({ model: { specialTokens: ["<s>", "~"] } });
  const plain = short.model.specialTokens.length + "~".codePointAt(0)!;
  await checkRefused([0, plain], "unsupported", /"~" is a special token of one character$/, short);
});

Deno.test("tokens of a text: with or without what surrounds a prompt, special tokens read or not", async () => {
  for (const fake of [{}, withoutBos]) {
    const engine = new FakeEngine(fake);
    const tokens = (addSpecial: boolean, parseSpecial: boolean) =>
      tokensOf(engine, "a</s>", { addSpecial, parseSpecial });
    const begin = fake === withoutBos ? [] : [0];
    const [a, end] = engine.encode(["a</s>"]).slice(begin.length);
    assert.deepEqual(await tokens(true, true), [...begin, a, end]);
    assert.deepEqual(await tokens(false, true), [a, end]);
    assert.equal((await tokens(false, false)).length, 5);
    assert(!(await tokens(true, false)).includes(end!));
    assert.deepEqual(await tokensOf(engine, "", { addSpecial: false, parseSpecial: true }), []);
  }
});
