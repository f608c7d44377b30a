import assert from "node:assert/strict";
import { samplePrompt, selectTemplate, TEMPLATE_NAMES } from "./select.ts";
import type { TemplateModel, WantedTemplate } from "./template.ts";

const bare = { name: "base", addsBos: true };
const own = { ...bare, name: "Vicuna tuned", chatTemplate: "{{ messages[0]['content'] }}" };
const NAMES = "vicuna-v1.1, vicuna-v0, llama-2, llama-3, chatml, mistral, alpaca, koala, zephyr, gemma, raw".split(
  ", ",
);

/** Name, source and reason of what is chosen. */
function choice(model: TemplateModel, wanted?: WantedTemplate): string[] {
  const { template, source, reason } = selectTemplate(model, wanted);
  return [template.name, source, reason];
}

Deno.test("lists its names", () => assert.deepEqual(TEMPLATE_NAMES, ["model", ...NAMES]));

Deno.test("takes an explicit name first", () => {
  for (const name of NAMES) assert.deepEqual(choice(own, name), [name, "flag", "it is asked for"]);
  assert.deepEqual(choice(own, "model"), ["model", "flag", "it is asked for"]);
});

Deno.test("takes the model's own template before its name", () => {
  assert.deepEqual(choice(own), ["model", "model", "the model brings it along"]);
});

Deno.test("of several templates takes the default one", () => {
  const named = (...names: string[]) => ({ ...bare, chatTemplate: names.map((name) => ({ name, template: name })) });
  const prompt = (model: TemplateModel) => samplePrompt(selectTemplate(model).template);
  assert.equal(prompt(named("tool_use", "default")), "default");
  assert.equal(prompt(named("rag")), "rag");
  assert.throws(() => prompt(named("tool_use", "rag")), {
    code: "no_template",
    message: "choosing a chat template: expected base to have one named default, got tool_use, rag",
  });
  assert.throws(() => prompt(named()), { code: "no_template", message: /got an empty list$/ });
});

Deno.test("takes a file before everything: Jinja, or JSON that has it", () => {
  const jinja = "{{ bos_token }}{% for m in messages %}{{ m.content }}|{% endfor %}";
  const named = [{ name: "tool_use", template: "t" }, { name: "default", template: jinja }];
  const files = [jinja, JSON.stringify({ chat_template: jinja }), JSON.stringify({ chat_template: named })];
  for (const text of files) {
    const file = { name: "mine.jinja", text };
    assert.deepEqual(choice(own, file), ["mine.jinja", "flag", "it is asked for"]);
    const { template } = selectTemplate({ ...own, bosToken: "<s>", addsBos: false }, file);
    assert.equal(samplePrompt(template), "<s>Hello!|Hi!|How are you?|");
  }
  for (const text of ["{}", "[]", '{"chat_template": 1}', '{"chat_template": [{"name": "default"}]}']) {
    assert.throws(() => selectTemplate(own, { name: "config.json", text }), {
      code: "no_template",
      message: /expected config\.json to be Jinja or JSON with a chat_template/,
    });
  }
  assert.throws(() => selectTemplate(own, { name: "x", text: "{% if %}" }), { code: "invalid_template" });
});

Deno.test("without a template of its own, the model's name and vocabulary decide", () => {
  const cases: [name: string, expected: string][] = [
    ["vicuna-7b-v1.5", "vicuna-v1.1"],
    ["LMSys_Vicuna 13B v1.3-16k", "vicuna-v1.1"],
    ["vicuna-7b-1.1", "vicuna-v1.1"],
    ["vicuna-13b", "vicuna-v1.1"],
    ["longchat-7b-v1.5-32k", "vicuna-v1.1"],
    ["vicuna-13b-v0", "vicuna-v0"],
    ["Vicuna_7B_v1.0", "vicuna-v0"],
    ["llama-2-7b-chat.Q4_0", "llama-2"],
    ["Llama 2 13B chat hf", "llama-2"],
    ["CodeLlama-7b-Instruct-hf", "llama-2"],
    ["Meta-Llama-3-8B-Instruct", "llama-3"],
    ["Llama-3.1-8B-Instruct", "llama-3"],
    ["Mistral-7B-Instruct-v0.2", "mistral"],
    ["Mixtral-8x7B-Instruct-v0.1", "mistral"],
    ["zephyr-7b-beta", "zephyr"],
    ["TinyLlama-1.1B-Chat-v1.0", "zephyr"],
    ["gemma-2b-it", "gemma"],
    ["alpaca-7b-native", "alpaca"],
    ["koala-13B-HF", "koala"],
  ];
  for (const [name, expected] of cases) {
    assert.deepEqual(choice({ ...bare, name }), [expected, "name", `it is called ${JSON.stringify(name)}`]);
    assert.deepEqual(choice({ ...bare, aliases: ["x", name] })[0], expected);
  }
});

Deno.test("the vocabulary and the architecture count where they say more than the name", () => {
  const v0 = 'it is called "vicuna-13b" and its vocabulary of 32001 tokens is above 32000';
  const specialTokens = ["<s>", "<|im_start|>"];
  const cases: [model: Partial<TemplateModel>, expected: string[]][] = [
    [{ name: "vicuna-13b", vocabSize: 32001 }, ["vicuna-v0", "name", v0]],
    [{ name: "vicuna-13b", vocabSize: 32000 }, ["vicuna-v1.1", "name", 'it is called "vicuna-13b"']],
    [{ name: "vicuna-v1.5", vocabSize: 32001 }, ["vicuna-v1.1", "name", 'it is called "vicuna-v1.5"']],
    [{ specialTokens }, ["chatml", "name", "its vocabulary has <|im_start|>"]],
    [{ name: "TinyLlama-1.1B-Chat-v0.3", specialTokens }, ["chatml", "name", "its vocabulary has <|im_start|>"]],
    [{ architecture: "gemma2" }, ["gemma", "name", "its architecture is gemma2"]],
  ];
  for (const [model, expected] of cases) assert.deepEqual(choice({ ...bare, ...model }), expected);
});

Deno.test("says what the choices are", () => {
  for (
    const name of ["base", "Llama-2-7b-hf", "Meta-Llama-3-8B", "Mistral-7B-v0.1", "chinese-alpaca-2-7b", "gemma-2b"]
  ) {
    assert.throws(() => selectTemplate({ ...bare, name, architecture: "llama", vocabSize: 128_256 }), {
      code: "no_template",
      message: `choosing a chat template: ${name} has none of its own, and its name tells none; ` +
        `name one of ${NAMES.join(", ")}, or a file with Jinja`,
    });
  }
  assert.throws(() => selectTemplate(bare, "model"), { code: "no_template" });
  assert.throws(() => selectTemplate(own, "chatgpt"), {
    code: "unknown_template",
    message: `choosing a chat template: expected one of model, ${NAMES.join(", ")}, got chatgpt`,
  });
});

Deno.test("refuses a model whose template cannot be read", () => {
  assert.throws(() => selectTemplate({ ...bare, chatTemplate: "{% if %}" }), { code: "invalid_template" });
});

Deno.test("shows a sample of two turns", () => {
  const { template } = selectTemplate(bare, "koala");
  const sample = "BEGINNING OF CONVERSATION: USER: Hello! GPT: Hi!</s>USER: How are you? GPT:";
  assert.equal(samplePrompt(template), sample);
});
