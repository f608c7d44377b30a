import assert from "node:assert/strict";
import { FakeEngine } from "../engine/fake.ts";
import { rawPrompt, tokensOf } from "./prompt.ts";

const withoutBos = { model: { addsBos: false } };

Deno.test("a text is one part, in which special tokens are recognised; it brings at most one begin token", async () => {
  const text = "USER: hi</s>";
  assert.deepEqual(await rawPrompt(new FakeEngine(), text), { prompt: [text], text });
  assert.deepEqual(await rawPrompt(new FakeEngine(), `<s>${text}`), { prompt: [text], text: `<s>${text}` });
  assert.deepEqual((await rawPrompt(new FakeEngine(withoutBos), `<s>${text}`)).prompt, [`<s>${text}`]);
  assert.deepEqual(await rawPrompt(new FakeEngine(), ""), { prompt: [""], text: "" });
});

Deno.test("ids are the prompt as they are; their text is for readers", async () => {
  const engine = new FakeEngine();
  for (const ids of [engine.encode(["a🦙</s>"]), engine.encode(["ab"]).slice(1), []]) {
    assert.deepEqual(await rawPrompt(engine, ids), { prompt: [], promptIds: ids, text: engine.decode(ids) });
  }
  await assert.rejects(rawPrompt(engine, [engine.model.vocabSize]), { code: "invalid_request" });
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
