/**
 * Templates of fixed turns: what stands before and after each role's text is data, rendering is this one function.
 *
 * FastChat picks separators by a message's place; here it is the role, and an order that a model was never trained on
 * is refused instead of rendered.
 *
 * @module
 */

import { guardTexts } from "./guard.ts";
import { type ChatMessage, ChatTemplateError, checkMessages, checkTurns } from "./message.ts";
import type { ChatTemplate, RenderedPrompt, RenderOptions } from "./template.ts";

/** What stands before and after a text. */
interface Frame {
  before: string;
  after: string;
}

/** The constant texts of a template. */
export interface TurnFormat {
  name: string;
  /** `text` is that of conversations that bring none. An empty one is left out with its frame. */
  system: Frame & {
    text: string;
    /** Before all turns, or between the first user turn's `before` and the message. */
    place: "front" | "first user turn";
  };
  /** Around what the user says. */
  user: Frame;
  /** Around a reply; `before` ends the prompt, and an earlier reply stands behind it and `gap`. */
  assistant: Frame & { gap: string };
  /** Which texts lose the whitespace around them: those that had none in training. */
  trim: "replies" | "all" | "none";
  /**
   * `alternate`: system first if at all, then user and assistant in turn, the last one from the user. `any`: each turn
   * stands for itself.
   */
  order: "alternate" | "any";
  /** Texts that end a reply, besides the model's end tokens. */
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

  get system(): string {
    return this.#format.system.text;
  }

  render(messages: readonly ChatMessage[], { specialTokens }: RenderOptions): RenderedPrompt {
    checkMessages(messages);
    if (this.#format.order === "alternate") checkTurns(messages);
    const guarded = guardTexts(messages.map(({ content }) => content), specialTokens);
    const written = messages.map((message, index) => ({ ...message, content: guarded.value[index]! }));
    return { prompt: guarded.split(write(this.#format, written)), stop: [...this.#format.stop] };
  }
}

function write(format: TurnFormat, messages: readonly ChatMessage[]): string {
  const own = messages[0]?.role === "system" ? messages[0].content : undefined;
  const system = systemBlock(format, own ?? format.system.text);
  const inFront = format.system.place === "front";
  let text = inFront ? system : "";
  messages.slice(own === undefined ? 0 : 1).forEach((message, index) => {
    text += turn(format, message, inFront || index > 0 ? "" : system);
  });
  return text + format.assistant.before;
}

function systemBlock({ system: { before, after, place }, trim }: TurnFormat, content: string): string {
  const text = trim === "all" && place === "front" ? content.trim() : content;
  return text === "" ? "" : before + text + after;
}

/** A turn, and in it what stands before a user's message. */
function turn(format: TurnFormat, { role, content }: ChatMessage, opening: string): string {
  const { user, assistant, trim } = format;
  switch (role) {
    case "system":
      return systemBlock(format, content);
    case "user":
      return user.before + (trim === "all" ? (opening + content).trim() : opening + content) + user.after;
    case "assistant":
      return assistant.before + assistant.gap + (trim === "none" ? content : content.trim()) + assistant.after;
    case "tool":
      throw new ChatTemplateError("invalid_message", `rendering messages: template ${format.name} has no tools`);
  }
}
