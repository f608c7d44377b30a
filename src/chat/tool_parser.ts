/**
 * Calls of functions inside the text of a reply, in the notations that models use:
 *
 *     <tool_call>{"name": "f", "arguments": {...}}</tool_call>      Hermes, Qwen, and ours for models without tools
 *     <|python_tag|>{"name": "f", "parameters": {...}}              Llama 3.1, mostly without the tag
 *     [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]          Mistral
 *
 * One parser takes them all, since models mix them, and since a marker that is a control token of the vocabulary is no
 * text: an object or list at the beginning of a reply or right after a call may be a call too. It is one only when the
 * function is among those that were offered; everything else stays text.
 *
 * @module
 */

import { CallScanner, type CallSink } from "./call_scanner.ts";
import { clearLength, firstMarker, partialMarker } from "./held.ts";
import type { ReplyPart } from "./reply_part.ts";

/** What says that a call follows. */
const OPENERS = ["<tool_call>", "<|python_tag|>", "[TOOL_CALLS]"];
const CLOSER = "</tool_call>";
/** What may stand between calls, and after the last one. */
const BETWEEN = /^[\s,;]*\]?\s*(?:<\/tool_call>)?[\s,;]*/;
/** What is dropped where text follows a call. */
const CLOSED = /^\s*\]?\s*(?:<\/tool_call>)?\s*/;

/** Finds calls in a reply. */
export class ToolParser {
  readonly #tools: readonly string[];
  readonly #sink: CallSink;
  #parts: ReplyPart[] = [];
  /** Before anything was said, in text, in an object that may be a call, and after a call. */
  #state: "start" | "text" | "call" | "after" = "start";
  /** Text of which it is not clear yet what it is. */
  #held = "";
  #scanner: CallScanner | undefined;
  #begun = 0;
  /** Calls that have ended. */
  calls = 0;

  /** A parser of one reply that may call `tools`. */
  constructor(tools: readonly string[], newCallId: () => string) {
    this.#tools = tools;
    this.#sink = {
      called: (name) => this.#parts.push({ type: "tool_call", index: this.#begun++, id: newCallId(), name }),
      argued: (text) => this.#parts.push({ type: "tool_arguments", index: this.#begun - 1, text }),
    };
  }

  /** The parts that one more piece of text makes clear. */
  push(text: string): ReplyPart[] {
    for (let rest = text; rest !== "";) rest = this.#step(rest);
    return this.#taken();
  }

  /** The parts that only the end makes clear: what looked like a call and is none was text. */
  end(): ReplyPart[] {
    const said = this.#state === "after" ? this.#held.replace(BETWEEN, "") : this.#held;
    if (this.#state !== "after" || !CLOSER.startsWith(said)) this.#say(said);
    this.#held = "";
    return this.#taken();
  }

  #taken(): ReplyPart[] {
    const parts = this.#parts;
    this.#parts = [];
    return parts;
  }

  /** Reads some of `text`; gives what is still to be read. */
  #step(text: string): string {
    if (this.#state === "call") return this.#call(text);
    const all = this.#held + text;
    this.#held = "";
    if (this.#state === "start") return this.#open(all, all.trimStart());
    if (this.#state === "after") return this.#open(all, all.replace(BETWEEN, ""));
    return this.#text(all);
  }

  /** Where a call may begin without a marker: `next` is what follows spaces and separators in `all`. */
  #open(all: string, next: string): string {
    const text = this.#state === "after" ? all.replace(CLOSED, "") : all;
    const opener = OPENERS.find((opener) => next.startsWith(opener));
    if (opener !== undefined || /^\{|^\[(?!T|$)/.test(next)) return this.#try(text, next, opener);
    if (partialMarker(next, [...OPENERS, CLOSER]) === next.length) return this.#hold(all);
    this.#state = "text";
    return text;
  }

  #text(all: string): string {
    const found = firstMarker(all, OPENERS);
    const clear = found ? all.slice(0, found.at).trimEnd().length : clearLength(all, OPENERS);
    this.#say(all.slice(0, clear));
    const rest = all.slice(clear);
    return found ? this.#try(rest, all.slice(found.at), found.marker) : this.#hold(rest);
  }

  #hold(text: string): "" {
    this.#held = text;
    return "";
  }

  /** Goes on inside what may be a call, at `next` in `text`: if it is none, what stands before it is text again. */
  #try(text: string, next: string, opener = ""): string {
    this.#state = "call";
    this.#scanner = new CallScanner(this.#tools, this.#sink);
    const rest = next.slice(opener.length);
    this.#held = text.slice(0, text.length - rest.length);
    return rest;
  }

  #call(text: string): string {
    const { length, state } = this.#scanner!.push(text);
    this.#held = this.#scanner!.announced ? "" : this.#held + text.slice(0, length);
    if (state === "over") this.#over();
    if (state === "broken") this.#broken();
    return text.slice(length);
  }

  #over(): void {
    this.calls++;
    this.#state = "after";
  }

  #broken(): void {
    if (this.#scanner!.announced) this.calls++;
    this.#say(this.#held);
    this.#held = "";
    this.#state = "text";
  }

  #say(text: string): void {
    if (text !== "") this.#parts.push({ type: "text", text });
  }
}
