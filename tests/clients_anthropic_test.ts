/**
 * Anthropic's own client, as it is, against the application behind a real listener.
 *
 * @module
 */

import assert from "node:assert/strict";
import Anthropic, { APIError, BadRequestError, NotFoundError, RateLimitError } from "@anthropic-ai/sdk";
import type { FakeOptions } from "../src/engine/fake.ts";
import { serveFake, until } from "./served.ts";

function serve(fake: FakeOptions = {}) {
  const served = serveFake(fake);
  const client = new Anthropic({ baseURL: `http://${served.host}`, apiKey: "none", maxRetries: 0 });
  return { ...served, client };
}

const request = { model: "fake", max_tokens: 20, messages: [{ role: "user", content: "hi" }] } as const;
/** Without a readonly list, which the client's types do not take. */
const asked = { ...request, messages: [...request.messages] };

Deno.test("Anthropic's client: a whole message", async () => {
  await using served = serve({ reply: "Hello, 🦙!" });
  const sampling = { temperature: 0, top_k: 5 };
  const { data: message, response, request_id } = await served.client.messages.create({ ...asked, ...sampling })
    .withResponse();
  assert.deepEqual([message.type, message.role, message.model], ["message", "assistant", "fake"]);
  assert.deepEqual(message.content, [{ type: "text", text: "Hello, 🦙!", citations: null }]);
  assert.deepEqual([message.stop_reason, message.stop_sequence], ["end_turn", null]);
  const { input_tokens, output_tokens, cache_read_input_tokens } = message.usage;
  assert.deepEqual([input_tokens > 0, output_tokens, cache_read_input_tokens], [true, 2, 0]);
  assert.equal(request_id, response.headers.get("x-request-id"));
  assert.deepEqual(served.engine.requests[0]!.sampling, { temperature: 0, topK: 5 });
});

Deno.test("Anthropic's client: events of a stream in their order, and why it ended", async () => {
  await using served = serve({ reply: "one two three four" });
  const stream = await served.client.messages.create({ ...asked, stream: true, stop_sequences: ["four"] });
  const events = await Array.fromAsync(stream);
  const pieces = events.flatMap((event) => event.type === "content_block_delta" ? [event.delta] : []);
  assert(pieces.every(({ type }) => type === "text_delta"));
  assert.equal(pieces.map((delta) => delta.type === "text_delta" ? delta.text : "").join(""), "one two three ");
  const frame = events.map(({ type }) => type).filter((type) => type !== "content_block_delta");
  assert.deepEqual(frame, [
    "message_start",
    "content_block_start",
    "content_block_stop",
    "message_delta",
    "message_stop",
  ]);
  const last = events.find((event) => event.type === "message_delta")!;
  assert.deepEqual([last.delta.stop_reason, last.delta.stop_sequence], ["stop_sequence", "four"]);
  assert.equal(last.usage.output_tokens, 4);
});

Deno.test("Anthropic's client: its streaming helper assembles the message that a whole reply would be", async () => {
  await using served = serve({ reply: "one two three" });
  const options = { ...asked, max_tokens: 2 };
  const stream = served.client.messages.stream(options);
  const texts: string[] = [];
  stream.on("text", (text) => texts.push(text));
  const streamed = await stream.finalMessage();
  const whole = await served.client.messages.create(options);
  assert.equal(texts.join(""), "one two");
  assert.equal(streamed.stop_reason, "max_tokens");
  // Besides what the server sent, the helper has a field of its own.
  assert.deepEqual(streamed, { ...whole, id: streamed.id, parsed_output: null });
});

Deno.test("Anthropic's client: tokens are counted as they are when generating", async () => {
  await using served = serve({ reply: "x" });
  const prompt = { model: "fake", messages: asked.messages, system: [{ type: "text" as const, text: "be brief" }] };
  const { input_tokens } = await served.client.messages.countTokens(prompt);
  const message = await served.client.messages.create({ ...prompt, max_tokens: 1 });
  assert.equal(input_tokens, message.usage.input_tokens);
});

Deno.test("Anthropic's client: refusals arrive as its own errors", async () => {
  await using served = serve({ model: { contextLength: 16 }, maxRunning: 1, maxWaiting: 0, tokenMs: 5 });
  const { messages } = served.client;
  for (const stream of [false, true]) {
    await assert.rejects(messages.create({ ...asked, stream, model: "claude" }), (error) => {
      assert(error instanceof NotFoundError, String(error));
      assert.equal(error.type, "not_found_error");
      assert.match(error.requestID!, /^[\w-]+$/);
      return true;
    });
    await assert.rejects(messages.create({ ...asked, stream, ...{ temperature: 2 } }), BadRequestError);
    const long = [{ role: "user" as const, content: "x".repeat(16) }];
    await assert.rejects(messages.create({ ...asked, stream, messages: long }), (error) => {
      assert(error instanceof BadRequestError, String(error));
      assert.match(error.message, /fewer than 16 tokens, got \d+/);
      return true;
    });
  }
  const running = messages.create({ ...asked, stream: true });
  await until(() => served.engine.stats().running === 1);
  await assert.rejects(messages.create(asked), RateLimitError);
  (await running).controller.abort();
});

Deno.test("Anthropic's client: a failure inside a stream is thrown where it is read", async () => {
  await using served = serve({ tokenMs: 1 });
  const stream = await served.client.messages.create({ ...asked, stream: true });
  await assert.rejects(async () => {
    for await (const event of stream) if (event.type === "content_block_delta") await served.engine.close();
  }, (error) => error instanceof APIError && error.type === "api_error" && /closed/.test(error.message));
});

Deno.test("Anthropic's client: leaving a stream frees the engine", async () => {
  await using served = serve({ tokenMs: 5, reply: Array(1000).fill("word ") });
  const stream = served.client.messages.stream({ ...asked, max_tokens: 1000 });
  for await (const event of stream) if (event.type === "content_block_delta") break;
  await until(() => served.engine.stats().running === 0);
  assert(served.engine.stats().generatedTokens < 100);
});
