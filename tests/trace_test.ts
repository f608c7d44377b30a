/**
 * Spans as Deno's own exporter gives them to a collector: a child process with `OTEL_DENO=true` serves one reply, and this
 * process is the collector.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

interface ExportedSpan {
  name: string;
  parentSpanId?: string;
  spanId: string;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: { key: string; value: { stringValue?: string; doubleValue?: number } }[];
}

/** Serves one reply and ends. */
const CHILD = fileURLToPath(new URL("./trace_child.ts", import.meta.url));

Deno.test("a reply becomes spans of queue, prefill, decode and stream", async () => {
  const spans: ExportedSpan[] = [];
  await using collector = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const body = await request.json();
    for (const { scopeSpans = [] } of body.resourceSpans ?? []) {
      for (const scope of scopeSpans) spans.push(...scope.spans);
    }
    return Response.json({});
  });
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", CHILD],
    stdin: "null",
    env: {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.addr.port}`,
    },
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));

  const reply = spans.find(({ name }) => name === "llamero.reply");
  assert.ok(reply, `expected a span llamero.reply, got ${spans.map(({ name }) => name)}`);
  const children = spans.filter(({ parentSpanId }) => parentSpanId === reply.spanId);
  assert.deepEqual(new Set(children.map(({ name }) => name)), new Set(["queue", "prefill", "decode", "stream"]));
  const value = (key: string) => reply.attributes.find((each) => each.key === key)?.value;
  assert.equal(value("gen_ai.request.model")?.stringValue, "fake");
  assert.equal(value("gen_ai.usage.output_tokens")?.doubleValue, 2);
  for (const span of [reply, ...children]) {
    assert.ok(BigInt(span.endTimeUnixNano) >= BigInt(span.startTimeUnixNano), span.name);
  }
});
