/**
 * The application behind a real listener, driven by the own clients of OpenAI and Ollama, and by sockets.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Ollama } from "ollama";
import OpenAI, { APIError, BadRequestError, NotFoundError } from "openai";
import { type Served, serveFake, until } from "../../tests/served.ts";
import type { FakeOptions } from "../engine/fake.ts";
import type { ResponseEvent, SocketErrorEvent } from "../protocol/mod.ts";
import type { AppOptions } from "./app.ts";

interface WithClient extends Served {
  client: OpenAI;
}

function serve(fake: FakeOptions = {}, options: Partial<AppOptions> = {}): WithClient {
  const served = serveFake(fake, options);
  const client = new OpenAI({ baseURL: `http://${served.host}/v1`, apiKey: "none", maxRetries: 0 });
  return { ...served, client };
}

const request = { model: "fake", messages: [{ role: "user" as const, content: "hi" }] };

Deno.test("OpenAI's client: whole", async () => {
  await using served = serve({ reply: "Hello, 🦙!" });
  const completion = await served.client.chat.completions.create({ ...request, temperature: 0 });
  assert.equal(completion.choices[0]!.message.content, "Hello, 🦙!");
  assert.equal(completion.choices[0]!.finish_reason, "stop");
  const { prompt_tokens, completion_tokens, total_tokens } = completion.usage!;
  assert.equal(prompt_tokens + completion_tokens, total_tokens);
  assert.deepEqual((await served.client.models.list()).data.map(({ id }) => id), ["fake"]);
  assert.equal((await served.client.models.retrieve("fake")).id, "fake");
});

Deno.test("OpenAI's client: stream with usage", async () => {
  await using served = serve({ reply: "one two three four" });
  const options = { stream: true, stream_options: { include_usage: true }, max_tokens: 3 } as const;
  const stream = await served.client.chat.completions.create({ ...request, ...options });
  const chunks = await Array.fromAsync(stream);
  assert.equal(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join(""), "one two three");
  assert.equal(chunks.at(-2)!.choices[0]!.finish_reason, "length");
  assert.equal(chunks.at(-1)!.usage!.completion_tokens, 3);
  assert(chunks.every(({ id, model, created }) => id === chunks[0]!.id && model === "fake" && created > 0));
});

Deno.test("OpenAI's client: its streaming helper assembles the reply", async () => {
  await using served = serve({ reply: "one two" });
  const stream = served.client.chat.completions.stream(request);
  assert.equal(await stream.finalContent(), "one two");
});

Deno.test("OpenAI's client: refusals arrive as its own errors", async () => {
  await using served = serve({ model: { contextLength: 8 } });
  const { completions } = served.client.chat;
  await assert.rejects(completions.create({ ...request, n: 17 }), (error) => {
    assert(error instanceof BadRequestError);
    assert.deepEqual([error.param, error.code], ["n", "invalid_value"]);
    return true;
  });
  await assert.rejects(completions.create({ ...request, model: "x" }), NotFoundError);
  for (const stream of [false, true]) {
    await assert.rejects(completions.create({ ...request, stream }), (error) => {
      assert(error instanceof BadRequestError);
      assert.equal(error.code, "context_length_exceeded");
      assert.match(error.message, /8 tokens, got \d+/);
      return true;
    });
  }
});

Deno.test("OpenAI's client: a failure inside a stream is thrown where it is read", async () => {
  await using served = serve({ tokenMs: 1 });
  const stream = await served.client.chat.completions.create({ ...request, stream: true });
  await assert.rejects(async () => {
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) await served.engine.close();
  }, (error) => error instanceof APIError && error.code === "closed");
});

Deno.test("OpenAI's client: embeddings, which it asks for as bytes", async () => {
  await using served = serve();
  const { embeddings } = served.client;
  const input = ["one", "two"];
  const reply = await embeddings.create({ model: "fake", input });
  assert.deepEqual([reply.object, reply.model, reply.usage.prompt_tokens], ["list", "fake", 8]);
  const vectors = await Promise.all(input.map((text) => served.engine.embed({ prompt: [text] })));
  assert.deepEqual(
    reply.data.map(({ embedding }) => Float32Array.from(embedding)),
    vectors.map(({ values }) => values),
  );
  const floats = await embeddings.create({ model: "fake", input: "one", encoding_format: "float", dimensions: 3 });
  assert.equal(floats.data[0]!.embedding.length, 3);
  await assert.rejects(embeddings.create({ model: "fake", input: "" }), BadRequestError);
});

const tools = [{
  type: "function" as const,
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
}];
const call = (city: string) => `<tool_call>\n{"name": "weather", "arguments": {"city": "${city}"}}\n</tool_call>`;

Deno.test("OpenAI's client: its streaming helper assembles calls of functions", async () => {
  await using served = serve({ reply: `Let me see. ${call("Bonn")}\n${call("Köln")}` });
  const stream = served.client.chat.completions.stream({ ...request, tools });
  const done: string[] = [];
  stream.on(
    "tool_calls.function.arguments.done",
    ({ index, name, arguments: args }) => done.push(`${index}${name}${args}`),
  );
  const { choices: [choice] } = await stream.finalChatCompletion();
  assert.deepEqual(done, ['0weather{"city": "Bonn"}', '1weather{"city": "Köln"}']);
  assert.deepEqual([choice!.message.content, choice!.finish_reason], ["Let me see.", "tool_calls"]);
  assert.deepEqual(choice!.message.tool_calls!.map(({ type }) => type), ["function", "function"]);
});

Deno.test("OpenAI's client: runTools calls functions and gives their results to the model", async () => {
  for (const stream of [false, true]) {
    await using served = serve({
      reply: ({ prompt }) => prompt.join("").includes("<tool_response>") ? "It is dry." : call("Bonn"),
    });
    const asked: unknown[] = [];
    const weather = {
      type: "function" as const,
      function: {
        name: "weather",
        description: "of a city",
        parameters: tools[0]!.function.parameters,
        parse: JSON.parse,
        function: (args: unknown) => {
          asked.push(args);
          return "dry";
        },
      },
    };
    const { completions } = served.client.chat;
    const runner = stream
      ? completions.runTools({ ...request, stream, tools: [weather] })
      : completions.runTools({ ...request, tools: [weather] });
    assert.equal(await runner.finalContent(), "It is dry.");
    assert.deepEqual(asked, [{ city: "Bonn" }]);
    const last = served.engine.requests.at(-1)!.prompt.join("");
    assert(last.includes(call("Bonn")) && last.includes("<tool_response>\ndry\n</tool_response>"), last);
  }
});

Deno.test("OpenAI's client: parsed output, several choices, log probabilities", async () => {
  await using served = serve({ reply: '{"a": 1}' });
  const schema = {
    type: "object",
    properties: { a: { type: "number" } },
    required: ["a"],
    additionalProperties: false,
  };
  const { completions } = served.client.chat;
  const parsed = await completions.parse({
    ...request,
    response_format: { type: "json_schema", json_schema: { name: "x", schema, strict: true } },
  });
  assert.deepEqual(parsed.choices[0]!.message.parsed, { a: 1 });
  assert.deepEqual(served.engine.requests[0]!.constraint, { type: "json_schema", schema });
  const stream = completions.stream({ ...request, n: 2, logprobs: true, top_logprobs: 2 });
  const whole = await stream.finalChatCompletion();
  assert.deepEqual(whole.choices.map(({ message }) => message.content), ['{"a": 1}', '{"a": 1}']);
  for (const { logprobs } of whole.choices) {
    assert.equal(logprobs!.content!.map(({ token }) => token).join(""), '{"a": 1}');
    assert(logprobs!.content!.every(({ top_logprobs }) => top_logprobs.length === 2));
  }
});

const rawRequest = { model: "fake", prompt: "hi" };

Deno.test("OpenAI's client: text completions, whole, several prompts and choices", async () => {
  await using served = serve({ reply: ({ prompt }) => `${prompt.join("")}: one two` });
  const { completions } = served.client;
  const one = await completions.create({ ...rawRequest, temperature: 0, user: "u" });
  assert.deepEqual(one.choices, [{ index: 0, text: "hi: one two", logprobs: null, finish_reason: "stop" }]);
  const { prompt_tokens, completion_tokens, total_tokens } = one.usage!;
  assert.deepEqual([prompt_tokens, completion_tokens, total_tokens], [3, 3, 6]);
  const several = await completions.create({ ...rawRequest, prompt: ["a", "bc"], n: 2, echo: true, max_tokens: 2 });
  assert.deepEqual(
    several.choices.map(({ index, text, finish_reason }) => [index, text, finish_reason]),
    ["aa: one", "aa: one", "bcbc: one", "bcbc: one"].map((text, index) => [index, text, "length"]),
  );
  assert.equal(several.usage!.prompt_tokens, 5);
});

Deno.test("OpenAI's client: text completions, streamed with usage", async () => {
  await using served = serve({ reply: "one two three", tokenMs: 1 });
  const options = { stream: true, stream_options: { include_usage: true }, n: 2, echo: true } as const;
  const stream = await served.client.completions.create({ ...rawRequest, ...options });
  const texts = ["", ""];
  const chunks = await Array.fromAsync(stream);
  for (const { choices: [choice] } of chunks) if (choice) texts[choice.index] += choice.text;
  assert.deepEqual(texts, ["hione two three", "hione two three"]);
  assert.deepEqual(chunks.at(-1)!.choices, []);
  assert.deepEqual(chunks.at(-1)!.usage, { prompt_tokens: 3, completion_tokens: 6, total_tokens: 9 });
  assert(
    chunks.every(({ id, model, object }) => id === chunks[0]!.id && model === "fake" && object === chunks[0]!.object),
  );
});

Deno.test("OpenAI's client: text completions, refusals and failures arrive as its own errors", async () => {
  await using served = serve({ tokenMs: 1, model: { contextLength: 8 } });
  const { completions } = served.client;
  const refuse = (fields: Record<string, unknown>, code: string, param: string) =>
    assert.rejects(completions.create({ ...rawRequest, ...fields }), (error) => {
      assert(error instanceof BadRequestError, String(error));
      assert.deepEqual([error.code, error.param], [code, param]);
      return true;
    });
  for (const stream of [false, true]) {
    await refuse({ stream, prompt: ["a", "12345678"] }, "context_length_exceeded", "prompt");
    await refuse({ stream, suffix: "x" }, "unsupported_value", "suffix");
  }
  const stream = await completions.create({ ...rawRequest, stream: true, n: 2 });
  await assert.rejects(async () => {
    for await (const chunk of stream) if (chunk.choices[0]?.text) await served.engine.close();
  }, (error) => error instanceof APIError && error.code === "closed");
});

Deno.test("leaving text completions frees the engine of all their choices", async () => {
  await using served = serve({ tokenMs: 5, reply: Array(1000).fill("word "), maxRunning: 2 });
  const { client, engine } = served;
  for (const stream of [true, false]) {
    const leave = new AbortController();
    const options = { ...rawRequest, max_tokens: 1000, n: 4, stream };
    const reply = client.completions.create(options, { signal: leave.signal });
    await until(() => engine.stats().running === 2 && engine.stats().waiting === 2);
    leave.abort();
    await Promise.allSettled([reply]);
    await until(() => engine.stats().running + engine.stats().waiting === 0);
  }
  const stream = await client.completions.create({ ...rawRequest, max_tokens: 1000, n: 4, stream: true });
  for await (const chunk of stream) if (chunk.choices[0]?.text) break;
  await until(() => engine.stats().running + engine.stats().waiting === 0);
  assert(engine.stats().generatedTokens < 500);
});

Deno.test("leaving a stream or a whole reply, early or late, frees the engine", async () => {
  const endless = Array(1000).fill("word ");
  await using served = serve({ tokenMs: 5, reply: endless, maxRunning: 1 });
  const { engine, client } = served;
  for (const stream of [true, false]) {
    const leave = new AbortController();
    const reply = client.chat.completions.create({ ...request, stream }, { signal: leave.signal });
    await until(() => engine.stats().running === 1);
    const queued = client.chat.completions.create({ ...request, stream }, { signal: leave.signal });
    await until(() => engine.stats().waiting === 1);
    leave.abort();
    await Promise.allSettled([reply, queued]);
    await until(() => engine.stats().running + engine.stats().waiting === 0);
  }
  const stream = await client.chat.completions.create({ ...request, stream: true });
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
  await until(() => engine.stats().running === 0);
  assert(engine.stats().generatedTokens < 100);
});

Deno.test("leaving is noticed however the request arrived", async () => {
  await using served = serve({ tokenMs: 5, reply: Array(1000).fill("word ") });
  const { engine, host } = served;
  for (const stream of [false, true]) {
    const body = JSON.stringify({ ...request, stream });
    const framed = { "content-length": `${body.length}`, "transfer-encoding": "chunked" };
    for (const [name, value] of Object.entries(framed)) {
      for (const pauseMs of [0, 20]) {
        using connection = await connect(host);
        const sent = name === "content-length" ? body : `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
        await post(connection, [`Host: ${host}`, `${name}: ${value}`], sent, pauseMs);
        await until(() => engine.stats().running === 1);
        // The head is on its way by then, and nothing else keeps the reply going.
        connection.close();
        await until(() => engine.stats().running === 0);
      }
    }
  }
  assert(engine.stats().generatedTokens < 1000);
});

async function connect(host: string): Promise<Deno.TcpConn> {
  const [hostname, port] = host.split(":");
  return await Deno.connect({ hostname, port: Number(port) });
}

/** Sends a request in two packets, `pauseMs` apart. */
async function post(connection: Deno.TcpConn, headers: string[], body: string, pauseMs: number): Promise<void> {
  const encoder = new TextEncoder();
  const lines = ["POST /v1/chat/completions HTTP/1.1", "content-type: application/json", ...headers, "", ""];
  await connection.write(encoder.encode(lines.join("\r\n")));
  await new Promise((resolve) => setTimeout(resolve, pauseMs));
  await connection.write(encoder.encode(body));
}

const messages = [{ role: "user", content: "hi" }];

function ollama({ host }: Served): Ollama {
  return new Ollama({ host: `http://${host}` });
}

Deno.test("Ollama's client: whole, and what is said of the model", async () => {
  await using served = serve({ reply: "Hello, 🦙!" });
  const client = ollama(served);
  const chatted = await client.chat({ model: "fake", messages, options: { temperature: 0, num_ctx: 2048 } });
  assert.deepEqual(chatted.message, { role: "assistant", content: "Hello, 🦙!" });
  assert.deepEqual([chatted.done, chatted.done_reason, chatted.eval_count], [true, "stop", 2]);
  assert(chatted.total_duration >= chatted.prompt_eval_duration + chatted.eval_duration);
  const options = { num_predict: 1 };
  const generated = await client.generate({ model: "fake:latest", prompt: "hi", system: "be brief", options });
  assert.deepEqual([generated.response, generated.done_reason], ["Hello,", "length"]);
  assert.equal((await client.generate({ model: "fake", prompt: "" })).done_reason, "load");
  assert.deepEqual((await client.list()).models.map(({ name }) => name), ["fake"]);
  assert.deepEqual((await client.show({ model: "fake" })).capabilities, ["completion", "tools"]);
  assert.match((await client.version()).version, /^\d+\.\d+\.\d+/);
});

Deno.test("Ollama's client: vectors", async () => {
  await using served = serve();
  const client = ollama(served);
  const { embeddings, prompt_eval_count } = await client.embed({
    model: "fake",
    input: ["one", "two"],
    truncate: true,
  });
  assert.deepEqual([embeddings.length, embeddings[0]!.length, prompt_eval_count], [2, 8, 8]);
  assert.deepEqual((await client.embeddings({ model: "fake", prompt: "one" })).embedding, embeddings[0]);
});

Deno.test("Ollama's client: streamed", async () => {
  await using served = serve({ reply: "one two three four" });
  const client = ollama(served);
  const options = { num_predict: 3 };
  const chatted = await Array.fromAsync(await client.chat({ model: "fake", messages, stream: true, options }));
  assert.equal(chatted.map(({ message }) => message.content).join(""), "one two three");
  assert.deepEqual(chatted.map(({ done }) => done), [false, false, false, true]);
  assert.deepEqual([chatted.at(-1)!.done_reason, chatted.at(-1)!.eval_count], ["length", 3]);
  const raw = { prompt: "1, 2,", raw: true, options: { stop: ["four"] } };
  const generated = await Array.fromAsync(await client.generate({ model: "fake", stream: true, ...raw }));
  assert.equal(generated.map(({ response }) => response).join(""), "one two three ");
  assert.equal(generated.at(-1)!.done_reason, "stop");
  assert.deepEqual(served.engine.requests.at(-1)!.prompt, ["1, 2,"]);
});

Deno.test("Ollama's client: functions, their results, and JSON", async () => {
  await using served = serve({
    reply: ({ prompt, constraint }) =>
      constraint ? '{"a": 1}' : prompt.join("").includes("<tool_response>") ? "It is dry." : call("Bonn"),
  });
  const client = ollama(served);
  const { message } = await client.chat({ model: "fake", messages, tools });
  assert.deepEqual(message.tool_calls, [{ function: { name: "weather", arguments: { city: "Bonn" } } }]);
  const result = { role: "tool", content: "dry", tool_name: "weather" };
  const next = await client.chat({ model: "fake", messages: [...messages, message, result], tools });
  assert.equal(next.message.content, "It is dry.");
  const json = await client.generate({ model: "fake", prompt: "hi", format: { type: "object" } });
  assert.deepEqual(JSON.parse(json.response!), { a: 1 });
});

Deno.test("Ollama's client: a stream with silences is read without a warning", async () => {
  await using served = serve({ reply: "one two", tokenMs: 30 }, { keepAliveMs: 5 });
  const warn = console.warn;
  const warnings: unknown[] = [];
  console.warn = (...words) => void warnings.push(words);
  try {
    const lines = await Array.fromAsync(await ollama(served).chat({ model: "fake", messages, stream: true }));
    assert.equal(lines.map(({ message }) => message.content).join(""), "one two");
  } finally {
    console.warn = warn;
  }
  assert.deepEqual(warnings, []);
});

Deno.test("Ollama's client: abort frees the engine", async () => {
  await using served = serve({ tokenMs: 5, reply: Array(1000).fill("word ") });
  const { engine } = served;
  const client = ollama(served);
  const stream = await client.generate({ model: "fake", prompt: "hi", stream: true });
  await assert.rejects(async () => {
    for await (const line of stream) if (line.response) stream.abort();
  }, { name: "AbortError" });
  await until(() => engine.stats().running === 0);
  const chat = client.chat({ model: "fake", messages, stream: true });
  await until(() => engine.stats().running === 1);
  const reading = Array.fromAsync(await chat);
  client.abort();
  await assert.rejects(reading, { name: "AbortError" });
  await until(() => engine.stats().running === 0);
  assert(engine.stats().generatedTokens < 200);
});

Deno.test("Ollama's client: refusals arrive as its own errors, a failure inside a stream where it is read", async () => {
  await using served = serve({ tokenMs: 1, model: { contextLength: 64 } });
  const client = ollama(served);
  const refused = (status_code: number, message: RegExp) => ({ name: "ResponseError", status_code, message });
  for (const stream of [false, true]) {
    const asked = { model: "fake", messages, stream: stream as true };
    await assert.rejects(client.chat({ ...asked, model: "x" }), refused(404, /expected "fake", got "x"$/));
    await assert.rejects(client.chat({ ...asked, format: "xml" }), refused(400, /^format: .* got "xml"$/));
    const long = [{ role: "user", content: "x".repeat(64) }];
    await assert.rejects(client.chat({ ...asked, messages: long }), refused(400, /fewer than 64 tokens, got \d+$/));
  }
  await assert.rejects(client.pull({ model: "fake" }), refused(404, /unknown one$/));
  const stream = await client.chat({ model: "fake", messages, stream: true });
  await assert.rejects(async () => {
    for await (const line of stream) if (line.message.content) await served.engine.close();
  }, /^Error: generating: the engine was closed$/);
});

type ServerEvent = ResponseEvent | SocketErrorEvent;

/** A client's end of a socket. */
class Client implements Disposable {
  readonly events: ServerEvent[] = [];
  readonly #socket: WebSocket;

  constructor(host: string) {
    this.#socket = new WebSocket(`ws://${host}/v1/responses`);
    this.#socket.onmessage = ({ data }) => this.events.push(JSON.parse(data));
  }

  async send(frame: unknown): Promise<void> {
    await until(() => this.#socket.readyState === WebSocket.OPEN);
    this.#socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  async ended(): Promise<ServerEvent> {
    const last = () => this.events.findLast(({ type }) => /completed|incomplete|cancelled|failed/.test(type));
    await until(() => last() !== undefined);
    return last()!;
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

const create = { type: "response.create", model: "fake", input: "hi" };

Deno.test("WebSocket: a response, after a frame that was refused", async () => {
  await using served = serve({ reply: "one two" });
  using client = new Client(served.host);
  await client.send("{oops");
  await client.send(create);
  const last = await client.ended();
  assert(last.type === "response.completed");
  assert.partialDeepStrictEqual(last.response.output, [{ content: [{ text: "one two" }] }]);
  assert.equal(client.events[0]!.type, "error");
});

Deno.test("WebSocket: cancel by name, and closing cancels what is left", async () => {
  await using served = serve({ tokenMs: 5, reply: Array(1000).fill("word ") });
  {
    using client = new Client(served.host);
    await client.send(create);
    await client.send(create);
    await until(() => served.engine.stats().running === 2);
    const first = client.events.find(({ type }) => type === "response.created")!;
    assert(first.type !== "error");
    await client.send({ type: "response.cancel", response_id: first.response_id });
    const last = await client.ended();
    assert.equal(last.type, "response.cancelled");
    await until(() => served.engine.stats().running === 1);
  }
  await until(() => served.engine.stats().running === 0);
});

Deno.test("WebSocket: a page of another site and a plain request are refused", async () => {
  await using served = serve();
  const url = `http://${served.host}/v1/responses`;
  const plain = await fetch(url);
  assert.deepEqual([plain.status, plain.headers.get("upgrade")], [426, "websocket"]);
  assert.equal((await plain.json()).error.code, "upgrade_required");
  // fetch may not set these headers, so the request is written out.
  const handshake = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"];
  handshake.push("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Origin: https://evil.test");
  assert.match(await raw(served.host, `Host: ${served.host}`, ...handshake), /^HTTP\/1.1 403 .*origin_not_allowed/s);
  assert.match(await raw(served.host, "Host: evil.test"), /^HTTP\/1.1 403 .*host_not_allowed/s);
});

/** The start of the answer to a request of these headers. */
async function raw(host: string, ...headers: string[]): Promise<string> {
  using connection = await connect(host);
  const text = ["GET /v1/responses HTTP/1.1", ...headers, "", ""].join("\r\n");
  await connection.write(new TextEncoder().encode(text));
  const buffer = new Uint8Array(4096);
  let answer = "";
  while (!answer.includes("}")) {
    const count = await connection.read(buffer);
    if (count === null) break;
    answer += new TextDecoder().decode(buffer.subarray(0, count));
  }
  return answer;
}
