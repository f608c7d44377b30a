/**
 * The AI SDK (npm `ai`) with its provider for OpenAI's API elsewhere, as they are, against the application behind a real
 * listener.
 *
 * @module
 */

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import type { GenerateRequest } from "../src/engine/engine.ts";
import type { FakeOptions } from "../src/engine/fake.ts";
import { serveFake, until } from "./served.ts";

function serve(fake: FakeOptions = {}) {
  const served = serveFake(fake);
  const provider = createOpenAICompatible({
    name: "llamero",
    baseURL: `http://${served.host}/v1`,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
  return { ...served, model: provider("fake"), maxRetries: 0 };
}

Deno.test("AI SDK: generateText", async () => {
  await using served = serve({ reply: "Hello, 🦙!" });
  const sampling = { temperature: 0, topP: 0.5, seed: 3, maxOutputTokens: 20, stopSequences: ["END"] };
  const { text, finishReason, usage } = await generateText({
    ...served,
    ...sampling,
    instructions: "be brief",
    prompt: "hi",
  });
  assert.deepEqual([text, finishReason], ["Hello, 🦙!", "stop"]);
  assert.equal(usage.outputTokens, 2);
  const { prompt, maxTokens, stop, sampling: asked } = served.engine.requests[0]!;
  assert.equal(prompt.join(""), "system:be brief\nuser:hi\n");
  assert.deepEqual([maxTokens, stop!.includes("END")], [20, true]);
  assert.partialDeepStrictEqual(asked, { temperature: 0, topP: 0.5, seed: 3 });
});

Deno.test("AI SDK: streamText", async () => {
  await using served = serve({ reply: "one two three four" });
  const result = streamText({ ...served, prompt: "hi", maxOutputTokens: 3 });
  assert.deepEqual(await Array.fromAsync(result.textStream), ["one", " two", " three"]);
  assert.equal(await result.finishReason, "length");
  assert.equal((await result.usage).outputTokens, 3);
});

Deno.test("AI SDK: a conversation", async () => {
  await using served = serve({ reply: "fine" });
  const messages = [
    { role: "user" as const, content: "a" },
    { role: "assistant" as const, content: "b" },
    { role: "user" as const, content: [{ type: "text" as const, text: "c" }] },
  ];
  assert.equal((await generateText({ ...served, messages })).text, "fine");
  assert.equal(served.engine.requests[0]!.prompt.join(""), "user:a\nassistant:b\nuser:c\n");
});

Deno.test("AI SDK: refusals arrive as its own errors, a failure inside a stream where it is read", async () => {
  await using served = serve({ model: { contextLength: 32 }, tokenMs: 1 });
  await assert.rejects(generateText({ ...served, prompt: "x".repeat(32) }), (error) => {
    assert(APICallError.isInstance(error), String(error));
    assert.equal(error.statusCode, 400);
    assert.match(error.message, /fewer than 32 tokens, got \d+/);
    return true;
  });
  const errors: unknown[] = [];
  const result = streamText({ ...served, prompt: "hi", onError: ({ error }) => void errors.push(error) });
  for await (const part of result.fullStream) if (part.type === "text-delta") await served.engine.close();
  assert.match(String(errors[0]), /closed/);
});

Deno.test("AI SDK: abort frees the engine", async () => {
  await using served = serve({ tokenMs: 5, reply: Array(1000).fill("word ") });
  const leave = new AbortController();
  const result = streamText({ ...served, prompt: "hi", abortSignal: leave.signal });
  for await (const part of result.fullStream) if (part.type === "text-delta") leave.abort();
  await until(() => served.engine.stats().running === 0);
  assert(served.engine.stats().generatedTokens < 100);
});

/** Calls the tool, and when it has the result, says it. */
function callThenSay({ prompt }: GenerateRequest): string {
  const result = prompt.join("").match(/<tool_response>\n(.*)\n<\/tool_response>/)?.[1];
  if (result !== undefined) return `It is ${result}.`;
  return `<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>`;
}

Deno.test("AI SDK: a tool is called and its result said, whole and streamed", async () => {
  await using served = serve({ reply: callThenSay });
  const cities: string[] = [];
  const weather = tool({
    description: "The weather of a city",
    inputSchema: z.object({ city: z.string() }),
    execute: ({ city }) => {
      cities.push(city);
      return "sunny";
    },
  });
  const options = { ...served, prompt: "How is Paris?", tools: { weather }, stopWhen: stepCountIs(3) };
  const { text, steps } = await generateText(options);
  assert.equal(text, "It is sunny.");
  assert.deepEqual(steps.map(({ finishReason }) => finishReason), ["tool-calls", "stop"]);
  const streamed = streamText(options);
  await streamed.consumeStream();
  assert.deepEqual([await streamed.text, cities], ["It is sunny.", ["Paris", "Paris"]]);
});

Deno.test("AI SDK: an object of a schema", async () => {
  await using served = serve({ reply: '{"city": "Paris"}' });
  const output = Output.object({ schema: z.object({ city: z.string() }) });
  const { output: found } = await generateText({ ...served, prompt: "Which city?", output });
  assert.deepEqual(found, { city: "Paris" });
  const { constraint } = served.engine.requests[0]!;
  assert(constraint?.type === "json_schema", constraint?.type);
  assert.partialDeepStrictEqual(constraint.schema, { properties: { city: { type: "string" } } });
});

Deno.test("AI SDK: thoughts are apart from the text", async () => {
  await using served = serve({ reply: "<think>\nHm, well.\n</think>\n\nFine." });
  const { text, reasoningText } = await generateText({ ...served, prompt: "hi" });
  assert.deepEqual([text, reasoningText], ["Fine.", "Hm, well."]);
});
