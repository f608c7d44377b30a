/**
 * What a model thinks before it speaks, `<think>…</think>` at the beginning of its reply, apart from what it says. The
 * spaces around both are nobody's.
 *
 * @module
 */

import { clearLength, firstMarker, partialMarker } from "./held.ts";
import type { ReasoningPart, SaidPart } from "./reply_part.ts";

/** What begins thoughts. */
export const THOUGHTS_BEGIN = "<think>";
/** What ends them. */
export const THOUGHTS_END = "</think>";

/** Splits a reply. */
export class ThoughtSplitter {
  /** Before anything was said, in thoughts, between them and what is said, and after. */
  #state: "start" | "thinking" | "between" | "saying";
  /** Text that may be spaces at an end, or a part of a marker. */
  #held = "";
  #thought = false;

  /** A splitter of one reply; `open` when the prompt has begun the thoughts. */
  constructor(open: boolean) {
    this.#state = open ? "thinking" : "start";
  }

  /** The parts that one more piece of text makes clear. */
  push(text: string): (SaidPart | ReasoningPart)[] {
    const parts: (SaidPart | ReasoningPart)[] = [];
    this.#held += text;
    if (this.#state === "start") this.#start();
    if (this.#state === "thinking") parts.push(...this.#think());
    if (this.#state === "between") this.#between();
    if (this.#state === "saying") parts.push(...this.#say());
    return parts;
  }

  /** The parts that only the end makes clear. */
  end(): (SaidPart | ReasoningPart)[] {
    if (this.#state === "between") return [];
    return this.#state === "thinking" ? this.#reasoning(this.#held.trimEnd()) : this.#say();
  }

  #start(): void {
    const text = this.#held.trimStart();
    if (text.startsWith(THOUGHTS_BEGIN)) {
      this.#state = "thinking";
      this.#held = text.slice(THOUGHTS_BEGIN.length);
    } else if (partialMarker(text, [THOUGHTS_BEGIN]) < text.length) this.#state = "saying";
  }

  #think(): ReasoningPart[] {
    const end = firstMarker(this.#held, [THOUGHTS_END]);
    const clear = end ? this.#held.slice(0, end.at).trimEnd().length : clearLength(this.#held, [THOUGHTS_END]);
    const parts = this.#reasoning(this.#held.slice(0, clear));
    this.#held = this.#held.slice(end ? end.at + THOUGHTS_END.length : clear);
    if (end) this.#state = "between";
    return parts;
  }

  #reasoning(text: string): ReasoningPart[] {
    const clear = this.#thought ? text : text.trimStart();
    if (clear === "") return [];
    this.#thought = true;
    return [{ type: "reasoning", text: clear }];
  }

  #between(): void {
    this.#held = this.#held.trimStart();
    if (this.#held !== "") this.#state = "saying";
  }

  #say(): SaidPart[] {
    const text = this.#held;
    this.#held = "";
    return text === "" ? [] : [{ type: "text", text }];
  }
}
