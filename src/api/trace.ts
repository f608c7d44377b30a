/**
 * A reply as OpenTelemetry spans: `llamero.reply` around `queue`, `prefill`, `decode` and `stream`, through whatever
 * exporter the runtime has set up (in Deno: `OTEL_DENO=true`). Without one, nothing is recorded.
 *
 * The runtime's own span of a request ends with the head of its response; `stream` is the time from the first piece to
 * the last that the client took.
 *
 * @module
 */

import { context, type Span, SpanStatusCode, trace, type Tracer } from "@opentelemetry/api";
import type { DoneEvent } from "../engine/engine.ts";
import { VERSION } from "../protocol/mod.ts";
import type { Origin } from "./caller.ts";
import type { Observed, Observer } from "./observe.ts";

/** Outcomes that are no failures. */
const GOOD = ["stop", "length", "cancelled", "left"];

/** Traces replies of the model `modelId`; `clock` gives milliseconds since 1970. */
export function tracer(modelId: string, clock: () => number = Date.now): Observer {
  const spans = trace.getTracer("llamero", VERSION);
  return { reply: (origin) => traced(spans, origin, modelId, clock) };
}

function traced(spans: Tracer, { requestId, caller }: Origin, model: string, clock: () => number): Observed {
  const started = clock();
  const attributes = {
    "gen_ai.request.model": model,
    "llamero.request_id": requestId,
    "llamero.key": caller.name,
  };
  const span = spans.startSpan("llamero.reply", { startTime: started, attributes });
  let streaming: number | undefined;
  return {
    event: ({ type }) => {
      if (type !== "started" && type !== "done") streaming ??= clock();
    },
    end: (outcome, done) => {
      const ended = clock();
      const child = (name: string, from: number, to: number) => inside(spans, span, name, from, to);
      if (done !== undefined) stages(done, started, child);
      if (streaming !== undefined) child("stream", streaming, ended);
      finish(span, outcome, done, ended);
    },
  };
}

/** What the engine did one after the other, by its own clock. */
function stages(
  { timings: { queueMs, prefillMs, decodeMs } }: DoneEvent,
  started: number,
  child: (name: string, from: number, to: number) => void,
): void {
  const prefill = started + queueMs;
  const decode = prefill + prefillMs;
  child("queue", started, prefill);
  child("prefill", prefill, decode);
  child("decode", decode, decode + decodeMs);
}

function inside(spans: Tracer, parent: Span, name: string, startTime: number, end: number): void {
  spans.startSpan(name, { startTime }, trace.setSpan(context.active(), parent)).end(end);
}

function finish(span: Span, outcome: string, done: DoneEvent | undefined, at: number): void {
  span.setAttribute("gen_ai.response.finish_reasons", [outcome]);
  if (done !== undefined) {
    span.setAttribute("gen_ai.usage.input_tokens", done.usage.promptTokens);
    span.setAttribute("gen_ai.usage.output_tokens", done.usage.completionTokens);
  }
  if (!GOOD.includes(outcome)) span.setStatus({ code: SpanStatusCode.ERROR, message: outcome });
  span.end(at);
}
