/**
 * The prompt format of Vicuna v1.1, v1.3 and v1.5, byte for byte as FastChat's `vicuna_v1.1` writes it. Data only.
 *
 * @module
 */

import type { TurnFormat } from "../turns.ts";

/**
 * `SYSTEM USER: hi ASSISTANT: hello</s>USER: more ASSISTANT:`: no newline anywhere, nothing after the last colon, and
 * the begin token left to the tokenizer. There is no stop text: a reply ends with the model's own `</s>`.
 */
export const VICUNA_V1_1: TurnFormat = {
  name: "vicuna-v1.1",
  system:
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.",
  systemEnd: " ",
  user: "USER: ",
  userEnd: " ",
  assistant: "ASSISTANT:",
  assistantGap: " ",
  assistantEnd: "</s>",
  stop: [],
};
