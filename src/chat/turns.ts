/**
 * Templates of fixed turns: what stands before and after each role's text is data, rendering is this one function.
 *
 * FastChat picks separators by a message's place; here it is the role, and an order that does not alternate is refused
 * instead of rendered into something the model was never trained on.
 *
 * @module
 */

import { guardMessages } from "./guard.ts";
import { type ChatMessage, checkMessages, checkTurns } from "./message.ts";
import type { ChatTemplate, RenderedPrompt, RenderOptions } from "./template.ts";

/** The constant texts of a template. */
export interface TurnFormat {
  name: string;
  /** The system text of conversations that bring none. */
  system: string;
  /** After the system text; left out with it when a conversation brings an empty one. */
  systemEnd: string;
  /** Before and after what the user says. */
  user: string;
  userEnd: string;
  /** Before a reply: it ends the prompt. */
  assistant: string;
  /** Between `assistant` and an earlier reply, whose outer whitespace is dropped, and after that reply. */
  assistantGap: string;
  assistantEnd: string;
  /** Texts that end a reply. */
  stop: readonly string[];
}

/** The template of a format. */
export class TurnTemplate implements ChatTemplate {
  readonly #format: TurnFormat;

  /** A template that writes `format`. */
  constructor(format: TurnFormat) {
    this.#format = format;
  }

  get name(): string {
    return this.#format.name;
  }

  render(messages: readonly ChatMessage[], { specialTokens }: RenderOptions): RenderedPrompt {
    checkMessages(messages);
    checkTurns(messages);
    const guarded = guardMessages(messages, specialTokens);
    return { prompt: guarded.split(write(this.#format, guarded.messages)), stop: [...this.#format.stop] };
  }
}

function write(format: TurnFormat, messages: readonly ChatMessage[]): string {
  const { user, userEnd, assistant, assistantGap, assistantEnd } = format;
  const own = messages[0]?.role === "system" ? messages[0].content : undefined;
  const system = own ?? format.system;
  let text = system === "" ? "" : system + format.systemEnd;
  for (const { role, content } of messages.slice(own === undefined ? 0 : 1)) {
    // Training saw replies without outer whitespace.
    text += role === "user" ? user + content + userEnd : assistant + assistantGap + content.trim() + assistantEnd;
  }
  return text + assistant;
}
