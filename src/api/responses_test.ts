import assert from "node:assert/strict";
import { EngineError, type GenerateEvent } from "../engine/engine.ts";
import type { Item, ResponseEvent, WireResponse } from "../protocol/mod.ts";
import { MemoryStore } from "../sessions/memory_store.ts";
import { MAX_BACKGROUND, RESPONSE_TTL_MS, RESUME_WINDOW_MS } from "../sessions/responses.ts";
import type { StoreKey, Write } from "../sessions/store.ts";
import type { AppOptions } from "./app.ts";
import {
  aborted,
  done,
  events,
  postRequest,
  said,
  type Script,
  testApp,
  TIMINGS,
  untilAborted,
} from "./test_support.ts";

const HEX = /^[0-9a-f]{32}$/;

/** An application whose clock a test moves, and whose ids count. */
function server(script: Script, options: Partial<AppOptions> = {}) {
  let id = 0;
  let now = 1_700_000_000_500;
  const clock = () => now;
  const newId = () => (++id).toString(16).padStart(32, "0");
  const store = new MemoryStore({ clock });
  const commit = store.commit.bind(store);
  const written: StoreKey[] = [];
  store.commit = (write: Write) => (written.push(write.key), commit(write));
  const { app, engine, log } = testApp(script, { clock, newId, store, ...options });
  return {
    app,
    engine,
    log,
    store,
    written,
    pass: (ms: number) => now += ms,
    post: (path: string, body: unknown, init: RequestInit = {}) => app.request(postRequest(path, body, init)),
    create: (fields: Record<string, unknown> = {}) =>
      app.request(postRequest("/v1/responses", { model: "org/model", input: "hi", ...fields })),
    get: (path: string) => app.request(`/v1/responses/${path}`),
    remove: (id: string) => app.request(`/v1/responses/${id}`, { method: "DELETE" }),
    cancel: (id: string) => app.request(`/v1/responses/${id}/cancel`, { method: "POST" }),
  };
}

async function json(response: Response | Promise<Response>, status = 200) {
  const text = await (await response).text();
  assert.equal((await response).status, status, text);
  return JSON.parse(text);
}

async function checkError(
  response: Response | Promise<Response>,
  status: number,
  code: string,
  param: string | null,
  words: RegExp,
) {
  const { error } = await json(response, status);
  assert.deepEqual([error.code, error.param], [code, param], error.message);
  assert.match(error.message, words);
}

/** The events of a stream, whose names are those of their data. */
function parsed(text: string): ResponseEvent[] {
  return text.split("\n\n").filter((block) => block.startsWith("event: ")).map((block) => {
    const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(block)!;
    const event = JSON.parse(data!);
    assert.equal(event.type, name);
    return event;
  });
}

async function streamed(response: Response | Promise<Response>): Promise<ResponseEvent[]> {
  const { headers, status } = await response;
  assert.deepEqual([status, headers.get("content-type")], [200, "text/event-stream"]);
  return parsed(await (await response).text());
}

function textOf(response: WireResponse): string {
  const parts = response.output.flatMap((item) => "role" in item && item.role === "assistant" ? item.content : []);
  return parts.map((part) => part.type === "output_text" ? part.text : "").join("");
}

const hello = events(said("Hel"), said("lo", 2), done());

/** Fails after some events. */
function failing(error: EngineError, ...before: GenerateEvent[]): Script {
  return async function* () {
    yield* before;
    throw error;
  };
}

/** Repeats its prompt, so that a test sees what the model was asked. */
const echo: Script = async function* ({ prompt }) {
  yield said(prompt.join(""));
  yield done();
};

Deno.test("a whole response has all fields that OpenAI's clients read, and can be had again", async () => {
  const { create, get, engine } = server(hello);
  const response = await json(create({ instructions: "be brief", metadata: { a: "b" }, temperature: 0 }));
  assert.match(response.id.slice(5), HEX);
  assert.deepEqual(response, {
    id: response.id,
    object: "response",
    created_at: 1_700_000_000,
    completed_at: 1_700_000_000,
    status: "completed",
    error: null,
    incomplete_details: null,
    model: "org/model",
    output: [{
      id: `msg_${response.id.slice(5)}0001`,
      type: "message",
      role: "assistant",
      status: "completed",
      content: [{ type: "output_text", text: "Hello", annotations: [] }],
    }],
    usage: {
      input_tokens: 3,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: 2,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 5,
    },
    background: false,
    conversation: null,
    instructions: "be brief",
    max_output_tokens: null,
    max_tool_calls: null,
    metadata: { a: "b" },
    parallel_tool_calls: true,
    previous_response_id: null,
    prompt_cache_key: null,
    reasoning: { effort: null, summary: null },
    safety_identifier: null,
    service_tier: "default",
    store: true,
    temperature: 0,
    text: { format: { type: "text" }, verbosity: "medium" },
    tool_choice: "auto",
    tools: [],
    top_logprobs: 0,
    top_p: null,
    truncation: "disabled",
    user: null,
    timings: TIMINGS,
  });
  assert.deepEqual(await json(get(response.id)), response);
  assert.equal(engine.calls[0]!.request.prompt.join(""), "system:be brief\nuser:hi\n");
});

Deno.test("a stream has named events and ends with the response; nothing follows", async () => {
  const { create, get } = server(hello);
  const all = await streamed(create({ stream: true }));
  assert.deepEqual(all.map(({ sequence_number }) => sequence_number), [...all.keys()]);
  const deltas = all.flatMap((event) => event.type === "response.output_text.delta" ? [event.delta] : []);
  assert.equal(deltas.join(""), "Hello");
  const last = all.at(-1)!;
  assert(last.type === "response.completed");
  assert.deepEqual(await json(get(last.response.id)), last.response);
});

Deno.test("a response continues another, with its input and output but not its instructions", async () => {
  const { create, engine } = server(hello);
  const first = await json(create({ instructions: "be brief", input: "one" }));
  const second = await json(create({ previous_response_id: first.id, input: "two" }));
  await json(create({ previous_response_id: second.id, input: "three", instructions: "be kind" }));
  const prompt = "system:be kind\nuser:one\nassistant:Hello\nuser:two\nassistant:Hello\nuser:three\n";
  assert.equal(engine.calls[2]!.request.prompt.join(""), prompt);
  assert.equal(second.previous_response_id, first.id);
});

Deno.test("what is not stored cannot be had, nor continued over HTTP", async () => {
  const { create, get } = server(hello);
  const { id } = await json(create({ store: false }));
  await checkError(get(id), 404, "response_not_found", "response_id", /expected a response that is kept/);
  await checkError(
    create({ previous_response_id: id }),
    400,
    "previous_response_not_found",
    "previous_response_id",
    /that is kept/,
  );
});

Deno.test("references stand for items of earlier responses", async () => {
  const { create, engine } = server(hello);
  const first = await json(create({ input: "one" }));
  const reference = { type: "item_reference", id: first.output[0].id };
  await json(create({ input: [{ role: "user", content: "zero" }, reference, { role: "user", content: "two" }] }));
  assert.equal(engine.calls[1]!.request.prompt.join(""), "user:zero\nassistant:Hello\nuser:two\n");
  for (const id of ["msg_1", `msg_${"0".repeat(36)}`, `${reference.id.slice(0, -1)}9`]) {
    await checkError(create({ input: [{ type: "item_reference", id }] }), 404, "not_found", "input", /an item/);
  }
});

Deno.test("another caller's response is not there, in the same words as one that never was", async () => {
  const { create, store } = server(hello);
  const { id } = await json(create());
  const other = server(hello, { store });
  const key = ["responses", "anybody", id];
  const { value } = (await store.get(key))!;
  await store.commit({ key });
  await store.commit({ key: ["responses", "somebody", id], value });
  const paths: [string, RequestInit][] = [["", {}], ["", { method: "DELETE" }], ["/cancel", { method: "POST" }]];
  for (const [path, init] of [...paths, ["/input_items", {}], ["?stream=true", {}]] as typeof paths) {
    const theirs = await other.app.request(`/v1/responses/${id}${path}`, init);
    const none = await other.app.request(`/v1/responses/resp_${"9".repeat(32)}${path}`, init);
    assert.deepEqual([theirs.status, await theirs.json()], [404, await none.json()]);
  }
  await checkError(other.get("x"), 404, "response_not_found", "response_id", /./);
});

Deno.test("a response is gone when it was taken away, and 30 days after it was made", async () => {
  const { create, get, remove, pass } = server(hello);
  const { id } = await json(create());
  assert.deepEqual(await json(remove(id)), { id, object: "response", deleted: true });
  await json(get(id), 404);
  await json(remove(id), 404);
  const other = await json(create());
  pass(RESPONSE_TTL_MS - 1);
  await json(get(other.id));
  pass(1);
  await json(get(other.id), 404);
});

Deno.test("input items: newest first unless asked, in pages, with ids of their own", async () => {
  const { create, get } = server(hello);
  const input = ["a", "b", "c"].map((content) => ({ role: "user", content }));
  const { id } = await json(create({ input }));
  const list = (query: string) => json(get(`${id}/input_items?${query}`));
  const texts = (data: Item[]) =>
    data.map((item) => item.type === "message" && item.role === "user" ? item.content[0]!.text : "").join("");
  const all = await list("");
  assert.deepEqual([texts(all.data), all.has_more, all.object], ["cba", false, "list"]);
  assert.deepEqual([all.first_id, all.last_id], [all.data[0].id, all.data[2].id]);
  const first = await list("order=asc&limit=2");
  assert.deepEqual([texts(first.data), first.has_more], ["ab", true]);
  const rest = await list(`order=asc&limit=2&after=${first.last_id}`);
  assert.deepEqual([texts(rest.data), rest.has_more], ["c", false]);
  for (const limit of ["0", "101", "-1", "x", "1e1", "9007199254740993"]) {
    await checkError(get(`${id}/input_items?limit=${limit}`), 400, "invalid_value", "limit", /from 1 to 100/);
  }
  await checkError(get(`${id}/input_items?after=x`), 404, "not_found", "after", /an item/);
  await checkError(get(`${id}/input_items?order=x`), 400, "invalid_value", "order", /got "x"$/);
});

Deno.test("the engine's refusal has its status, names the input, and leaves nothing behind", async () => {
  const { create, written } = server(failing(new EngineError("context_overflow", "expected 64, got 100")));
  for (const stream of [false, true]) {
    await checkError(create({ stream }), 400, "context_length_exceeded", "input", /got 100$/);
  }
  assert.deepEqual(written, []);
});

Deno.test("a failure after the begin is the last event of a stream, and the status of a whole response", async () => {
  const { create, get } = server(failing(new EngineError("internal", "secret"), said("x")));
  const last = (await streamed(create({ stream: true }))).at(-1)!;
  assert(last.type === "response.failed");
  assert.equal(last.response.error!.code, "internal_error");
  assert.doesNotMatch(JSON.stringify(last), /secret/);
  assert.deepEqual(last.response.usage!.output_tokens, 1);
  assert.deepEqual(await json(get(last.response.id)), last.response);
  await checkError(create(), 500, "internal_error", null, /its log has the reason/);
});

Deno.test("a client that leaves ends its response, which is kept as far as it came", async () => {
  for (const stream of [true, false]) {
    const { create, engine, store, written } = server(untilAborted(said("x")), { headAfterMs: 1, keepAliveMs: 1 });
    const reader = (await create({ stream })).body!.getReader();
    await reader.read();
    await reader.cancel();
    await aborted(engine.calls[0]!.signal);
    await until(() => written.length > 0);
    const { value: { response } } = (await store.get<{ response: WireResponse }>(written[0]!))!;
    assert.deepEqual([response.status, textOf(response)], ["cancelled", "x"]);
  }
});

Deno.test("in the background: queued at once, then in progress, and it survives its client", async () => {
  const gate = Promise.withResolvers<void>();
  const { create, get } = server(async function* () {
    await gate.promise;
    yield said("x");
    yield done();
  });
  const queued = await json(create({ background: true }));
  assert.deepEqual([queued.status, queued.output, queued.usage], ["queued", [], null]);
  assert.equal((await json(get(queued.id))).status, "queued");
  const watching = get(`${queued.id}?stream=true`);
  await (await get(`${queued.id}?stream=true`)).body!.cancel();
  gate.resolve();
  const all = await streamed(watching);
  assert.deepEqual(all.map(({ type }) => type).slice(0, 3), [
    "response.created",
    "response.queued",
    "response.in_progress",
  ]);
  const last = all.at(-1)!;
  assert(last.type === "response.completed");
  assert.deepEqual(await json(get(queued.id)), last.response);
});

Deno.test("a failure in the background is told by the response itself", async () => {
  const { create, get } = server(failing(new EngineError("overloaded", "too many")));
  const { id } = await json(create({ background: true }));
  await until(async () => (await json(get(id))).status === "failed");
  assert.deepEqual((await json(get(id))).error, { code: "overloaded", message: "too many" });
});

Deno.test("a stream is resumed after any event, as long as its events are kept", async () => {
  const { create, get, pass } = server(hello);
  const all = await streamed(create({ background: true, stream: true }));
  const { response_id: id } = all[0]!;
  for (const after of [0, 3, all.length - 2, all.length - 1, 1000]) {
    const rest = await streamed(get(`${id}?stream=true&starting_after=${after}`));
    assert.deepEqual(rest, all.slice(after + 1));
  }
  for (const after of ["-1", "x", "1.5", "9007199254740993"]) {
    await checkError(
      get(`${id}?stream=true&starting_after=${after}`),
      400,
      "invalid_value",
      "starting_after",
      /integer/,
    );
  }
  pass(RESUME_WINDOW_MS);
  await checkError(get(`${id}?stream=true`), 410, "resume_gone", "response_id", /ended lately/);
  assert.equal((await json(get(id))).status, "completed");
});

Deno.test("cancelling one of the background keeps what was said, and may be repeated; others are refused", async () => {
  const { create, cancel, get, engine } = server(untilAborted(said("x")));
  const { id } = await json(create({ background: true }));
  await until(() => engine.calls.length > 0);
  for (let i = 0; i < 2; i++) {
    const response = await json(cancel(id));
    assert.deepEqual([response.status, textOf(response), response.usage.output_tokens], ["cancelled", "x", 2]);
  }
  assert.equal((await json(get(id))).status, "cancelled");
  const mine = server(hello);
  const whole = await json(mine.create());
  await checkError(mine.cancel(whole.id), 400, "invalid_value", "response_id", /of the background/);
});

Deno.test("taking away a response of the background ends it", async () => {
  const { create, remove, get, engine, store } = server(untilAborted(said("x")));
  const { id } = await json(create({ background: true }));
  await until(() => engine.calls.length > 0);
  await json(remove(id));
  assert(engine.calls[0]!.signal.aborted);
  await json(get(id), 404);
  assert.equal(await store.get(["responses", "anybody", id]), undefined);
});

Deno.test("a response whose process has ended before it did has failed", async () => {
  const before = server(untilAborted());
  const { id } = await json(before.create({ background: true }));
  const after = server(hello, { store: before.store });
  const response = await json(after.get(id));
  assert.deepEqual([response.status, response.error.code], ["failed", "interrupted"]);
  await json(before.cancel(id));
});

Deno.test("one that is in progress cannot be continued yet", async () => {
  const { create, cancel } = server(untilAborted(said("x")));
  const { id } = await json(create({ background: true }));
  await checkError(
    create({ previous_response_id: id }),
    409,
    "response_in_progress",
    "previous_response_id",
    /has ended/,
  );
  await json(cancel(id));
});

Deno.test("responses in progress in the background are limited for each caller", async () => {
  const { create, cancel } = server(untilAborted());
  const ids: string[] = [];
  for (let i = 0; i < MAX_BACKGROUND; i++) ids.push((await json(create({ background: true }))).id);
  const refused = await create({ background: true });
  assert.equal(refused.headers.get("retry-after"), "1");
  await checkError(refused, 429, "too_many_responses", "background", /at most 32/);
  await json(cancel(ids.pop()!));
  ids.push((await json(create({ background: true }))).id);
  for (const id of ids) await json(cancel(id));
});

Deno.test("truncation: auto leaves out the oldest turns, which is otherwise refused by nobody here", async () => {
  const { create } = server(echo);
  const input = ["x".repeat(900), "y".repeat(900), "z".repeat(900)].map((content) => ({ role: "user", content }));
  const kept = async (truncation: string) =>
    [...new Set(textOf(await json(create({ input, truncation, max_output_tokens: 10 }))))].filter((c) =>
      /[xyz]/.test(c)
    )
      .join("");
  assert.equal(await kept("auto"), "yz");
  assert.equal(await kept("disabled"), "xyz");
});

Deno.test("input_tokens counts what a request would ask, and asks nothing", async () => {
  const { create, post, engine } = server(hello);
  const { id } = await json(create({ input: "one" }));
  const asked = { previous_response_id: id, input: "two", instructions: "i" };
  const { length } = "system:i\nuser:one\nassistant:Hello\nuser:two\n";
  const count = await json(post("/v1/responses/input_tokens", asked));
  assert.deepEqual(count, { object: "response.input_tokens", input_tokens: length + 1 });
  assert.equal(engine.calls.length, 1);
});

Deno.test("fields that do nothing are named", async () => {
  const response = await server(hello).create({ service_tier: "flex", user: "u" });
  assert.equal(response.headers.get("x-llamero-ignored"), "service_tier");
  await json(response);
});

Deno.test("a hundred thousand brackets are refused, and quickly", async () => {
  const { app } = server(hello);
  const deep = "[".repeat(100_000) + "]".repeat(100_000);
  const schema = `{"type":"object","properties":${deep}}`;
  const fields = [
    `"tools":[{"type":"function","name":"f","parameters":${schema}}]`,
    `"text":{"format":{"type":"json_schema","name":"n","schema":${schema}}}`,
    `"input":${deep}`,
    `"tool_choice":${deep}`,
  ];
  for (const field of fields) {
    const body = `{"model":"org/model",${field.startsWith('"input"') ? "" : '"input":"hi",'}${field}}`;
    await json(app.request(postRequest("/v1/responses", {}, { body })), 400);
  }
});

Deno.test("whatever a body is, it never makes the server fail", async () => {
  const { create } = server(hello);
  const values = [-1, 0, 0.5, 2 ** 31, 2 ** 53, 1e308, "1", "", null, true, [], [[]], [null], {}, "\ud800"];
  const fields = ["input", "instructions", "previous_response_id", "conversation", "tools", "tool_choice", "text"];
  fields.push("parallel_tool_calls", "max_tool_calls", "reasoning", "max_output_tokens", "stop", "include", "store");
  fields.push("top_logprobs", "metadata", "stream", "stream_options", "background", "truncation", "user", "prompt");
  fields.push("temperature", "top_p", "seed", "logit_bias", "samplers", "model", "moderation", "context_management");
  for (const field of fields) {
    for (const value of values) {
      const response = await create({ [field]: value });
      assert([200, 400, 404].includes(response.status), `${field} ${JSON.stringify(value)}: ${response.status}`);
      await response.body?.cancel();
    }
  }
});

Deno.test("other methods, unknown models and bad bodies are refused", async () => {
  const { app, create } = server(hello);
  const response = await app.request("/v1/responses/resp_1", { method: "PUT" });
  assert.deepEqual([response.status, response.headers.get("allow")], [405, "GET, HEAD, DELETE"]);
  await response.body?.cancel();
  await checkError(create({ model: "gpt-5" }), 404, "model_not_found", "model", /./);
  await checkError(create({ temperature: 3 }), 400, "invalid_value", "temperature", /got 3$/);
  const none = await json(create({ model: undefined }));
  assert.equal(none.model, "org/model");
});

/** Waits for something that happens by itself, for half a minute. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let asked = 0; !await condition(); asked++) {
    if (asked > 15_000) throw new Error(`waiting for ${condition}: expected it within half a minute, got nothing`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
