/**
 * From the engine's events to those of a turn: text is taken apart into what is said, thoughts and calls, and the message
 * that they make is kept.
 *
 * @module
 */

import type { ChatMessage, ToolCall } from "../chat/message.ts";
import { ReplyParser } from "../chat/reply.ts";
import type { ReplyPart } from "../chat/reply_part.ts";
import type { DoneEvent, GenerateEvent, TextEvent } from "../engine/engine.ts";
import type { TurnEvent } from "./turn_event.ts";

/** Options of {@linkcode ReplyReader}. */
export interface ReplyReaderOptions {
  /** Names of the functions that may be called. */
  tools: readonly string[];
  /** Whether the reply is over after its first call. */
  oneCall: boolean;
  /** Whether thoughts are looked for; `open` when the prompt has begun them. */
  thoughts: boolean | "open";
  newCallId: () => string;
  /** Called when the reply is over before the engine says so. */
  onOver: () => void;
}

/** Reads one reply. */
export class ReplyReader {
  readonly #parser: ReplyParser | undefined;
  readonly #onOver: (() => void) | undefined;
  #over = false;
  #content = "";
  #reasoning = "";
  #completionTokens = 0;
  readonly #calls: { id: string; name: string; arguments: string }[] = [];

  /** A reader of one reply. */
  constructor({ tools, oneCall, thoughts, newCallId, onOver }: ReplyReaderOptions) {
    this.#parser = tools.length > 0 || thoughts ? new ReplyParser({ tools, thoughts, newCallId }) : undefined;
    this.#onOver = oneCall ? onOver : undefined;
  }

  /** The events of a turn that one of the engine's becomes. */
  read(event: GenerateEvent): TurnEvent[] {
    if (event.type === "started") return [event];
    const events = event.type === "text" ? this.#text(event) : this.#done(event);
    for (const event of events) this.#keep(event);
    return events;
  }

  /** The conversation with the reply; without it when nothing was said. */
  appendedTo(messages: readonly ChatMessage[]): readonly ChatMessage[] {
    const [content, reasoning, toolCalls] = [this.#content, this.#reasoning, this.#calls as readonly ToolCall[]];
    if (content.trim() === "" && reasoning === "" && toolCalls.length === 0) return messages;
    const message: ChatMessage = {
      role: "assistant",
      content,
      ...(reasoning === "" ? {} : { reasoning }),
      ...(toolCalls.length === 0 ? {} : { toolCalls }),
    };
    return [...messages, message];
  }

  #text(event: TextEvent): TurnEvent[] {
    this.#completionTokens = event.completionTokens;
    if (this.#over) return [];
    if (this.#parser === undefined) return [event];
    const { text, type: _, ...facts } = event;
    const events = this.#told(this.#parser.push(text));
    if (this.#onOver !== undefined && this.#parser.calls > 0) {
      this.#over = true;
      this.#onOver();
    }
    return withFacts(events, facts);
  }

  #done(event: DoneEvent): TurnEvent[] {
    if (this.#over) return [event.reason === "cancelled" ? { ...event, reason: "stop" } : event];
    return [...this.#told(this.#parser?.end() ?? []), event];
  }

  #told(parts: readonly ReplyPart[]): TurnEvent[] {
    const completionTokens = this.#completionTokens;
    return parts.map((part) => part.type === "text" ? { ...part, completionTokens } : part);
  }

  #keep(event: TurnEvent): void {
    if (event.type === "text") this.#content += event.text;
    if (event.type === "reasoning") this.#reasoning += event.text;
    if (event.type === "tool_call") this.#calls.push({ id: event.id, name: event.name, arguments: "" });
    if (event.type === "tool_arguments") this.#calls[event.index]!.arguments += event.text;
  }
}

/** Log probabilities go with the first text, or with an empty one where there is none. */
function withFacts(events: TurnEvent[], facts: Omit<TextEvent, "type" | "text">): TurnEvent[] {
  if (facts.logprobs === undefined && facts.promptLogprobs === undefined) return events;
  const at = events.findIndex(({ type }) => type === "text");
  if (at < 0) return [{ type: "text", text: "", ...facts }, ...events];
  return events.map((event, index) => index === at && event.type === "text" ? { ...event, ...facts } : event);
}
