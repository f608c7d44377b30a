/**
 * What a chat template is: messages in, prompt parts and stop texts out.
 *
 * @module
 */

import type { ChatMessage, Tool } from "./message.ts";
import type { ToolNotation } from "./notation.ts";

/** What rendering needs to know of the model. */
export interface RenderOptions {
  /** Texts that the tokenizer turns into control tokens; where a message has them, they stay text. */
  specialTokens: readonly string[];
  /** Functions that the model is told of. */
  tools?: readonly Tool[];
  /** Further variables of a Jinja template, such as `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>>;
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
  /** How the model writes calls, where the template itself shows tools and calls; `plain_tools.ts` does it for the others. */
  readonly tools?: ToolNotation;
  /** Whether the model thinks before it speaks. */
  readonly thinks?: boolean;
  /** The system text of conversations that bring none. */
  readonly system?: string;
  /**
   * Render `messages`.
   *
   * @throws {ChatTemplateError} when the messages cannot be rendered.
   */
  render(messages: readonly ChatMessage[], options: RenderOptions): RenderedPrompt;
}

/** One of several templates of a model. */
export interface NamedTemplate {
  name: string;
  /** Jinja source. */
  template: string;
}

/** What templates read of a model; an engine's `ModelInfo` is one. */
export interface TemplateModel {
  name: string;
  /** Other names of the model, such as its file's. */
  aliases?: readonly string[];
  architecture?: string;
  vocabSize?: number;
  specialTokens?: readonly string[];
  /** Jinja source, or several of them by name. */
  chatTemplate?: string | readonly NamedTemplate[];
  bosToken?: string;
  eosToken?: string;
  /** Whether the engine puts the begin-of-sequence token in front by itself. */
  addsBos: boolean;
}

/** A template of the user's own: Jinja, or a JSON object that has it as `chat_template`. */
export interface TemplateFile {
  /** Name of the file. */
  name: string;
  text: string;
}

/** A template that is asked for: the name of one, or a file. */
export type WantedTemplate = string | TemplateFile;

/** A template and why it is this one. */
export interface ChosenTemplate {
  template: ChatTemplate;
  /** Who decided: whoever started the program, the model by a template of its own, or the model's name and vocabulary. */
  source: "flag" | "model" | "name";
  /** Half a sentence, such as `it is called "vicuna-7b-v1.5"`. */
  reason: string;
}
