import assert from "node:assert/strict";
import { ChatTemplateError, type ChatTemplateErrorCode } from "../chat/message.ts";
import { EngineError, type EngineErrorCode } from "../engine/engine.ts";
import type { AppOptions } from "./app.ts";
import { MAX_BODY_BYTES } from "./body.ts";
import {
  aborted,
  chatRequest,
  done,
  events,
  said,
  type Script,
  testApp,
  TIMINGS,
  untilAborted,
} from "./test_support.ts";

const head = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"org/model"';

function chunk(delta: string, finish = "null", usage = ""): string {
  const timings = finish === "null" ? "" : `,"timings":${JSON.stringify(TIMINGS)}`;
  const choice = `{"index":0,"delta":${delta},"logprobs":null,"finish_reason":${finish}}`;
  return `data: {${head},"choices":[${choice}]${usage}${timings}}\n\n`;
}

const opening = chunk('{"role":"assistant","content":""}');

function failing(code: EngineErrorCode, message: string, ...before: Parameters<typeof events>): Script {
  return async function* () {
    yield* before;
    throw new EngineError(code, message);
  };
}

async function checkStream(script: Script, fields: Record<string, unknown>, expected: string): Promise<void> {
  const { app } = testApp(script);
  const response = await app.request(chatRequest({ stream: true, ...fields }));
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  assert.equal(response.headers.get("cache-control"), "no-cache");
  assert(response.headers.has("x-request-id"));
  assert.equal(await response.text(), expected);
}

interface Refusal {
  status: number;
  code: string;
  message: RegExp;
  param?: string | null;
}

async function checkRefused(script: Script, request: Request, refusal: Refusal, options: Partial<AppOptions> = {}) {
  const { app, log } = testApp(script, options);
  const response = await app.request(request);
  const text = await response.text();
  assert.equal(response.status, refusal.status, text);
  const { error } = JSON.parse(text);
  assert.deepEqual([error.code, error.param], [refusal.code, refusal.param ?? null]);
  assert.match(error.message, refusal.message);
  return { response, log, error };
}

Deno.test("whole: the texts of the reply as one message, with counts", async () => {
  const { app } = testApp(events(said("Hel"), said("lo 🦙"), done()));
  const response = await app.request(chatRequest());
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {
    id: "chatcmpl-1",
    object: "chat.completion",
    created: 1_700_000_000,
    model: "org/model",
    choices: [{
      index: 0,
      message: { role: "assistant", content: "Hello 🦙", refusal: null },
      logprobs: null,
      finish_reason: "stop",
    }],
    usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
    timings: TIMINGS,
  });
});

Deno.test("whole: a reply cut by a limit says so, and may be empty", async () => {
  const { app } = testApp(events(done("length")));
  const [choice] = (await (await app.request(chatRequest())).json()).choices;
  assert.deepEqual([choice.message.content, choice.finish_reason], ["", "length"]);
});

Deno.test("the engine gets the rendered prompt, stop texts, limit and sampling; aliases name the model too", async () => {
  const { app, engine } = testApp(events(done()));
  const fields = { model: "model.gguf", stop: "END", max_tokens: 9, temperature: 0, seed: 5 };
  const body = await (await app.request(chatRequest(fields))).json();
  assert.equal(body.model, "org/model");
  const { prompt, stop, maxTokens, sampling } = engine.calls[0]!.request;
  assert.equal(prompt.join(""), "user:hi\n");
  assert.deepEqual([[...stop!].sort(), maxTokens], [["<end>", "END"], 9]);
  assert.partialDeepStrictEqual(sampling!, { temperature: 0, seed: 5 });
});

Deno.test("stream: bytes", async () => {
  const script = events(said("Hel"), said("lo\n🦙"), done());
  const pieces = opening + chunk('{"content":"Hel"}') + chunk('{"content":"lo\\n🦙"}');
  await checkStream(script, {}, pieces + chunk("{}", '"stop"') + "data: [DONE]\n\n");
  await checkStream(events(done("length")), {}, opening + chunk("{}", '"length"') + "data: [DONE]\n\n");
});

Deno.test("stream: bytes with include_usage", async () => {
  const none = ',"usage":null';
  const expected = chunk('{"role":"assistant","content":""}', "null", none) + chunk('{"content":"x"}', "null", none) +
    chunk("{}", '"stop"', none) +
    `data: {${head},"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n` +
    "data: [DONE]\n\n";
  await checkStream(events(said("x"), done()), { stream_options: { include_usage: true } }, expected);
});

Deno.test("stream: a failure after the start is its last event, without [DONE] and without our insides", async () => {
  const shown = `{"error":{"message":"closing","type":"server_error","param":null,"code":"closed"}}`;
  const said1 = chunk('{"content":"x"}');
  await checkStream(failing("closed", "closing", said("x")), {}, `${opening}${said1}data: ${shown}\n\n`);
  const hidden = `{"error":{"message":"the server failed; its log has the reason","type":"server_error","param":null,` +
    `"code":"internal_error"}}`;
  await checkStream(failing("internal", "panic at x.rs", said("x")), {}, `${opening}${said1}data: ${hidden}\n\n`);
});

Deno.test("a reply that the server cancels is an error, as there is no finish reason for it", async () => {
  const refusal = { status: 503, code: "closed", message: /cancelled/ };
  await checkRefused(events(said("x"), done("cancelled")), chatRequest(), refusal);
  const { app } = testApp(events(said("x"), done("cancelled")));
  const text = await (await app.request(chatRequest({ stream: true }))).text();
  assert.match(text, /"code":"closed"\}\}\n\n$/);
});

Deno.test("engine failures before the first token have their status, streamed or not", async () => {
  const overflow = "prompt: expected at most 63 tokens of a context of 64, got 100";
  const table: [EngineErrorCode, string, Refusal][] = [
    ["invalid_request", "seed: expected x", { status: 400, code: "invalid_value", message: /^seed/ }],
    ["unsupported", "expected x", { status: 400, code: "unsupported_value", message: /^expected x$/ }],
    ["context_overflow", overflow, {
      status: 400,
      code: "context_length_exceeded",
      param: "messages",
      message: /64, got 100$/,
    }],
    ["overloaded", "too many", { status: 429, code: "overloaded", message: /^too many$/ }],
    ["closed", "closed", { status: 503, code: "closed", message: /^closed$/ }],
    ["internal", "panic at x.rs", { status: 500, code: "internal_error", message: /^the server failed; its log/ }],
    ["io", "secret path", { status: 500, code: "internal_error", message: /^the server failed/ }],
    ["invalid_format", "secret", { status: 500, code: "internal_error", message: /^the server failed/ }],
    ["not_found", "request 7", { status: 500, code: "internal_error", message: /^the server failed/ }],
  ];
  for (const [code, message, refusal] of table) {
    for (const stream of [false, true]) {
      const { response, log } = await checkRefused(failing(code, message), chatRequest({ stream }), refusal);
      assert.equal(response.headers.get("retry-after"), code === "overloaded" ? "1" : null);
      const failures = log.filter((entry) => entry.event === "failure");
      assert.deepEqual(failures.map((entry) => entry.message), refusal.status === 500 ? [message] : []);
    }
  }
});

Deno.test("what a request leaves open, the operator decides", async () => {
  const defaults = { sampling: { temperature: 0.2, topP: 0.9 }, maxTokens: 20 };
  const { app, engine } = testApp(events(done()), { defaults });
  const asked: [Record<string, unknown>, unknown[]][] = [
    [{}, [{ temperature: 0.2, topP: 0.9 }, 20]],
    [{ temperature: 0, max_tokens: 5, seed: 1, top_p: null }, [{ temperature: 0, topP: 0.9, seed: 1 }, 5]],
  ];
  for (const [fields, expected] of asked) {
    assert.equal((await app.request(chatRequest(fields))).status, 200);
    const { sampling, maxTokens } = engine.calls.at(-1)!.request;
    assert.deepEqual([sampling, maxTokens], expected);
  }
});

Deno.test("messages that a template refuses are the caller's, a template that fails is ours", async () => {
  const codes = { invalid_order: 400, refused: 400, unguardable: 400, limit: 400, failed: 500, invalid_template: 500 };
  for (const [code, status] of Object.entries(codes)) {
    const render = () => {
      throw new ChatTemplateError(code as ChatTemplateErrorCode, "expected role user, got assistant");
    };
    for (const stream of [false, true]) {
      const refusal = status === 400
        ? { status, code: "invalid_value", param: "messages", message: /^expected role user/ }
        : { status, code: "internal_error", message: /^the server failed/ };
      await checkRefused(events(done()), chatRequest({ stream }), refusal, { template: { name: "x", render } });
    }
  }
});

Deno.test("a mistake of ours is a 500 that shows nothing, and is logged with its stack", async () => {
  const script: Script = () => {
    throw new TypeError("x is not a function");
  };
  const refusal = { status: 500, code: "internal_error", message: /^the server failed; its log has the reason$/ };
  const { log } = await checkRefused(script, chatRequest(), refusal);
  const failure = log.find((entry) => entry.event === "failure");
  assert.equal(failure?.message, "x is not a function");
  assert.match(failure!.stack!, /test/);
});

Deno.test("requests that break the protocol never reach the engine", async () => {
  const never: Script = () => {
    throw new Error("the engine was called");
  };
  const refuse = (request: Request, status: number, code: string, message: RegExp, param: string | null = null) =>
    checkRefused(never, request, { status, code, message, param });
  await refuse(chatRequest({}, { body: "{oops" }), 400, "invalid_json", /expected JSON, got "\{oops": /);
  await refuse(chatRequest({}, { body: "" }), 400, "invalid_json", /got ""/);
  for (const bytes of [[0x22, 0xff, 0x22], [0x22, 0xf0, 0x9f]]) {
    await refuse(chatRequest({}, { body: new Uint8Array(bytes) }), 400, "invalid_json", /expected UTF-8/);
  }
  await refuse(chatRequest({ temperature: 3 }), 400, "invalid_value", /^temperature: .* got 3$/, "temperature");
  await refuse(chatRequest({ n: 17 }), 400, "invalid_value", /^n: .* got 17$/, "n");
  await refuse(chatRequest({ functions: [{}] }), 400, "unsupported_value", /^functions: /, "functions");
  await refuse(chatRequest({ tool_choice: "required" }), 400, "invalid_value", /no tools/, "tool_choice");
  await refuse(chatRequest({ model: "gpt-5" }), 404, "model_not_found", /got "gpt-5"$/, "model");
  await refuse(chatRequest({ model: undefined }), 400, "invalid_value", /^model: /, "model");
});

Deno.test("only JSON is read as JSON", async () => {
  const wrong = ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "multipart/form-data"];
  for (const type of wrong) {
    const request = chatRequest({}, { headers: { "content-type": type } });
    const message = new RegExp(`expected application/json, got "${type}"$`);
    await checkRefused(events(done()), request, { status: 415, code: "unsupported_media_type", message });
  }
  const { app } = testApp(events(done()));
  const request = chatRequest({}, { headers: { "content-type": "Application/JSON; charset=utf-8" } });
  assert.equal((await app.request(request)).status, 200);
});

Deno.test("body size: the limit passes, one byte more does not, with or without a declared length", async () => {
  const body = JSON.stringify({ model: "org/model", messages: [{ role: "user", content: "hi" }] });
  const declared = { "content-length": String(body.length) };
  for (const headers of [{}, declared]) {
    const { app } = testApp(events(done()), { maxBodyBytes: body.length });
    assert.equal((await app.request(chatRequest({}, { body, headers }))).status, 200);
    const refusal = { status: 413, code: "request_too_large", message: /expected at most \d+ bytes, got more$/ };
    await checkRefused(events(done()), chatRequest({}, { body, headers }), refusal, { maxBodyBytes: body.length - 1 });
  }
});

Deno.test("a body that declares too much is refused unread", async () => {
  const endless = new ReadableStream({ pull: () => new Promise(() => {}) });
  const headers = { "content-length": String(MAX_BODY_BYTES + 1) };
  const refusal = { status: 413, code: "request_too_large", message: /^body: / };
  await checkRefused(events(done()), chatRequest({}, { body: endless, headers }), refusal);
});

Deno.test("a prompt of 32k tokens fits into the largest body", async () => {
  const { app, engine } = testApp(events(done()));
  const content = "tokenise".repeat(32 * 1024);
  assert(content.length < MAX_BODY_BYTES / 8);
  assert.equal((await app.request(chatRequest({ messages: [{ role: "user", content }] }))).status, 200);
  assert.equal(engine.calls[0]!.request.prompt.join("").length, content.length + "user:\n".length);
});

Deno.test("stream: leaving in the middle cancels the engine", async () => {
  const { app, engine, log } = testApp(untilAborted(said("x")));
  const response = await app.request(chatRequest({ stream: true }));
  const reader = response.body!.getReader();
  await reader.read();
  await reader.read();
  const { signal } = engine.calls[0]!;
  assert.equal(signal.aborted, false);
  const pending = reader.read();
  await reader.cancel();
  assert.deepEqual([signal.aborted, (await pending).done], [true, true]);
  assert.deepEqual(log.filter((entry) => "outcome" in entry).length, 1);
});

Deno.test("stream: leaving before anything was read cancels the engine", async () => {
  const { app, engine } = testApp(untilAborted(said("x")));
  const response = await app.request(chatRequest({ stream: true }));
  await response.body!.cancel();
  assert.equal(engine.calls[0]!.signal.aborted, true);
});

Deno.test("the head does not wait for the first token, and leaving then cancels the engine, streamed or whole", async () => {
  for (const stream of [false, true]) {
    const { app, engine } = testApp(untilAborted(), { headAfterMs: 5 });
    const response = await app.request(chatRequest({ stream }));
    assert.equal(response.status, 200);
    const { signal } = engine.calls[0]!;
    assert.equal(signal.aborted, false);
    await response.body!.cancel();
    assert.equal(signal.aborted, true);
  }
});

Deno.test("whole: a slow reply comes after its head, silence filled with what JSON ignores", async () => {
  const slow: Script = async function* () {
    yield said("x");
    await new Promise((resolve) => setTimeout(resolve, 40));
    yield done();
  };
  const { app } = testApp(slow, { headAfterMs: 5, keepAliveMs: 10 });
  const response = await app.request(chatRequest());
  assert.deepEqual([response.status, response.headers.get("content-type")], [200, "application/json"]);
  assert(response.headers.has("x-request-id"));
  const text = await response.text();
  assert.match(text, /^ +\{/);
  assert.equal(JSON.parse(text).choices[0].message.content, "x");
});

Deno.test("whole: a failure after the head breaks the body off, and is logged", async () => {
  const failing: Script = async function* () {
    yield said("x");
    await new Promise((resolve) => setTimeout(resolve, 20));
    throw new EngineError("internal", "panic at x.rs");
  };
  const { app, log } = testApp(failing, { headAfterMs: 5 });
  const response = await app.request(chatRequest());
  assert.equal(response.status, 200);
  await assert.rejects(response.text(), /^ApiError: the server failed; its log has the reason$/);
  assert.deepEqual(log.filter(({ event }) => event === "failure").length, 1);
});

Deno.test("stream: nothing is taken from the engine before the reader asks, and silence is filled", async () => {
  let taken = 0;
  const { app } = testApp(async function* (_request, signal) {
    for (; taken < 100; taken++) yield said("x");
    await aborted(signal);
  }, { keepAliveMs: 5 });
  const response = await app.request(chatRequest({ stream: true }));
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert(taken <= 1, `${taken} events taken`);
  let text = "";
  for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
    text += piece;
    if (text.endsWith(": keep-alive\n\n: keep-alive\n\n")) break;
  }
  assert.equal(taken, 100);
});

Deno.test("stream: a prompt that takes long to read gets its head before its first token", async () => {
  const { app } = testApp(async function* (_request, signal) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    yield signal.aborted ? done("cancelled") : done();
  }, { headAfterMs: 5, keepAliveMs: 20 });
  const text = await (await app.request(chatRequest({ stream: true }))).text();
  assert.match(text, /^data: .*"role":"assistant".*\n\n(: keep-alive\n\n)+data: .*"stop".*\n\ndata: \[DONE\]\n\n$/);
});

const WEATHER = { type: "function", function: { name: "weather", parameters: { type: "object" } } };
const CALL = ['<tool_call>{"name": "weather", ', '"arguments": {"city":', ' "Bonn"}}</tool_call>'];

/** The JSON of each event of a stream. */
async function chunks(response: Response): Promise<Record<string, unknown>[]> {
  const lines = (await response.text()).split("\n\n").filter((line) => line.startsWith("data: {"));
  return lines.map((line) => JSON.parse(line.slice("data: ".length)));
}

/** The choices of each event of a stream. */
async function choicesOf(script: Script, fields: Record<string, unknown>) {
  const { app, engine } = testApp(script);
  const all = await chunks(await app.request(chatRequest({ stream: true, ...fields })));
  // deno-lint-ignore no-explicit-any
  return { choices: all.flatMap(({ choices }) => choices as any[]), all, engine };
}

Deno.test("whole: calls of functions, with null where nothing was said", async () => {
  const { app } = testApp(events(...CALL.map((text) => said(text)), done()), { newId: () => "0123456789" });
  const [choice] = (await (await app.request(chatRequest({ tools: [WEATHER] }))).json()).choices;
  assert.deepEqual(choice, {
    index: 0,
    message: {
      role: "assistant",
      content: null,
      refusal: null,
      tool_calls: [{
        id: "012345678",
        type: "function",
        function: { name: "weather", arguments: '{"city": "Bonn"}' },
      }],
    },
    logprobs: null,
    finish_reason: "tool_calls",
  });
});

Deno.test("stream: calls of functions as they come", async () => {
  const { choices } = await choicesOf(events(said("Wait. "), ...CALL.map((text) => said(text)), done()), {
    tools: [WEATHER],
  });
  assert.deepEqual(choices.map(({ delta }) => delta), [
    { role: "assistant", content: "" },
    { content: "Wait." },
    { tool_calls: [{ index: 0, id: "1", type: "function", function: { name: "weather", arguments: "" } }] },
    { tool_calls: [{ index: 0, function: { arguments: '{"city":' } }] },
    { tool_calls: [{ index: 0, function: { arguments: ' "Bonn"}' } }] },
    {},
  ]);
  assert.equal(choices.at(-1)!.finish_reason, "tool_calls");
  const cut = await choicesOf(events(said(CALL[0]!), said(CALL[1]!), done("length")), { tools: [WEATHER] });
  assert.equal(cut.choices.at(-1)!.finish_reason, "length");
});

Deno.test("tool choices reach the prompt and the engine", async () => {
  const ask = async (fields: Record<string, unknown>) => {
    const { app, engine } = testApp(events(done()));
    const response = await app.request(chatRequest({ tools: [WEATHER], ...fields }));
    assert.equal(response.status, 200);
    const { prompt, constraint } = engine.calls[0]!.request;
    return { prompt: prompt.join(""), constraint };
  };
  assert.match((await ask({})).prompt, /"name":"weather"/);
  assert.equal((await ask({})).constraint, undefined);
  assert.doesNotMatch((await ask({ tool_choice: "none" })).prompt, /weather/);
  for (const tool_choice of ["required", { type: "function", function: { name: "weather" } }]) {
    const { constraint } = await ask({ tool_choice });
    assert(constraint?.type === "grammar" && constraint.grammar.includes("said: calls"));
  }
  const both = await ask({ response_format: { type: "json_object" } });
  assert(both.constraint?.type === "grammar" && both.constraint.grammar.includes("said: calls | reply"));
  const strict = { type: "function", function: { ...WEATHER.function, strict: true } };
  assert((await ask({ tools: [strict] })).constraint?.type === "grammar");
});

Deno.test("earlier calls, results and thoughts reach the template", async () => {
  let seen: unknown;
  const template = {
    name: "t",
    tools: "hermes",
    render(...all: unknown[]) {
      seen = all;
      return { prompt: ["x"], stop: [] };
    },
  } as const;
  const { app } = testApp(events(done()), { template });
  const call = { id: "c", type: "function", function: { name: "weather", arguments: "{}" } };
  const messages = [
    { role: "user", content: "?" },
    { role: "assistant", content: null, tool_calls: [call], reasoning_content: "t" },
    { role: "tool", content: "dry", tool_call_id: "c" },
  ];
  const asked = chatRequest({ messages, tools: [WEATHER], reasoning_effort: "none", chat_template_kwargs: { x: 1 } });
  assert.equal((await app.request(asked)).status, 200);
  const [given, options] = seen as [unknown, Record<string, unknown>];
  assert.deepEqual(given, [
    { role: "user", content: "?" },
    { role: "assistant", content: "", toolCalls: [{ id: "c", name: "weather", arguments: "{}" }], reasoning: "t" },
    { role: "tool", content: "dry", toolCallId: "c" },
  ]);
  assert.deepEqual(options.tools, [{ name: "weather", parameters: { type: "object" } }]);
  assert.deepEqual(options.variables, { reasoning_effort: "none", enable_thinking: false, x: 1 });
});

Deno.test("thoughts are told apart, unless they are wanted in the text", async () => {
  const script = events(said("<think>a"), said(" b</think>"), said(" c"), done());
  const { app } = testApp(script);
  const [choice] = (await (await app.request(chatRequest())).json()).choices;
  assert.deepEqual([choice.message.reasoning_content, choice.message.content], ["a b", "c"]);
  const { choices } = await choicesOf(script, {});
  assert.deepEqual(choices.slice(1, 4).map(({ delta }) => delta), [
    { reasoning_content: "a" },
    { reasoning_content: " b" },
    { content: "c" },
  ]);
  const [raw] = (await (await app.request(chatRequest({ reasoning_format: "none" }))).json()).choices;
  assert.deepEqual([raw.message.reasoning_content, raw.message.content], [undefined, "<think>a b</think> c"]);
});

Deno.test("n choices: interleaved by their index, seeds of their own, the prompt counted once", async () => {
  let next = 0;
  const script: Script = async function* () {
    const own = next++;
    yield said(`a${own}`);
    yield said(`b${own}`);
    yield done(own === 1 ? "length" : "stop");
  };
  const { app, engine } = testApp(script);
  const body = await (await app.request(chatRequest({ n: 3, seed: 5 }))).json();
  assert.deepEqual(
    body.choices.map(({ index, message, finish_reason }: ReturnType<typeof JSON.parse>) => [
      index,
      message.content,
      finish_reason,
    ]),
    [[0, "a0b0", "stop"], [1, "a1b1", "length"], [2, "a2b2", "stop"]],
  );
  assert.deepEqual(body.usage, { prompt_tokens: 3, completion_tokens: 6, total_tokens: 9 });
  assert.deepEqual(engine.calls.map(({ request }) => request.sampling!.seed), [5, 6, 7]);
  next = 0;
  const { choices, all } = await choicesOf(script, { n: 2, stream_options: { include_usage: true } });
  assert.deepEqual(choices.map(({ index, delta }) => [index, delta.content]), [
    [0, ""],
    [1, ""],
    [0, "a0"],
    [1, "a1"],
    [0, "b0"],
    [1, "b1"],
    [0, undefined],
    [1, undefined],
  ]);
  assert.deepEqual(all.at(-1)!.usage, { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 });
});

Deno.test("leaving cancels all choices, and so does one that fails", async () => {
  for (const stream of [true, false]) {
    const { app, engine } = testApp(untilAborted(said("x")), { headAfterMs: 5 });
    const response = await app.request(chatRequest({ n: 3, stream }));
    await response.body!.cancel();
    assert.deepEqual(engine.calls.map(({ signal }) => signal.aborted), [true, true, true]);
  }
  let made = 0;
  const { app, engine } = testApp(async function* (_request, signal) {
    const own = made++;
    yield said("x");
    if (own === 1) throw new EngineError("internal", "panic at x.rs");
    await aborted(signal);
    yield done("cancelled");
  });
  const text = await (await app.request(chatRequest({ n: 2, stream: true }))).text();
  assert.match(text, /"code":"internal_error"\}\}\n\n$/);
  assert(engine.calls.every(({ signal }) => signal.aborted));
});

Deno.test("log probabilities: with each piece, and of the whole", async () => {
  const token = { id: 1, token: "x", bytes: [120], logprob: -1 };
  const shown = { token: "x", logprob: -1, bytes: [120], top_logprobs: [{ token: "x", logprob: -1, bytes: [120] }] };
  const script = events(
    { type: "text", text: "x", completionTokens: 1, logprobs: [{ ...token, top: [token] }] },
    { type: "text", text: "", completionTokens: 2, logprobs: [{ ...token, top: [token] }] },
    done(),
  );
  const { app } = testApp(script);
  const body = await (await app.request(chatRequest({ logprobs: true, top_logprobs: 1 }))).json();
  assert.deepEqual(body.choices[0].logprobs, { content: [shown, shown], refusal: null });
  const { choices, engine } = await choicesOf(script, { logprobs: true, top_logprobs: 1 });
  assert.deepEqual(choices.map(({ logprobs }) => logprobs?.content.length ?? null), [null, 1, 1, null]);
  assert.equal(engine.calls[0]!.request.logprobs, 1);
});

Deno.test("further fields reach the engine; those that do nothing are named in a header", async () => {
  const { app, engine } = testApp(events(done()));
  const response = await app.request(chatRequest({
    min_tokens: 2,
    stop_token_ids: [5],
    logit_bias: { 7: -100 },
    dry_multiplier: 0.8,
    response_format: { type: "json_schema", json_schema: { name: "n", schema: { type: "object" }, strict: true } },
    user: "u",
    metadata: {},
    frobnicate: 1,
  }));
  assert.deepEqual([response.status, response.headers.get("x-llamero-ignored")], [200, "user, metadata, frobnicate"]);
  assert.partialDeepStrictEqual(engine.calls[0]!.request, {
    minTokens: 2,
    stopTokenIds: [5],
    sampling: { logitBias: [[7, -100]], dryMultiplier: 0.8 },
    constraint: { type: "json_schema", schema: { type: "object" } },
  });
  assert.equal((await app.request(chatRequest())).headers.get("x-llamero-ignored"), null);
});

Deno.test("what the engine cannot constrain is refused, streamed or not", async () => {
  const strict = { type: "function", function: { name: "f", strict: true } };
  const asked = [
    { response_format: { type: "json_object" } },
    { tools: [WEATHER], tool_choice: "required" },
    { tools: [strict] },
    { structured_outputs: { choice: ["a"] } },
  ];
  for (const fields of asked) {
    for (const stream of [false, true]) {
      const { app, engine } = testApp(events(done()));
      Object.assign(engine, { model: { ...engine.model, constrains: false } });
      const response = await app.request(chatRequest({ ...fields, stream }));
      assert.equal(response.status, 400);
      assert.equal((await response.json()).error.code, "unsupported_value");
    }
  }
});
