/**
 * The built-in prompt formats. Data only: `turns.ts` writes them all.
 *
 * The begin token is never part of one, as the tokenizer puts it in front; `</s>`, `<|eot_id|>` and their like are, and
 * become special tokens where the vocabulary has them.
 *
 * @module
 */

import type { TurnFormat } from "./turns.ts";

/** `turns.ts` says what the fields mean; each format is shown with what it writes for two turns. */
export const FORMATS = [
  {
    // SYSTEM USER: a ASSISTANT: b</s>USER: c ASSISTANT:
    // Byte for byte FastChat's `vicuna_v1.1`: no newline anywhere, nothing after the last colon.
    name: "vicuna-v1.1",
    system: {
      text:
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.",
      before: "",
      after: " ",
      place: "front",
    },
    user: { before: "USER: ", after: " " },
    assistant: { before: "ASSISTANT:", gap: " ", after: "</s>" },
    trim: "replies",
    order: "alternate",
    stop: [],
  },
  {
    // SYSTEM\n### Human: a\n### Assistant: b\n### Human: c\n### Assistant:
    // FastChat's `zero_shot`, the form it has had since 0.2.5. Earlier ones ran the turns together (`###Human: a###`),
    // although the weights were trained on lines that begin with `### `, as here. The default `one_shot`, which puts a
    // conversation about a birthday party in front, is left out on purpose.
    name: "vicuna-v0",
    system: {
      text:
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.",
      before: "",
      after: "\n",
      place: "front",
    },
    user: { before: "### Human: ", after: "\n" },
    assistant: { before: "### Assistant:", gap: " ", after: "\n" },
    trim: "replies",
    order: "alternate",
    stop: ["###"],
  },
  {
    // [INST] <<SYS>>\nSYSTEM\n<</SYS>>\n\na [/INST] b </s><s>[INST] c [/INST]
    name: "llama-2",
    system: { text: "", before: "<<SYS>>\n", after: "\n<</SYS>>\n\n", place: "first user turn" },
    user: { before: "[INST] ", after: " " },
    assistant: { before: "[/INST]", gap: " ", after: " </s><s>" },
    trim: "all",
    order: "alternate",
    stop: [],
  },
  {
    // <|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>…
    // Of Llama 3, 3.1 and later; without the dates and tools that the template inside those models may add.
    name: "llama-3",
    system: {
      text: "",
      before: "<|start_header_id|>system<|end_header_id|>\n\n",
      after: "<|eot_id|>",
      place: "front",
    },
    user: { before: "<|start_header_id|>user<|end_header_id|>\n\n", after: "<|eot_id|>" },
    assistant: { before: "<|start_header_id|>assistant<|end_header_id|>\n\n", gap: "", after: "<|eot_id|>" },
    trim: "all",
    order: "any",
    stop: ["<|eot_id|>"],
  },
  {
    // <|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n…
    name: "chatml",
    system: { text: "", before: "<|im_start|>system\n", after: "<|im_end|>\n", place: "front" },
    user: { before: "<|im_start|>user\n", after: "<|im_end|>\n" },
    assistant: { before: "<|im_start|>assistant\n", gap: "", after: "<|im_end|>\n" },
    trim: "none",
    order: "any",
    stop: ["<|im_end|>"],
  },
  {
    // [INST] SYSTEM\n\na [/INST] b</s>[INST] c [/INST]
    // FastChat's spaces; Mistral's own templates differ in them from version to version. The system text has no place
    // of its own and stands before the first message, two line breaks apart as Mistral writes it (FastChat: one). Some
    // versions move it to the last message; here it stays, so that a longer conversation begins like the shorter one.
    name: "mistral",
    system: { text: "", before: "", after: "\n\n", place: "first user turn" },
    user: { before: "[INST] ", after: " " },
    assistant: { before: "[/INST]", gap: " ", after: "</s>" },
    trim: "replies",
    order: "alternate",
    stop: [],
  },
  {
    // SYSTEM\n\n### Instruction: a\n\n### Response: b</s>### Instruction: c\n\n### Response:
    // FastChat's; Stanford's, which knows one turn only, has a line break after the first colon.
    name: "alpaca",
    system: {
      text: "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
      before: "",
      after: "\n\n",
      place: "front",
    },
    user: { before: "### Instruction: ", after: "\n\n" },
    assistant: { before: "### Response:", gap: " ", after: "</s>" },
    trim: "replies",
    order: "alternate",
    stop: [],
  },
  {
    // BEGINNING OF CONVERSATION: USER: a GPT: b</s>USER: c GPT:
    name: "koala",
    system: { text: "BEGINNING OF CONVERSATION:", before: "", after: " ", place: "front" },
    user: { before: "USER: ", after: " " },
    assistant: { before: "GPT:", gap: " ", after: "</s>" },
    trim: "replies",
    order: "alternate",
    stop: [],
  },
  {
    // <|user|>\na</s>\n<|assistant|>\nb</s>\n…
    // Without a system text there is no block for it, as in the model's own template (FastChat writes an empty one).
    name: "zephyr",
    system: { text: "", before: "<|system|>\n", after: "</s>\n", place: "front" },
    user: { before: "<|user|>\n", after: "</s>\n" },
    assistant: { before: "<|assistant|>\n", gap: "", after: "</s>\n" },
    trim: "none",
    order: "any",
    // FastChat adds the text `</s>`, which would end a reply at HTML that is struck through; the end token is enough.
    stop: [],
  },
  {
    // <start_of_turn>user\nSYSTEM\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n…
    // The first versions refuse a system text, later ones put it before the first message, as is done here.
    name: "gemma",
    system: { text: "", before: "", after: "\n\n", place: "first user turn" },
    user: { before: "<start_of_turn>user\n", after: "<end_of_turn>\n" },
    assistant: { before: "<start_of_turn>model\n", gap: "", after: "<end_of_turn>\n" },
    trim: "all",
    order: "alternate",
    stop: ["<end_of_turn>"],
  },
  {
    // abc: the messages and nothing else, for base models.
    name: "raw",
    system: { text: "", before: "", after: "", place: "front" },
    user: { before: "", after: "" },
    assistant: { before: "", gap: "", after: "" },
    trim: "none",
    order: "any",
    stop: [],
  },
] as const satisfies readonly TurnFormat[];

/** The name of a built-in format. */
export type FormatName = (typeof FORMATS)[number]["name"];
