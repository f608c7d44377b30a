/**
 * What Prometheus reads from `/metrics`. Times are those that a client of this process could measure: they begin when the
 * request reaches a model's queue.
 *
 * Absent here: metrics of the process and its runtime, which exporters and Deno's own OpenTelemetry have.
 *
 * @module
 */

import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Engine } from "../engine/engine.ts";
import type { Origin } from "./caller.ts";
import type { Observed, Observer } from "./observe.ts";
import type { Route } from "./route.ts";

/** From a token of a fast small model to a slow one's prompt: factors of two and a bit, in seconds. */
const TIME_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300];

/** What metrics need. */
export interface MetricsOptions {
  engine: Engine;
  /** The name under which the model is served, a label. */
  modelId: string;
  /** Milliseconds of a monotonic clock. Default `performance.now`. */
  now?: () => number;
}

/** Counts and times replies, and tells Prometheus. */
export class Metrics implements Observer {
  readonly #registry = new Registry();
  readonly #model: string;
  readonly #now: () => number;
  readonly #requests = this.#counter("requests_total", "HTTP requests by route and status", [
    "method",
    "route",
    "status",
  ]);
  readonly #replies = this.#counter("replies_total", "Replies by how they ended", ["model", "key", "outcome"]);
  readonly #tokens = {
    prompt: this.#counter("prompt_tokens_total", "Tokens of prompts", ["model", "key"]),
    completion: this.#counter("completion_tokens_total", "Tokens generated", ["model", "key"]),
  };
  readonly #queue = this.#histogram("queue_seconds", "Time until the model turned to a request");
  readonly #first = this.#histogram("time_to_first_token_seconds", "Time until the first token of a reply");
  readonly #between = this.#histogram("inter_token_seconds", "Time between two tokens of a reply");

  /** Metrics of one engine, all at zero. */
  constructor({ engine, modelId, now = () => performance.now() }: MetricsOptions) {
    this.#model = modelId;
    this.#now = now;
    this.#gauge("requests_waiting", "Requests that wait for the model", () => engine.stats().waiting);
    this.#gauge("requests_running", "Requests that take turns on the model", () => engine.stats().running);
    this.#total("proposed_tokens_total", "Tokens guessed ahead", () => engine.stats().proposedTokens);
    this.#total("accepted_tokens_total", "Tokens guessed ahead that came true", () => engine.stats().acceptedTokens);
    this.#gauge("healthy", "Whether the engine can serve", () => Number(engine.stats().healthy));
  }

  /** The endpoint; keys may be set, and then it needs one, as it names them. */
  get route(): Route {
    return {
      method: "get",
      path: "/metrics",
      summary: "Counters and times for Prometheus",
      replies: "text/plain",
      handler: async (c) => c.body(await this.text(), 200, { "content-type": this.#registry.contentType }),
    };
  }

  /** All metrics in Prometheus' text format. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** A request was answered; `route` is its path as the router knows it, so that there are few. */
  request(method: string, route: string, status: number): void {
    this.#requests.inc({ method, route, status });
  }

  reply({ caller: { name: key } }: Origin): Observed {
    const model = this.#model;
    const asked = this.#now();
    let last: { at: number; tokens: number } | undefined;
    return {
      event: (event) => {
        if (event.type !== "text") return;
        const at = this.#now();
        if (last === undefined) this.#first.observe((at - asked) / 1000);
        else this.#observeBetween(at - last.at, event.completionTokens - last.tokens);
        last = { at, tokens: event.completionTokens };
      },
      end: (outcome, done) => {
        this.#replies.inc({ model, key, outcome });
        if (done === undefined) return;
        this.#queue.observe(done.timings.queueMs / 1000);
        this.#tokens.prompt.inc({ model, key }, done.usage.promptTokens);
        this.#tokens.completion.inc({ model, key }, done.usage.completionTokens);
      },
    };
  }

  /** A text of several tokens stands for as many equal times. */
  #observeBetween(ms: number, tokens: number): void {
    for (let token = 0; token < tokens; token++) this.#between.observe(ms / tokens / 1000);
  }

  #counter<L extends string>(name: string, help: string, labelNames: L[]): Counter<L> {
    return new Counter({ name: `llamero_${name}`, help, labelNames, registers: [this.#registry] });
  }

  #histogram(name: string, help: string): Histogram {
    return new Histogram({ name: `llamero_${name}`, help, buckets: TIME_BUCKETS, registers: [this.#registry] });
  }

  /** A count that the engine keeps. */
  #total(name: string, help: string, read: () => number): void {
    new Counter({
      name: `llamero_${name}`,
      help,
      registers: [this.#registry],
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  }

  #gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name: `llamero_${name}`,
      help,
      registers: [this.#registry],
      collect() {
        this.set(read());
      },
    });
  }
}
