/**
 * The WebSocket client of npm `openai` over the socket that the runtime has. Its `ResponsesWS` is this class over the
 * package `ws`, which nothing else here needs.
 *
 * @module
 */

import type OpenAI from "openai";
import { ResponsesWSBase, type ResponsesWSBaseOptions } from "openai/resources/responses/ws-base";

type Listener = (...args: never[]) => void;

/** The runtime's socket with the events that the client expects. */
export class PlainSocket {
  readonly #socket: WebSocket;
  readonly #handlers = new Map<Listener, (event: Event) => void>();

  constructor(socket: WebSocket) {
    this.#socket = socket;
  }

  get readyState(): number {
    return this.#socket.readyState;
  }

  send(data: string | ArrayBufferLike | ArrayBufferView): void {
    this.#socket.send(data as string);
  }

  close(code?: number, reason?: string): void {
    this.#socket.close(code, reason);
  }

  on(event: string, listener: Listener): void {
    const handler = (given: Event) => listener(...argumentsOf(given) as never[]);
    this.#handlers.set(listener, handler);
    this.#socket.addEventListener(event, handler);
  }

  off(event: string, listener: Listener): void {
    const handler = this.#handlers.get(listener);
    if (handler) this.#socket.removeEventListener(event, handler);
  }

  once(event: string, listener: Listener): void {
    const handler = (given: Event) => listener(...argumentsOf(given) as never[]);
    this.#socket.addEventListener(event, handler, { once: true });
  }
}

function argumentsOf(event: Event): unknown[] {
  if (event instanceof MessageEvent) return [event.data, typeof event.data !== "string"];
  if (event instanceof CloseEvent) return [event.code, event.reason];
  return event.type === "error" ? [new Error("the socket failed")] : [];
}

/** The client. */
export class ResponsesSocket extends ResponsesWSBase<PlainSocket> {
  constructor(client: OpenAI, options?: ResponsesWSBaseOptions) {
    super(client, options);
    this._connectInitial();
  }

  protected override _createSocket(url: URL, headers: Record<string, string>): PlainSocket {
    return new PlainSocket(new WebSocket(url, { headers }));
  }
}
