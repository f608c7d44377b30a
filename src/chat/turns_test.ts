import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { ChatMessage } from "./message.ts";
import { type FormatName, FORMATS } from "./templates.ts";
import { type TurnFormat, TurnTemplate } from "./turns.ts";

function format(name: FormatName): TurnFormat {
  return FORMATS.find((format) => format.name === name)!;
}

const SYSTEM = format("vicuna-v1.1").system.text;

function say(...contents: string[]): ChatMessage[] {
  return contents.map((content, index) => ({ role: index % 2 === 0 ? "user" : "assistant", content }));
}

const system = (content: string): ChatMessage => ({ role: "system", content });

function render(messages: ChatMessage[], name: FormatName = "vicuna-v1.1"): string {
  const { prompt } = new TurnTemplate(format(name)).render(messages, { specialTokens: [] });
  assert.equal(prompt.length, 1);
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
  assert.equal(render([system("Be brief."), ...say("x")]), "Be brief. USER: x ASSISTANT:");
});

Deno.test("leaves an empty system text out, with what frames it", () => {
  const expected: Record<FormatName, string> = {
    "vicuna-v1.1": "USER: x ASSISTANT:",
    "vicuna-v0": "### Human: x\n### Assistant:",
    "llama-2": "[INST] x [/INST]",
    "llama-3":
      "<|start_header_id|>user<|end_header_id|>\n\nx<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "chatml": "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n",
    "mistral": "[INST] x [/INST]",
    "alpaca": "### Instruction: x\n\n### Response:",
    "koala": "USER: x GPT:",
    "zephyr": "<|user|>\nx</s>\n<|assistant|>\n",
    "gemma": "<start_of_turn>user\nx<end_of_turn>\n<start_of_turn>model\n",
    "raw": "x",
  };
  for (const { name } of FORMATS) assert.equal(render([system(""), ...say("x")], name), expected[name]);
});

Deno.test("formats without a place for a system text put it before the first message, where it stays", () => {
  for (const name of ["mistral", "gemma"] as const) {
    const turns = ["a", "b", "c"];
    assert.equal(render([system("S."), ...say("a")], name), render(say("S.\n\na"), name));
    assert.equal(render([system("S."), ...say(...turns)], name), render(say("S.\n\na", "b", "c"), name));
  }
});

Deno.test("an empty message is an empty message, not an open slot", () => {
  assert.equal(render(say("", "", "")), `${SYSTEM} USER:  ASSISTANT: </s>USER:  ASSISTANT:`);
});

Deno.test("keeps the template's own </s> and guards a user's", () => {
  const vicuna = new TurnTemplate(format("vicuna-v1.1"));
  const { prompt } = vicuna.render(say("a</s>", "b</s>c", "d"), { specialTokens: ["<s>", "</s>"] });
  assert.deepEqual(prompt, [`${SYSTEM} USER: a<`, "/s> ASSISTANT: b<", "/s>c</s>USER: d ASSISTANT:"]);
});

const SPECIALS = [
  ...["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
  ...["<|system|>", "<|user|>", "<|assistant|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"],
];

/** How many special tokens a tokenizer finds, which looks inside each part. */
function specials(messages: ChatMessage[], template: TurnTemplate): number {
  const { prompt } = template.render(messages, { specialTokens: SPECIALS });
  return prompt.reduce((sum, part) => sum + SPECIALS.reduce((n, token) => n + part.split(token).length - 1, 0), 0);
}

Deno.test("nothing that is typed becomes a special token, nor does it together with what the template writes", () => {
  for (const each of FORMATS) {
    const template = new TurnTemplate(each);
    const own = specials([system("x"), ...say("x", "x", "x")], template);
    for (const token of SPECIALS) {
      for (let cut = 0; cut <= token.length; cut++) {
        // A whole token, its beginning where the template goes on, and its end where the template stopped.
        for (const text of [token, `x${token.slice(0, cut)}`, `${token.slice(cut)}x`]) {
          const found = specials([system(text), ...say(text, text, text)], template);
          assert.equal(found, own, `${each.name} with ${JSON.stringify(text)}`);
        }
      }
    }
  }
});

Deno.test("stop texts are those of the format", () => {
  const stops = FORMATS.map((each) => {
    return [each.name, new TurnTemplate(each).render(say("x"), { specialTokens: [] }).stop];
  });
  assert.deepEqual(Object.fromEntries(stops.filter(([, stop]) => stop!.length > 0)), {
    "vicuna-v0": ["###"],
    "llama-3": ["<|eot_id|>"],
    "chatml": ["<|im_end|>"],
    "gemma": ["<end_of_turn>"],
  });
});

Deno.test("refuses an order that a format does not know", () => {
  const [user, assistant] = [say("a")[0]!, say("", "b")[1]!];
  for (const messages of [[user, assistant], [user, user], [assistant, user], [user, system("s")], [system("s")]]) {
    for (const { name, order } of FORMATS) {
      const attempt = () => render(messages, name);
      if (order === "any") attempt();
      else assert.throws(attempt, { name: "ChatTemplateError", code: "invalid_order" }, name);
    }
  }
  assert.throws(() => render([], "raw"), { name: "ChatTemplateError", code: "invalid_message" });
});

Deno.test("turns that stand for themselves come in any order", () => {
  assert.equal(
    render([...say("a"), system("s"), ...say("b", "c")], "chatml"),
    ["user\na", "system\ns", "user\nb", "assistant\nc"].map((turn) => `<|im_start|>${turn}<|im_end|>\n`).join("") +
      "<|im_start|>assistant\n",
  );
});
