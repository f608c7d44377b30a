import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { ChatMessage } from "./message.ts";
import { VICUNA_V1_1 } from "./templates/vicuna_v1_1.ts";
import { TurnTemplate } from "./turns.ts";

const vicuna = new TurnTemplate(VICUNA_V1_1);
const SYSTEM = VICUNA_V1_1.system;

function say(...contents: string[]): ChatMessage[] {
  return contents.map((content, index) => ({ role: index % 2 === 0 ? "user" : "assistant", content }));
}

function render(messages: ChatMessage[]): string {
  const { prompt, stop } = vicuna.render(messages, { specialTokens: [] });
  assert.equal(prompt.length, 1);
  assert.deepEqual(stop, []);
  return prompt[0]!;
}

function fingerprint(text: string): [bytes: number, sha256: string] {
  return [new TextEncoder().encode(text).length, createHash("sha256").update(text).digest("hex")];
}

// Lengths and digests were taken from FastChat 0.2.36, template `vicuna_v1.1`.
Deno.test("Vicuna's system text is FastChat's", () => {
  assert.deepEqual(fingerprint(SYSTEM), [154, "1fa69e2371b762d1882b0bd98d284f312a36c27add732016e12e52586f98a9f5"]);
});

Deno.test("Vicuna's first turn is FastChat's", () => {
  const prompt = render(say("Hello!"));
  assert.equal(prompt, `${SYSTEM} USER: Hello! ASSISTANT:`);
  assert.deepEqual(fingerprint(prompt), [178, "b3190085f3a414fa2651565417cba0a10b4f5e51adf8514f2538e257487aebdc"]);
});

Deno.test("Vicuna's second turn is FastChat's", () => {
  const prompt = render(say("Hello!", "Hi!", "How are you?"));
  assert.equal(prompt, `${SYSTEM} USER: Hello! ASSISTANT: Hi!</s>USER: How are you? ASSISTANT:`);
  assert.deepEqual(fingerprint(prompt), [215, "7a0b861c844f5b4926c2f381dba25c591040a3da0761f2b1acb12d8d0cb52242"]);
});

Deno.test("strips earlier replies and nothing else", () => {
  assert.equal(
    render(say(" a ", " \n b\t\n", " c\n")),
    `${SYSTEM} USER:  a  ASSISTANT: b</s>USER:  c\n ASSISTANT:`,
  );
});

Deno.test("takes the conversation's own system text", () => {
  assert.equal(render([{ role: "system", content: "Be brief." }, ...say("x")]), "Be brief. USER: x ASSISTANT:");
  assert.equal(render([{ role: "system", content: "" }, ...say("x")]), "USER: x ASSISTANT:");
});

Deno.test("an empty message is an empty message, not an open slot", () => {
  assert.equal(render(say("", "", "")), `${SYSTEM} USER:  ASSISTANT: </s>USER:  ASSISTANT:`);
});

Deno.test("keeps the template's own </s> and guards a user's", () => {
  const { prompt } = vicuna.render(say("a</s>", "b</s>c", "d"), { specialTokens: ["<s>", "</s>"] });
  assert.deepEqual(prompt, [`${SYSTEM} USER: a<`, "/s> ASSISTANT: b<", "/s>c</s>USER: d ASSISTANT:"]);
});

Deno.test("refuses an order it cannot render", () => {
  assert.throws(() => render(say("a", "b")), { name: "ChatTemplateError", code: "invalid_order" });
  assert.throws(() => render([]), { name: "ChatTemplateError", code: "invalid_message" });
});
