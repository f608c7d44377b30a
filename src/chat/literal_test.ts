import assert from "node:assert/strict";
import { literalTemplate } from "./literal.ts";

Deno.test("a literal prompt stays as it is, but for a begin token that the engine puts in front as well", () => {
  const render = (addsBos: boolean, content: string, bosToken?: string) =>
    literalTemplate({ addsBos, bosToken }).render([{ role: "user", content }], { specialTokens: ["<s>", "</s>"] });
  assert.deepEqual(render(true, "[INST] a</s> ", "<s>"), { prompt: ["[INST] a</s> "], stop: [] });
  assert.deepEqual(render(true, "<s>a<s>", "<s>").prompt, ["a<s>"]);
  assert.deepEqual(render(false, "<s>a", "<s>").prompt, ["<s>a"]);
  assert.deepEqual(render(true, "<s>a").prompt, ["<s>a"]);
});
