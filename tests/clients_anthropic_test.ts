/**
 * Anthropic's own client, as it is, against the application behind a real listener.
 *
 * @module
 */

import assert from "node:assert/strict";
import Anthropic, {
  APIError,
  AuthenticationError,
  BadRequestError,
  NotFoundError,
  RateLimitError,
} from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import type { AppOptions } from "../src/api/app.ts";
import type { GenerateRequest } from "../src/engine/engine.ts";
import type { FakeOptions } from "../src/engine/fake.ts";
import { keyed } from "../src/api/key_test_support.ts";
import { serveFake, until } from "./served.ts";

function serve(fake: FakeOptions = {}, options: Partial<AppOptions> = {}) {
  const served = serveFake(fake, options);
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

Deno.test("Anthropic's client: which models there are", async () => {
  await using served = serve();
  const { models } = served.client;
  const listed = await Array.fromAsync(models.list());
  assert.deepEqual(listed.map(({ id, display_name, type }) => [id, display_name, type]), [["fake", "fake", "model"]]);
  assert.equal((await models.retrieve("fake")).max_input_tokens, 2048);
  await assert.rejects(models.retrieve("claude"), NotFoundError);
});

Deno.test("Anthropic's client: refusals arrive as its own errors", async () => {
  await using served = serve({ model: { contextLength: 16 }, maxRunning: 1, maxWaiting: 0, tokenMs: 5 });
  const { messages } = served.client;
  for (const stream of [false, true]) {
    await assert.rejects(messages.create({ ...asked, stream, model: "claude" }), (error) => {
      assert(error instanceof NotFoundError, String(error));
      assert.deepEqual([error.type, error.errorCode], ["not_found_error", "model_not_found"]);
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

const weather = {
  name: "weather",
  description: "The weather of a city",
  input_schema: { type: "object" as const, properties: { city: { type: "string" } }, required: ["city"] },
};

/** Calls the tool, and when it has the result, says it. */
function callThenSay({ prompt }: GenerateRequest): string {
  const result = prompt.join("").match(/<tool_response>\n(.*)\n<\/tool_response>/)?.[1];
  if (result !== undefined) return `It is ${result}.`;
  return `Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>`;
}

Deno.test("Anthropic's client: a tool is called, its result sent, and the reply has it; whole and streamed", async () => {
  await using served = serve({ reply: callThenSay });
  const { messages } = served.client;
  const ask = { ...asked, max_tokens: 100, tools: [weather] };
  const whole = await messages.create(ask);
  assert.equal(whole.stop_reason, "tool_use");
  const [said, call] = whole.content;
  assert.partialDeepStrictEqual(said, { type: "text", text: "Let me see." });
  assert(call?.type === "tool_use");
  assert.deepEqual([call.name, call.input], ["weather", { city: "Paris" }]);

  const stream = messages.stream(ask);
  const json: string[] = [];
  stream.on("inputJson", (piece) => json.push(piece));
  const streamed = await stream.finalMessage();
  assert.deepEqual(JSON.parse(json.join("")), { city: "Paris" });
  const ids = (message: Anthropic.Message) =>
    message.content.map((block) => block.type === "tool_use" ? { ...block, id: "" } : block);
  assert.deepEqual(ids(streamed), ids(whole));

  const result = { type: "tool_result" as const, tool_use_id: call.id, content: "sunny" };
  const answered = await messages.create({
    ...ask,
    messages: [...ask.messages, { role: "assistant", content: whole.content }, { role: "user", content: [result] }],
  });
  assert.partialDeepStrictEqual(answered.content, [{ type: "text", text: "It is sunny." }]);
  assert.equal(answered.stop_reason, "end_turn");
});

Deno.test("Anthropic's client: which tools may be called, and that counting counts them", async () => {
  await using served = serve({ reply: callThenSay });
  const { messages } = served.client;
  const ask = { ...asked, max_tokens: 100, tools: [weather] };
  const none = await messages.create({ ...ask, tool_choice: { type: "none" } });
  assert.deepEqual([none.content.map(({ type }) => type), none.stop_reason], [["text"], "end_turn"]);
  assert(!served.engine.requests.at(-1)!.prompt.join("").includes("weather"));
  await messages.create({ ...ask, tool_choice: { type: "tool", name: "weather" } });
  assert.equal(served.engine.requests.at(-1)!.constraint?.type, "grammar");

  const { max_tokens: _, ...prompt } = ask;
  const message = await messages.create(ask);
  const { input_tokens } = await messages.countTokens(prompt);
  assert.equal(input_tokens, message.usage.input_tokens);
});

Deno.test("Anthropic's client: a tool runner of its own goes on until the model has said it", async () => {
  await using served = serve({ reply: callThenSay });
  const cities: string[] = [];
  const tool = betaTool({
    name: "weather",
    description: weather.description,
    inputSchema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    run: ({ city }) => {
      cities.push(city);
      return "sunny";
    },
  });
  for (const stream of [false, true]) {
    const runner = served.client.beta.messages.toolRunner({ ...asked, max_tokens: 100, tools: [tool], stream });
    const last = await runner.runUntilDone();
    assert.partialDeepStrictEqual(last.content, [{ type: "text", text: "It is sunny." }]);
  }
  assert.deepEqual(cities, ["Paris", "Paris"]);
});

Deno.test("Anthropic's client: thoughts are a block of their own, which may be sent back", async () => {
  await using served = serve({ reply: "<think>\nHm, well.\n</think>\n\nFine." });
  const ask = { ...asked, max_tokens: 1100, thinking: { type: "enabled" as const, budget_tokens: 1024 } };
  const stream = served.client.messages.stream(ask);
  const thoughts: string[] = [];
  stream.on("thinking", (piece) => thoughts.push(piece));
  const { content } = await stream.finalMessage();
  assert.deepEqual(content, [
    { type: "thinking", thinking: "Hm, well.", signature: "" },
    { type: "text", text: "Fine.", citations: null },
  ]);
  assert.equal(thoughts.join(""), "Hm, well.");
  const messages = [...ask.messages, { role: "assistant" as const, content }, {
    role: "user" as const,
    content: "so?",
  }];
  assert.equal((await served.client.messages.create({ ...ask, messages })).stop_reason, "end_turn");
});

Deno.test("Anthropic's client: output that a schema describes is parsed", async () => {
  await using served = serve({ reply: '{"city": "Paris"}' });
  const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] } as const;
  const format = { type: "json_schema" as const, schema, parse: (text: string): { city: string } => JSON.parse(text) };
  const { parsed_output } = await served.client.messages.parse({ ...asked, output_config: { format } });
  assert.deepEqual(parsed_output, { city: "Paris" });
  assert.deepEqual(served.engine.requests[0]!.constraint, { type: "json_schema", schema });
});

Deno.test("Anthropic's client: its key is taken, another is refused in its words", async () => {
  const { key, keys } = await keyed();
  await using served = serve({ reply: "Hello!" }, { keys });
  const message = await served.client.withOptions({ apiKey: key }).messages.create(asked);
  assert.equal(message.stop_reason, "end_turn");
  await assert.rejects(served.client.messages.create(asked), (error) => {
    assert(error instanceof AuthenticationError, String(error));
    assert.equal(error.type, "authentication_error");
    return true;
  });
});
