/**
 * An application around an engine whose every reply a test writes itself, so that failures, silences and cancels come
 * exactly when the test wants them.
 *
 * @module
 */

import type { ChatTemplate } from "../chat/template.ts";
import type { DoneEvent, FinishReason, GenerateEvent, GenerateOptions, GenerateRequest } from "../engine/engine.ts";
import { FakeEngine } from "../engine/fake.ts";
import { type AppOptions, createApp } from "./app.ts";
import type { LogEntry } from "./log.ts";

/** What a scripted engine yields for a request. */
export type Script = (request: GenerateRequest, signal: AbortSignal) => AsyncGenerator<GenerateEvent>;

/** A fake engine whose replies are a script's events, checked by nobody. */
export class ScriptedEngine extends FakeEngine {
  /** Calls of `generate` in order, with their signals. */
  readonly calls: { request: GenerateRequest; signal: AbortSignal }[] = [];
  readonly #script: Script;

  constructor(script: Script) {
    super({ model: { device: "cpu test" } });
    this.#script = script;
  }

  override generate(
    request: GenerateRequest,
    { signal = new AbortController().signal }: GenerateOptions = {},
  ): AsyncGenerator<GenerateEvent> {
    this.calls.push({ request, signal });
    return this.#script(request, signal);
  }
}

/** A text event. */
export function said(text: string, completionTokens = 1): GenerateEvent {
  return { type: "text", text, completionTokens };
}

/** A done event of 3 prompt tokens and 2 completion tokens. */
export function done(reason: FinishReason = "stop"): DoneEvent {
  const usage = { promptTokens: 3, completionTokens: 2 };
  return { type: "done", reason, usage, timings: { queueMs: 0, prefillMs: 1, decodeMs: 2 } };
}

/** The times of `done` as replies have them. */
export const TIMINGS = {
  queue_ms: 0,
  prompt_n: 3,
  prompt_ms: 1,
  prompt_per_second: 3000,
  predicted_n: 2,
  predicted_ms: 2,
  predicted_per_second: 1000,
};

/** A script of fixed events. */
export function events(...all: GenerateEvent[]): Script {
  return async function* () {
    yield* all;
  };
}

/** A script that says `first` and is then silent until its signal is aborted. */
export function untilAborted(...first: GenerateEvent[]): Script {
  return async function* (_request, signal) {
    yield* first;
    await aborted(signal);
    yield done("cancelled");
  };
}

/** Resolves when `signal` is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

/** A template whose prompt shows the messages plainly. */
export const plainTemplate: ChatTemplate = {
  name: "plain",
  render: (messages) => ({
    prompt: messages.map(({ role, content }) => `${role}:${content}\n`),
    stop: ["<end>"],
  }),
};

/** An application with a fixed clock and ids, its engine, and what it logs. */
export function testApp(script: Script, options: Partial<AppOptions> = {}) {
  const engine = new ScriptedEngine(script);
  const log: LogEntry[] = [];
  const app = createApp({
    engine,
    template: plainTemplate,
    modelId: "org/model",
    aliases: ["model.gguf"],
    clock: () => 1_700_000_000_500,
    newId: () => "1",
    log: (entry) => log.push(entry),
    startAfterMs: 5,
    ...options,
  });
  return { app, engine, log };
}

/** A request for a chat completion. */
export function chatRequest(fields: Record<string, unknown> = {}, init: RequestInit = {}): Request {
  const body = { model: "org/model", messages: [{ role: "user", content: "hi" }], ...fields };
  return postRequest("/v1/chat/completions", body, init);
}

/** A request that posts JSON. */
export function postRequest(path: string, value: unknown, init: RequestInit = {}): Request {
  const headers = { "content-type": "application/json", ...init.headers };
  return new Request(`http://localhost${path}`, { method: "POST", body: JSON.stringify(value), ...init, headers });
}
