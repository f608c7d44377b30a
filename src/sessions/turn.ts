/**
 * One turn of a conversation: render the messages, generate, append the reply. The API and the terminal both take
 * their turns here, so what is true in one is true in the other.
 *
 * Absent here: where conversations are kept, HTTP, terminals.
 *
 * @module
 */

import type { ChatMessage, Tool, ToolChoice } from "../chat/message.ts";
import { renderChat } from "../chat/plain_tools.ts";
import type { ChatTemplate } from "../chat/template.ts";
import { THOUGHTS_BEGIN } from "../chat/thoughts.ts";
import {
  type Constraint,
  type Engine,
  EngineError,
  type GenerateRequest,
  type SamplingParams,
} from "../engine/engine.ts";
import { replyConstraint } from "./reply_grammar.ts";
import { ReplyReader } from "./reply_reader.ts";
import { settled } from "./sampling.ts";
import type { TurnEvent } from "./turn_event.ts";

/** Length of the ids of calls: what Mistral's templates insist on. */
export const CALL_ID_LENGTH = 9;

/** What an operator sets for requests that do not say. */
export interface TurnDefaults {
  sampling?: SamplingParams;
  maxTokens?: number;
}

/** What a turn hands on to the engine as it is. */
export type Generation = Pick<
  GenerateRequest,
  "stopTokenIds" | "minTokens" | "ignoreEos" | "logprobs" | "promptLogprobs"
>;

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
  generation?: Generation;
  /** Functions that the model may call. */
  tools?: readonly Tool[];
  /** Which of them it must or may call. Default `auto`. */
  toolChoice?: ToolChoice;
  /** Whether a reply may have several calls. Default true. */
  parallelToolCalls?: boolean;
  /** What the reply must be; where it calls a function, it need not be that. */
  constraint?: Constraint;
  /** Further variables of a Jinja template, such as `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>>;
  /** Whether thoughts are told apart. Default: where the template has them. */
  reasoning?: boolean;
  /** A new id of a call. Default: random. */
  newCallId?: () => string;
  /** Aborting ends the reply; what was said until then stays. */
  signal?: AbortSignal;
}

/**
 * Run one turn: yields the events of the reply and returns the conversation with it. A cancelled reply is kept as far as
 * it was said; when nothing was said, nothing is appended.
 *
 * @throws {ChatTemplateError} when the messages cannot be rendered.
 * @throws {EngineError} when the request does not fit or the engine fails.
 */
export async function* runTurn(options: TurnOptions): AsyncGenerator<TurnEvent, readonly ChatMessage[], void> {
  const { engine, messages, signal, parallelToolCalls = true, newCallId = randomCallId } = options;
  const tools = offeredTools(options);
  const { request, thoughts } = await turnRequest(options, tools);
  const over = new AbortController();
  const reader = new ReplyReader({
    tools: tools.map(({ name }) => name),
    oneCall: !parallelToolCalls,
    thoughts,
    newCallId,
    onOver: () => over.abort(),
  });
  const signals = signal ? [signal, over.signal] : [over.signal];
  for await (const event of engine.generate(request, { signal: AbortSignal.any(signals) })) yield* reader.read(event);
  return reader.appendedTo(messages);
}

/** The functions of which the model is told. */
function offeredTools({ tools = [], toolChoice = "auto" }: TurnOptions): readonly Tool[] {
  if (toolChoice === "none") return [];
  const names = tools.map(({ name }) => name);
  const fits = typeof toolChoice === "object"
    ? names.includes(toolChoice.name)
    : toolChoice === "auto" || names.length > 0;
  if (fits) return tools;
  const message = `choosing a function: expected one of ${names.length} that are offered, got another`;
  throw new EngineError("invalid_request", message);
}

/** What the engine is asked. */
async function turnRequest(
  options: TurnOptions,
  tools: readonly Tool[],
): Promise<{ request: GenerateRequest; thoughts: boolean | "open" }> {
  const { engine, template, messages, defaults = {}, variables } = options;
  const { specialTokens } = engine.model;
  const { prompt, stop } = renderChat(template, messages, { specialTokens, tools, variables });
  const stops = [...new Set([...stop, ...options.stop ?? []])];
  const thoughts = thoughtsOf(options, prompt);
  const constraint = await replyConstraint(engine, {
    tools,
    toolChoice: tools.length > 0 ? options.toolChoice ?? "auto" : "auto",
    parallel: options.parallelToolCalls ?? true,
    constraint: options.constraint,
    notation: template.tools ?? "hermes",
    // Only a model that is known to think is led to it.
    thoughts: template.thinks ? thoughts : false,
  });
  const maxTokens = options.maxTokens ?? defaults.maxTokens ?? await ownLimit(engine, prompt);
  const request = { prompt, ...settled({ ...options, maxTokens }, { stop: stops, constraint }) };
  return { request, thoughts };
}

/** A template that knows of thoughts may begin them itself. */
function thoughtsOf({ template, reasoning }: TurnOptions, prompt: readonly string[]): boolean | "open" {
  const open = template.thinks && prompt.at(-1)?.trimEnd().endsWith(THOUGHTS_BEGIN);
  const wanted = reasoning ?? template.thinks ?? false;
  return wanted && open ? "open" : wanted;
}

function randomCallId(): string {
  return crypto.randomUUID().replaceAll("-", "").slice(0, CALL_ID_LENGTH);
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
