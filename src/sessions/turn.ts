/**
 * One turn of a conversation: render the messages, generate, append the reply. The API and the terminal both take
 * their turns here, so what is true in one is true in the other.
 *
 * Absent here: where conversations are kept, HTTP, terminals.
 *
 * @module
 */

import type { ChatMessage } from "../chat/message.ts";
import type { ChatTemplate } from "../chat/template.ts";
import type { Engine, GenerateEvent, SamplingParams } from "../engine/engine.ts";
import { resolveSampling } from "./sampling.ts";

/** What an operator sets for requests that do not say. */
export interface TurnDefaults {
  sampling?: SamplingParams;
  maxTokens?: number;
}

/** The model calls a function: the call begins. Its number counts the calls of the reply from 0. */
export interface ToolCallEvent {
  type: "tool_call";
  index: number;
  id: string;
  name: string;
}

/** A piece of the arguments of a call, JSON; never empty. */
export interface ToolArgumentsEvent {
  type: "tool_arguments";
  index: number;
  text: string;
}

/** A piece of what the model thinks before it speaks; never empty. */
export interface ReasoningEvent {
  type: "reasoning";
  text: string;
}

/** What `runTurn` yields: the engine's events, where calls and thoughts are no texts. */
export type TurnEvent = GenerateEvent | ReasoningEvent | ToolCallEvent | ToolArgumentsEvent;

/** What a turn needs. */
export interface TurnOptions {
  engine: Engine;
  template: ChatTemplate;
  /** The conversation so far; it is not changed. */
  messages: readonly ChatMessage[];
  sampling?: SamplingParams;
  maxTokens?: number;
  /** For what the request leaves open; what these leave open as well, the model decides. */
  defaults?: TurnDefaults;
  /** Texts that end the reply, besides those of the template. */
  stop?: readonly string[];
  /** Aborting ends the reply; what was said until then stays. */
  signal?: AbortSignal;
}

/**
 * Run one turn: yields the engine's events and returns the conversation with the reply. A cancelled reply is kept as
 * far as it was said; when nothing was said, nothing is appended.
 *
 * @throws {ChatTemplateError} when the messages cannot be rendered.
 * @throws {EngineError} when the request does not fit or the engine fails.
 */
export async function* runTurn(options: TurnOptions): AsyncGenerator<GenerateEvent, readonly ChatMessage[], void> {
  const { engine, template, messages, defaults = {}, signal } = options;
  const { prompt, stop } = template.render(messages, { specialTokens: engine.model.specialTokens });
  const stops = [...new Set([...stop, ...options.stop ?? []])];
  const sampling = resolveSampling(options.sampling, defaults.sampling, engine.model.defaults);
  const maxTokens = options.maxTokens ?? defaults.maxTokens ?? await ownLimit(engine, prompt);
  const request = { prompt, maxTokens, sampling, stop: stops.length > 0 ? stops : undefined };
  let content = "";
  for await (const event of engine.generate(request, { signal })) {
    if (event.type === "text") content += event.text;
    yield event;
  }
  return content.trim() === "" ? messages : [...messages, { role: "assistant", content }];
}

/**
 * The longest reply that the model's own `maxLength` allows. It recommends and does not forbid: for a prompt that goes
 * beyond it, the context is the only limit, as it is where `maxLength` is no shorter.
 */
async function ownLimit(engine: Engine, prompt: readonly string[]): Promise<number | undefined> {
  const { contextLength, defaults: { maxLength = contextLength } = {} } = engine.model;
  if (maxLength >= contextLength) return undefined;
  const left = maxLength - (await engine.tokenize(prompt)).length;
  return left > 0 ? left : undefined;
}
