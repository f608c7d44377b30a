/**
 * A reply as what it is made of: what the model says, what it thinks before it speaks, and the functions that it calls.
 * Text comes in pieces of any length and leaves as soon as it is clear what it is; how it was cut changes nothing.
 *
 * Absent here: prompts, engines, whether a call is allowed.
 *
 * @module
 */

import type { ReasoningPart, ReplyPart, SaidPart } from "./reply_part.ts";
import { ThoughtSplitter } from "./thoughts.ts";
import { ToolParser } from "./tool_parser.ts";

/** Options of {@linkcode ReplyParser}. */
export interface ReplyOptions {
  /** Names of the functions that may be called; without them no call is looked for. */
  tools?: readonly string[];
  /** A new id of a call. */
  newCallId: () => string;
  /** Whether thoughts are looked for; `open` when the prompt has begun them already. */
  thoughts?: boolean | "open";
}

/** Takes a reply apart. */
export class ReplyParser {
  readonly #thoughts: ThoughtSplitter | undefined;
  readonly #tools: ToolParser | undefined;

  /** A parser of one reply. */
  constructor({ tools = [], newCallId, thoughts = false }: ReplyOptions) {
    this.#thoughts = thoughts ? new ThoughtSplitter(thoughts === "open") : undefined;
    this.#tools = tools.length > 0 ? new ToolParser(tools, newCallId) : undefined;
  }

  /** Calls that have ended. */
  get calls(): number {
    return this.#tools?.calls ?? 0;
  }

  /** The parts that one more piece of text makes clear. */
  push(text: string): ReplyPart[] {
    return this.#called(this.#thoughts?.push(text) ?? [{ type: "text", text }]);
  }

  /** The parts that only the end makes clear. */
  end(): ReplyPart[] {
    return [...this.#called(this.#thoughts?.end() ?? []), ...this.#tools?.end() ?? []];
  }

  #called(parts: readonly (SaidPart | ReasoningPart)[]): ReplyPart[] {
    const tools = this.#tools;
    if (tools === undefined) return [...parts];
    return parts.flatMap((part) => part.type === "text" ? tools.push(part.text) : [part]);
  }
}
