/**
 * The events of a response in their order, as OpenAI's Responses API streams them.
 *
 * Additions to OpenAI's protocol: every event carries `response_id`, since responses on one socket interleave, and
 * `response.cancelled` is a terminal event.
 *
 * Absent here on purpose: who reads them, sockets, SSE.
 *
 * @module
 */

import {
  type FunctionCall,
  identified,
  type Item,
  type ItemLogprob,
  type ItemStatus,
  type OutputMessage,
  type OutputText,
  type Reasoning,
  said,
} from "./items.ts";
import type { ResponseEcho, ResponseFailure, ResponseStatus, ResponseUsage, WireResponse } from "./response.ts";
import type { WireTimings } from "./timings.ts";

type Identified<T> = T & { id: string };
/** An item that the model makes. */
type Made = Identified<OutputMessage> | Identified<FunctionCall> | Identified<Reasoning>;
type Thought = { type: "reasoning_text"; text: string };

interface ItemPlace {
  item_id: string;
  output_index: number;
}

interface PartPlace extends ItemPlace {
  content_index: 0;
}

type EventBody =
  | { type: `response.${"created" | ResponseStatus}`; response: WireResponse }
  | { type: "response.output_item.added" | "response.output_item.done"; output_index: number; item: Made }
  | { type: "response.content_part.added" | "response.content_part.done"; part: OutputText | Thought } & PartPlace
  | { type: "response.output_text.delta"; delta: string; logprobs: ItemLogprob[] } & PartPlace
  | { type: "response.output_text.done"; text: string; logprobs: ItemLogprob[] } & PartPlace
  | { type: "response.reasoning_text.delta"; delta: string } & PartPlace
  | { type: "response.reasoning_text.done"; text: string } & PartPlace
  | { type: "response.function_call_arguments.delta"; delta: string } & ItemPlace
  | { type: "response.function_call_arguments.done"; name: string; arguments: string } & ItemPlace;

/** An event of one response; `sequence_number` counts from 0 without gaps. */
export type ResponseEvent = EventBody & { response_id: string; sequence_number: number; stream_id?: string };

/** How a response ended. */
export interface ResponseEnd {
  status: "completed" | "incomplete" | "cancelled" | "failed";
  completedAt: number;
  usage: ResponseUsage | null;
  timings?: WireTimings;
  /** Of one that failed. */
  error?: ResponseFailure;
}

/** Who a response is. */
export interface ResponseHead {
  /** What makes its id, and those of its items, unlike all others: letters and digits. */
  unique: string;
  createdAt: number;
  model: string;
  /** The lane of a socket that its events name. */
  streamId?: string;
  /** Number of the first item that the model makes; those before are its input. */
  firstItem: number;
}

/** What makes the id of an item unlike all others: its response, and its number among the items of that. */
export function itemUnique(unique: string, index: number): string {
  return unique + index.toString(16).padStart(4, "0");
}

/** The response to which an item belongs, by their ids. */
export function responseOfItem(itemId: string): string | undefined {
  const [, unique] = /^[a-z]+_([0-9a-zA-Z]+)[0-9a-f]{4}$/.exec(itemId) ?? [];
  return unique === undefined ? undefined : `resp_${unique}`;
}

/** The events of one response: `start` once, then what the model makes, `close` and `end` once. */
export class ResponseWriter {
  readonly #head: ResponseHead;
  readonly #response: Readonly<WireResponse>;
  readonly #output: Made[] = [];
  /** Whether the last item of the output is still being made. */
  #isOpen = false;
  #sequence = 0;

  /** A response to a request, of which `echo` is to be repeated. */
  constructor(echo: ResponseEcho, head: ResponseHead) {
    this.#head = head;
    this.#response = {
      id: `resp_${head.unique}`,
      object: "response",
      created_at: head.createdAt,
      completed_at: null,
      status: "in_progress",
      error: null,
      incomplete_details: null,
      model: head.model,
      output: [],
      usage: null,
      ...echo,
    };
  }

  /** The id by which a client names the response. */
  get responseId(): string {
    return this.#response.id;
  }

  /** The response while it stands so. */
  at(status: "queued" | "in_progress"): WireResponse {
    return { ...this.#response, status };
  }

  /** The events that announce the response. */
  start(status: "queued" | "in_progress"): ResponseEvent[] {
    const response = this.at(status);
    return [
      this.#event({ type: "response.created", response }),
      this.#event({ type: `response.${status}`, response }),
    ];
  }

  /** The event of a response that waited and no longer does. */
  begin(): ResponseEvent[] {
    return [this.#event({ type: "response.in_progress", response: this.at("in_progress") })];
  }

  /** The events of one more piece of text. */
  text(delta: string, logprobs?: ItemLogprob[]): ResponseEvent[] {
    const opening = this.#open("message");
    const message = this.#last as OutputMessage;
    const part = message.content[0] as OutputText;
    part.text += delta;
    if (logprobs) (part.logprobs ??= []).push(...logprobs);
    const type = "response.output_text.delta";
    return [...opening, this.#event({ type, ...this.#part(), delta, logprobs: logprobs ?? [] })];
  }

  /** The events of one more piece of a thought. */
  reasoning(delta: string): ResponseEvent[] {
    const opening = this.#open("reasoning");
    (this.#last as Reasoning).content[0]!.text += delta;
    return [...opening, this.#event({ type: "response.reasoning_text.delta", ...this.#part(), delta })];
  }

  /** The events of a call that begins. */
  call(callId: string, name: string): ResponseEvent[] {
    return [
      ...this.close("completed"),
      ...this.#add({ type: "function_call", call_id: callId, name, arguments: "", status: "in_progress" }),
    ];
  }

  /** The events of one more piece of the arguments of the last call. */
  callArguments(delta: string): ResponseEvent[] {
    (this.#last as FunctionCall).arguments += delta;
    return [this.#event({ type: "response.function_call_arguments.delta", ...this.#place(), delta })];
  }

  /** The events that end the item that is being made, if one is. */
  close(status: ItemStatus): ResponseEvent[] {
    if (!this.#isOpen) return [];
    this.#isOpen = false;
    this.#last.status = status;
    return [
      ...this.#partDone(this.#last),
      this.#event({ type: "response.output_item.done", output_index: this.#index, item: copy(this.#last) }),
    ];
  }

  /** The events that end what is being made; a reply without anything is an empty message. */
  closeAll(status: ItemStatus): ResponseEvent[] {
    const empty = this.#output.length === 0 ? this.#open("message") : [];
    return [...empty, ...this.close(status)];
  }

  /** The response as it ended. What a failure cut off is incomplete. */
  ended({ status, completedAt, usage, timings, error = null as never }: ResponseEnd): WireResponse {
    if (this.#isOpen) this.#last.status = "incomplete";
    return {
      ...this.#response,
      status,
      completed_at: status === "completed" ? completedAt : null,
      error: status === "failed" ? error : null,
      incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" } : null,
      output: this.#output.map(copy),
      usage,
      ...(timings ? { timings } : {}),
    };
  }

  /** The terminal event. */
  end(response: WireResponse): ResponseEvent {
    return this.#event({ type: `response.${response.status}`, response });
  }

  /** Makes sure that an item of a type is being made; text and thoughts come one after another. */
  #open(type: "message" | "reasoning"): ResponseEvent[] {
    if (this.#isOpen && this.#last.type === type) return [];
    const status = "in_progress";
    const item = type === "message"
      ? { type, role: "assistant" as const, status, content: [said("")] } as const
      : { type, summary: [], content: [{ type: "reasoning_text", text: "" }], status } as const;
    return [...this.close("completed"), ...this.#add(item as unknown as OutputMessage | Reasoning)];
  }

  #add(body: OutputMessage | FunctionCall | Reasoning): ResponseEvent[] {
    const unique = itemUnique(this.#head.unique, this.#head.firstItem + this.#output.length);
    this.#output.push(identified(body, unique) as Made);
    this.#isOpen = true;
    const item = copy(this.#last);
    const part = partOf(item);
    if (part && "content" in item) item.content = [];
    const added = this.#event({ type: "response.output_item.added", output_index: this.#index, item });
    return part ? [added, this.#event({ type: "response.content_part.added", ...this.#part(), part })] : [added];
  }

  #partDone(item: Made): ResponseEvent[] {
    if (item.type === "function_call") {
      const { name, arguments: args } = item;
      const type = "response.function_call_arguments.done";
      return [this.#event({ type, ...this.#place(), name, arguments: args })];
    }
    const part = partOf(copy(item))!;
    const done = part.type === "reasoning_text"
      ? { type: "response.reasoning_text.done" as const, text: part.text }
      : { type: "response.output_text.done" as const, text: part.text, logprobs: part.logprobs ?? [] };
    return [
      this.#event({ ...done, ...this.#part() }),
      this.#event({ type: "response.content_part.done", ...this.#part(), part }),
    ];
  }

  get #last(): Made {
    return this.#output.at(-1)!;
  }

  get #index(): number {
    return this.#output.length - 1;
  }

  #place(): ItemPlace {
    return { item_id: this.#last.id, output_index: this.#index };
  }

  #part(): PartPlace {
    return { ...this.#place(), content_index: 0 };
  }

  #event(body: EventBody): ResponseEvent {
    const { streamId } = this.#head;
    return {
      ...body,
      response_id: this.#response.id,
      sequence_number: this.#sequence++,
      ...(streamId === undefined ? {} : { stream_id: streamId }),
    };
  }
}

function partOf(item: Made): OutputText | Thought | undefined {
  return item.type === "function_call" ? undefined : item.content[0] as OutputText | Thought;
}

/** An item that does not change any more. */
function copy<T extends Item>(item: T): T {
  return "content" in item ? { ...item, content: item.content.map((part) => ({ ...part })) } : { ...item };
}
