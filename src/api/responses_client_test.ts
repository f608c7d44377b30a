/** The Responses API as OpenAI's own client drives it, over HTTP and over a socket. */
import assert from "node:assert/strict";
import OpenAI, { APIError, BadRequestError, NotFoundError } from "openai";
import type { ResponsesServerEvent } from "openai/resources/responses/responses";
import { ResponsesWS } from "openai/resources/responses/ws";
import { type Served, serveFake, until } from "../../tests/served.ts";
import type { FakeOptions } from "../engine/fake.ts";
import type { AppOptions } from "./app.ts";
import { KeyRing, plainKey } from "./keys.ts";

function serve(fake: FakeOptions = {}, options: Partial<AppOptions> = {}, apiKey = "none") {
  const served: Served = serveFake(fake, options);
  const client = new OpenAI({ baseURL: `http://${served.host}/v1`, apiKey, maxRetries: 0 });
  return { ...served, client };
}

const asked = { model: "fake", input: "hi" };
const call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Jena"}}\n</tool_call>';
const tools = [{
  type: "function" as const,
  name: "weather",
  parameters: { type: "object", properties: { city: { type: "string" } } },
  strict: false,
}];

Deno.test("OpenAI's client: a response, had again, its input, and taken away", async () => {
  await using served = serve({ reply: "Hello, 🦙!" });
  const { responses } = served.client;
  const response = await responses.create({ ...asked, metadata: { a: "b" } });
  assert.deepEqual([response.output_text, response.status, response.metadata], ["Hello, 🦙!", "completed", { a: "b" }]);
  assert.equal((await responses.retrieve(response.id)).output_text, "Hello, 🦙!");
  const items = await Array.fromAsync(responses.inputItems.list(response.id, { limit: 1 }));
  assert.deepEqual(items.map(({ type }) => type), ["message"]);
  const { input_tokens } = await responses.inputTokens.count({ ...asked, previous_response_id: response.id });
  assert(input_tokens! > response.usage!.input_tokens);
  await responses.delete(response.id);
  await assert.rejects(async () => await responses.retrieve(response.id), (error) => {
    assert(error instanceof NotFoundError);
    return error.code === "response_not_found";
  });
});

Deno.test("OpenAI's client: a stream, its helpers", async () => {
  await using served = serve({ reply: "one two" });
  const { responses } = served.client;
  const events = await Array.fromAsync(await responses.create({ ...asked, stream: true }));
  assert.deepEqual(events.map(({ sequence_number }) => sequence_number), [...events.keys()]);
  const helper = responses.stream(asked);
  let text = "";
  helper.on("response.output_text.delta", ({ delta }) => text += delta);
  assert.deepEqual([(await helper.finalResponse()).output_text, text], ["one two", "one two"]);
  const parsed = await responses.parse({ ...asked, text: { format: { type: "json_object" } } });
  assert.equal(parsed.output_text, "one two");
});

Deno.test("OpenAI's client: a call of a function, its result, and what the model makes of it", async () => {
  const reply: FakeOptions["reply"] = ({ prompt }) => prompt.join("").includes("sunny") ? "It is sunny." : call;
  await using served = serve({ reply });
  const { responses } = served.client;
  const helper = responses.stream({ ...asked, tools });
  let args = "";
  helper.on("response.function_call_arguments.delta", ({ delta }) => args += delta);
  const first = await helper.finalResponse();
  const [item] = first.output;
  assert(item?.type === "function_call");
  assert.deepEqual([item.name, JSON.parse(item.arguments), args], ["weather", { city: "Jena" }, item.arguments]);
  const output = { type: "function_call_output" as const, call_id: item.call_id, output: "sunny" };
  const second = await responses.create({ ...asked, tools, previous_response_id: first.id, input: [output] });
  assert.equal(second.output_text, "It is sunny.");
});

Deno.test("OpenAI's client: what a model thinks is an item, and log probabilities come where they are asked for", async () => {
  await using served = serve({ reply: ["<think>", "hm", "</think>", "yes"] });
  const include = ["message.output_text.logprobs" as const];
  const helper = served.client.responses.stream({ ...asked, include, top_logprobs: 1 });
  const { output, output_text } = await helper.finalResponse();
  assert.deepEqual([output.map(({ type }) => type), output_text], [["reasoning", "message"], "yes"]);
  const message = output[1]!;
  assert(message.type === "message");
  const [part] = message.content;
  assert(part?.type === "output_text");
  const [token] = part.logprobs!;
  assert.deepEqual([token!.token, token!.top_logprobs.length], ["yes", 1]);
});

Deno.test("OpenAI's client: in the background, watched, resumed and cancelled", async () => {
  await using served = serve({ tokenMs: 1, reply: Array(10_000).fill("word ") });
  const { responses } = served.client;
  const { id, status } = await responses.create({ ...asked, background: true });
  assert.equal(status, "queued");
  const seen: number[] = [];
  for await (const event of await responses.retrieve(id, { stream: true })) {
    if (seen.push(event.sequence_number) === 10) break;
  }
  const rest = await responses.retrieve(id, { stream: true, starting_after: seen.at(-1)! });
  const cancelled = await responses.cancel(id);
  assert.deepEqual([cancelled.status, textOf(cancelled).startsWith("word word")], ["cancelled", true]);
  for await (const event of rest) seen.push(event.sequence_number);
  assert.deepEqual(seen, [...seen.keys()]);
  assert.equal((await responses.cancel(id)).status, "cancelled");
  await until(() => served.engine.stats().running === 0);
});

Deno.test("OpenAI's client: refusals arrive as its own errors, a failure of the engine as the last event", async () => {
  await using served = serve({ model: { contextLength: 64 }, reply: "one two three", tokenMs: 5 });
  const { responses } = served.client;
  const refused = (promise: Promise<unknown>, param: string | null, code: string) =>
    assert.rejects(promise, (error) => {
      assert(error instanceof BadRequestError, String(error));
      assert.deepEqual([error.param, error.code], [param, code]);
      return true;
    });
  const long = { ...asked, input: "x".repeat(64) };
  await refused(responses.create(long), "input", "context_length_exceeded");
  await refused(responses.create({ ...long, stream: true }), "input", "context_length_exceeded");
  await refused(responses.create({ ...asked, top_p: 0 }), "top_p", "invalid_value");
  const unknown = { ...asked, previous_response_id: "resp_0" };
  await refused(responses.create(unknown), "previous_response_id", "previous_response_not_found");
  await assert.rejects(async () => {
    for await (const event of await responses.create({ ...asked, stream: true })) {
      if (event.type === "response.created") await served.engine.close();
      if (event.type === "response.failed") throw new Error(event.response.error!.code);
    }
  }, /^Error: closed$/);
  await assert.rejects(async () => await responses.create(asked), (error) => error instanceof APIError);
});

/** An event of a response, with what we add. */
type Numbered = ResponsesServerEvent & { sequence_number: number; response_id: string };

/** A socket of OpenAI's client, and what came over it. */
class Client implements Disposable {
  readonly events: ResponsesServerEvent[] = [];
  readonly errors: string[] = [];
  readonly socket: ResponsesWS;
  closed: number | undefined;

  constructor(client: OpenAI) {
    this.socket = new ResponsesWS(client);
    this.socket.on("event", (event) => this.events.push(event));
    this.socket.on("error", (error) => this.errors.push(error.message));
    this.socket.on("close", (code) => this.closed = code);
  }

  /** Creates a response; the answer is its terminal event. */
  async create(fields: Record<string, unknown> = {}) {
    const before = this.ended().length;
    this.socket.send({ type: "response.create", ...asked, ...fields });
    await until(() => this.ended().length > before || this.errors.length > 0);
    return this.ended().at(-1)!;
  }

  ended() {
    const terminal = ["response.completed", "response.incomplete", "response.failed", "response.cancelled"];
    return this.events.filter(({ type }) => terminal.includes(type!)) as { response: OpenAI.Responses.Response }[];
  }

  [Symbol.dispose](): void {
    this.socket.close();
  }
}

function textOf({ output }: OpenAI.Responses.Response): string {
  return output.flatMap((item) => item.type === "message" ? item.content : []).map((part) =>
    part.type === "output_text" ? part.text : ""
  ).join("");
}

Deno.test("OpenAI's socket: only new input is sent, and nothing has to be stored", async () => {
  await using served = serve({ reply: "yes" });
  using client = new Client(served.client);
  const first = await client.create({ input: "one", store: false });
  const second = await client.create({ input: "two", store: false, previous_response_id: first.response.id });
  assert.equal(textOf(second.response), "yes");
  assert.equal(served.engine.requests[1]!.prompt.join(""), "user:one\nassistant:yes\nuser:two\n");
  assert.deepEqual(client.errors, []);
});

Deno.test("OpenAI's socket: lanes side by side, each in its order", async () => {
  await using served = serve({ reply: "one two three", tokenMs: 1 });
  using client = new Client(served.client);
  for (const stream_id of ["a", "b", "a", "b"]) client.socket.send({ type: "response.create", ...asked, stream_id });
  await until(() => client.ended().length === 4);
  for (const lane of ["a", "b"]) {
    const own = client.events.filter((event) => "stream_id" in event && event.stream_id === lane);
    const marks = own.flatMap(({ type }) => /created|completed/.test(type!) ? [type!.slice(9)] : []);
    assert.deepEqual(marks, ["created", "completed", "created", "completed"]);
  }
  const lanes = client.events.map((event) => "stream_id" in event ? event.stream_id : "");
  assert(lanes.indexOf("b") < lanes.lastIndexOf("a") && lanes.indexOf("a") < lanes.lastIndexOf("b"));
});

Deno.test("OpenAI's socket: a refusal is its error and no end; a dropped socket is resumed on another", async () => {
  await using served = serve({ reply: Array(200).fill("word "), tokenMs: 2 });
  const lost = new Client(served.client);
  lost.socket.send({ type: "response.create", ...asked, temperature: 3 });
  await until(() => lost.errors.length === 1);
  assert.match(lost.errors[0]!, /^temperature: expected a number from 0 to 2, got 3$/);
  lost.socket.sendRaw(JSON.stringify({ type: "response.create", ...asked, on_disconnect: "continue" }));
  await until(() => lost.events.length > 20);
  lost[Symbol.dispose]();
  const numbered = ({ events }: Client) => events.flatMap((event) => "response_id" in event ? [event as Numbered] : []);
  const seen = numbered(lost);
  using client = new Client(served.client);
  const { sequence_number: starting_after, response_id } = seen.at(-1)!;
  client.socket.sendRaw(JSON.stringify({ type: "response.resume", response_id, starting_after }));
  await until(() => client.ended().length === 1);
  const all = [...seen, ...numbered(client)].map(({ sequence_number }) => sequence_number);
  assert.deepEqual(all, [...all.keys()]);
  assert.equal(textOf(client.ended()[0]!.response), "word ".repeat(200));
});

Deno.test("OpenAI's socket: the key goes in the head of the upgrade; without one, in the first message or not at all", async () => {
  const keys = new KeyRing([await plainKey("alice", "secret")]);
  await using served = serve({ reply: "yes" }, { keys }, "secret");
  using client = new Client(served.client);
  assert.equal(textOf((await client.create()).response), "yes");
  const create = { type: "response.create", ...asked };
  const show = (api_key: string) => ({ type: "session.update", api_key });
  assert.equal(await overPlain(served.host, [], [show("secret"), create]), "response.completed");
  assert.equal(await overPlain(served.host, [], [show("wrong"), create]), "closed 1008");
  assert.equal(await overPlain(served.host, [], [create]), "closed 1008");
  const protocols = ["openai-insecure-api-key.secret", "realtime"];
  assert.equal(await overPlain(served.host, protocols, [create]), "response.completed");
});

/** How frames end that are sent over a socket without headers; of its subprotocols none with a key is answered. */
async function overPlain(host: string, protocols: string[], frames: object[]): Promise<string> {
  const socket = new WebSocket(`ws://${host}/v1/responses`, protocols);
  const { promise, resolve } = Promise.withResolvers<string>();
  socket.onopen = () => frames.forEach((frame) => socket.send(JSON.stringify(frame)));
  socket.onmessage = ({ data }) => {
    const { type } = JSON.parse(data);
    if (type === "response.completed") resolve(type);
  };
  socket.onclose = ({ code }) => resolve(`closed ${code}`);
  const end = await promise;
  assert.equal(socket.protocol, protocols.at(-1) ?? "");
  const closed = new Promise((resolve) => socket.onclose = resolve);
  if (socket.readyState === WebSocket.OPEN) {
    socket.close();
    await closed;
  }
  return end;
}
