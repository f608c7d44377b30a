/**
 * A model that answers on standard output: one turn of sessions/, shown as it is generated.
 *
 * @module
 */
import type { ChatMessage, ChatTemplate } from "../chat/mod.ts";
import type { DoneEvent, Engine } from "../engine/engine.ts";
import { runTurn } from "../sessions/turn.ts";
import { replyDefaults } from "./defaults.ts";
import type { Deps } from "./deps.ts";
import { CommandError } from "./errors.ts";
import type { FlagValues } from "./flags.ts";

/** The messages that a conversation begins with. */
export function opening({ system }: FlagValues): ChatMessage[] {
  return system === undefined ? [] : [{ role: "system", content: system }];
}

/** The parts of a `Speaker`. */
export interface SpeakerParts {
  engine: Engine;
  template: ChatTemplate;
  values: FlagValues;
  modelId: string;
}

/** A reply that has ended. */
export interface Reply {
  reason: DoneEvent["reason"];
  /** The conversation with the reply, if anything was said. */
  messages: readonly ChatMessage[];
}

/** Lets the model speak: a reply goes to standard output as it is generated. */
export class Speaker {
  readonly modelId: string;
  readonly engine: Engine;
  readonly #deps: Deps;
  readonly #template: ChatTemplate;
  readonly #values: FlagValues;

  /** A speaker with these parts. */
  constructor(deps: Deps, { engine, template, values, modelId }: SpeakerParts) {
    this.#deps = deps;
    this.engine = engine;
    this.#template = template;
    this.#values = values;
    this.modelId = modelId;
  }

  /** Generate and show the reply to `messages`. What was said before an abort counts like any other reply. */
  async reply(messages: readonly ChatMessage[], signal: AbortSignal): Promise<Reply> {
    const values = this.#values;
    const parts = { engine: this.engine, template: this.#template, defaults: replyDefaults(values) };
    // A terminal shows everything that the model writes.
    const turn = runTurn({ ...parts, messages, reasoning: false, signal });
    let [text, done]: [string, DoneEvent | undefined] = ["", undefined];
    try {
      for (;;) {
        const next = await turn.next();
        if (next.done) return { reason: this.#end(text, done), messages: next.value };
        if (next.value.type === "done") done = next.value;
        else if (next.value.type === "text") text += this.#piece(next.value.text);
      }
    } catch (error) {
      if (text !== "" && !values.json) this.#deps.terminal.out("\n");
      throw error;
    }
  }

  #piece(text: string): string {
    this.#show(this.#values.json ? { type: "text", text } : text);
    return text;
  }

  #end(text: string, done: DoneEvent | undefined): DoneEvent["reason"] {
    if (!done) throw new CommandError("generating a reply failed: it ended without saying why");
    const { reason, stop, usage, timings } = done;
    if (this.#values.json) {
      this.#show({
        type: "done",
        text,
        reason,
        stop,
        usage: { prompt_tokens: usage.promptTokens, completion_tokens: usage.completionTokens },
        timings: { queue_ms: timings.queueMs, prefill_ms: timings.prefillMs, decode_ms: timings.decodeMs },
        model: this.modelId,
      });
    } else if (!text.endsWith("\n")) this.#show("\n");
    return reason;
  }

  #show(what: string | Record<string, unknown>): void {
    this.#deps.terminal.out(typeof what === "string" ? what : `${JSON.stringify(what)}\n`);
  }
}
