import assert from "node:assert/strict";
import { selectTemplate, TEMPLATE_NAMES } from "./select.ts";

const bare = { name: "base", addsBos: true };
const own = { ...bare, name: "Vicuna tuned", chatTemplate: "{{ messages[0]['content'] }}" };

Deno.test("lists its names", () => assert.deepEqual(TEMPLATE_NAMES, ["model", "vicuna-v1.1"]));

Deno.test("takes an explicit name first", () => {
  assert.equal(selectTemplate(own, "vicuna-v1.1").name, "vicuna-v1.1");
  assert.equal(selectTemplate(bare, "vicuna-v1.1").name, "vicuna-v1.1");
  assert.equal(selectTemplate(own, "model").name, "model");
});

Deno.test("takes the model's own template before its name", () => assert.equal(selectTemplate(own).name, "model"));

Deno.test("takes Vicuna's for models of that name", () => {
  for (const name of ["vicuna-7b-v1.5", "LMSys Vicuna"]) {
    assert.equal(selectTemplate({ ...bare, name }).name, "vicuna-v1.1");
  }
});

Deno.test("says what the choices are", () => {
  assert.throws(() => selectTemplate(bare), {
    code: "no_template",
    message: "choosing a chat template: base has none of its own; name one of vicuna-v1.1",
  });
  assert.throws(() => selectTemplate(bare, "model"), { code: "no_template" });
  assert.throws(() => selectTemplate(own, "alpaca"), {
    code: "unknown_template",
    message: "choosing a chat template: expected one of model, vicuna-v1.1, got alpaca",
  });
});

Deno.test("refuses a model whose template cannot be read", () => {
  assert.throws(() => selectTemplate({ ...bare, chatTemplate: "{% if %}" }), { code: "invalid_template" });
});
