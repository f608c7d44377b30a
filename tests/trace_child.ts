/** The served side of trace_test.ts: one reply, then the end, at which Deno exports what it has. */
import { createApp } from "../src/api/app.ts";
import { tracer } from "../src/api/trace.ts";
import { FakeEngine } from "../src/engine/fake.ts";

const template = { name: "plain", render: () => ({ prompt: ["hi"], stop: [] }) };
const app = createApp({
  engine: new FakeEngine({ reply: "two words" }),
  template,
  modelId: "fake",
  observers: [tracer("fake")],
});
const response = await app.request("http://localhost/v1/chat/completions", {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ model: "fake", messages: [{ role: "user", content: "hi" }], stream: true }),
});
await response.text();
