/**
 * What a chat template is: messages in, prompt parts and stop texts out.
 *
 * @module
 */

import type { ChatMessage } from "./message.ts";

/** What rendering needs to know of the model. */
export interface RenderOptions {
  /** Texts that the tokenizer turns into control tokens; where a message has them, they stay text. */
  specialTokens: readonly string[];
}

/** A rendered conversation. */
export interface RenderedPrompt {
  /** The prompt in parts; special tokens are recognised inside a part and never across parts. */
  prompt: string[];
  /** Texts that end the reply, besides the model's own end tokens. */
  stop: string[];
}

/** Turns messages into a prompt that asks for the assistant's next message. */
export interface ChatTemplate {
  /** Name for logs and for choosing it. */
  readonly name: string;
  /**
   * Render `messages`.
   *
   * @throws {ChatTemplateError} when the messages cannot be rendered.
   */
  render(messages: readonly ChatMessage[], options: RenderOptions): RenderedPrompt;
}

/** What templates read of a model; an engine's `ModelInfo` is one. */
export interface TemplateModel {
  name: string;
  /** Jinja source. */
  chatTemplate?: string;
  bosToken?: string;
  eosToken?: string;
  /** Whether the engine puts the begin-of-sequence token in front by itself. */
  addsBos: boolean;
}
