import assert from "node:assert/strict";
import { ChatTemplateError, type ChatTemplateErrorCode } from "../chat/message.ts";
import { EngineError, type EngineErrorCode } from "../engine/engine.ts";
import type { AppOptions } from "./app.ts";
import { MAX_BODY_BYTES } from "./body.ts";
import { aborted, chatRequest, done, events, said, type Script, testApp, untilAborted } from "./test_support.ts";

const head = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"org/model"';

function chunk(delta: string, finish = "null", usage = ""): string {
  return `data: {${head},"choices":[{"index":0,"delta":${delta},"logprobs":null,"finish_reason":${finish}}]${usage}}\n\n`;
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
  await refuse(chatRequest({ n: 2 }), 400, "unsupported_value", /^n: expected 1/, "n");
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
