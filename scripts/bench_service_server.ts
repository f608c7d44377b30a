/**
 * The served side of bench_service.ts, in a process of its own: the application as `serve` joins it, over an engine that
 * emits at will. Prints its port, and ends with its standard input.
 */
import { upgradeWebSocket } from "hono/deno";
import { createApp } from "../src/api/app.ts";
import { Metrics } from "../src/api/metrics.ts";
import { tracer } from "../src/api/trace.ts";
import type { GenerateEvent, GenerateRequest } from "../src/engine/engine.ts";
import { FakeEngine } from "../src/engine/fake.ts";

/** Gives each token as soon as it is asked for. */
class Firehose extends FakeEngine {
  override async *generate({ maxTokens = 1 }: GenerateRequest): AsyncGenerator<GenerateEvent> {
    yield { type: "started", promptTokens: 1 };
    for (let token = 1; token <= maxTokens; token++) yield { type: "text", text: " token", completionTokens: token };
    const usage = { promptTokens: 1, completionTokens: maxTokens };
    yield { type: "done", reason: "length", usage, timings: { queueMs: 0, prefillMs: 0, decodeMs: 0 } };
  }
}

const engine = new Firehose();
const modelId = "fake";
const template = { name: "plain", render: () => ({ prompt: ["hi"], stop: [] }) };
const metrics = new Metrics({ engine, modelId });
const observers = [metrics, tracer(modelId)];
const app = createApp({ engine, template, modelId, observers, routes: [metrics.route], upgradeWebSocket, log() {} });
const server = Deno.serve(
  { hostname: "127.0.0.1", port: 0, onListen() {} },
  (request, info) => app.fetch(request, info),
);
console.log(server.addr.port);
for await (const _ of Deno.stdin.readable) { /* until the parent goes */ }
Deno.exit(0);
