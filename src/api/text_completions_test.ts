import assert from "node:assert/strict";
import { EngineError, type EngineErrorCode, type GenerateEvent } from "../engine/engine.ts";
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

const head = '"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"org/model"';

function request(fields: Record<string, unknown> = {}, init: RequestInit = {}): Request {
  return postRequest("/v1/completions", { model: "org/model", prompt: "hi", ...fields }, init);
}

function chunk(index: number, text: string, finish = "null", usage = ""): string {
  const choice = `{"index":${index},"text":${text},"logprobs":null,"finish_reason":${finish}}`;
  const timings = finish === "null" ? "" : `,"timings":${JSON.stringify(TIMINGS)}`;
  return `data: {${head},"choices":[${choice}]${usage}${timings}}\n\n`;
}

async function checkStream(script: Script, fields: Record<string, unknown>, expected: string): Promise<void> {
  const { app } = testApp(script);
  const response = await app.request(request({ stream: true, ...fields }));
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  assert.equal(await response.text(), expected);
}

interface Refusal {
  status: number;
  code: string;
  message: RegExp;
  param?: string | null;
}

async function checkRefused(script: Script, asked: Request, refusal: Refusal, options: Partial<AppOptions> = {}) {
  const { app, engine, log } = testApp(script, options);
  const response = await app.request(asked);
  const text = await response.text();
  assert.equal(response.status, refusal.status, text);
  const { error } = JSON.parse(text);
  assert.deepEqual([error.code, error.param], [refusal.code, refusal.param ?? null]);
  assert.match(error.message, refusal.message);
  return { engine, log };
}

/** A script that answers by the prompt, or fails by it. */
function byPrompt(replies: Record<string, GenerateEvent[] | EngineError>): Script {
  return async function* ({ prompt }) {
    const reply = replies[prompt.join("")]!;
    if (reply instanceof EngineError) throw reply;
    yield* reply;
  };
}

Deno.test("whole: one choice, with counts", async () => {
  const { app, log } = testApp(events(said("Hel"), said("lo 🦙"), done("length")));
  const response = await app.request(request());
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {
    id: "cmpl-1",
    object: "text_completion",
    created: 1_700_000_000,
    model: "org/model",
    choices: [{ index: 0, text: "Hello 🦙", logprobs: null, finish_reason: "length" }],
    usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
    timings: TIMINGS,
  });
  const replies = log.filter((entry) => "outcome" in entry);
  assert.deepEqual(replies.map((entry) => "outcome" in entry && entry.outcome), ["length"]);
});

Deno.test("whole: choices are numbered prompt by prompt, and each prompt is counted once", async () => {
  const script = byPrompt({ a: [said("1"), done()], bc: [said("2"), done("length")] });
  const { app, engine } = testApp(script);
  const body = await (await app.request(request({ prompt: ["a", "bc"], n: 3, echo: true }))).json();
  assert.deepEqual(
    body.choices.map((choice: Record<string, unknown>) => [choice.index, choice.text, choice.finish_reason]),
    [[0, "a1", "stop"], [1, "a1", "stop"], [2, "a1", "stop"], [3, "bc2", "length"], [4, "bc2", "length"], [
      5,
      "bc2",
      "length",
    ]],
  );
  assert.deepEqual(body.usage, { prompt_tokens: 6, completion_tokens: 12, total_tokens: 18 });
  assert.equal(engine.calls.length, 6);
});

Deno.test("the engine gets the prompt as it is, without a template, and what the request says", async () => {
  const { app, engine } = testApp(events(done()));
  const fields = { model: "model.gguf", prompt: "<s>a</s>b", stop: "END", max_tokens: 9, temperature: 0 };
  assert.equal((await app.request(request(fields))).status, 200);
  const { prompt, stop, maxTokens, sampling } = engine.calls[0]!.request;
  assert.deepEqual([prompt, stop, maxTokens, sampling], [["a</s>b"], ["END"], 9, { temperature: 0 }]);
});

Deno.test("what a request leaves open, the operator decides; without one a choice has 16 tokens", async () => {
  const limits: [Partial<AppOptions>, Record<string, unknown>, number][] = [
    [{}, {}, 16],
    [{}, { max_tokens: 5 }, 5],
    [{ defaults: { maxTokens: 20 } }, {}, 20],
    [{ defaults: { maxTokens: 20, sampling: { topP: 0.5 } } }, { max_tokens: 30 }, 30],
  ];
  for (const [options, fields, limit] of limits) {
    const { app, engine } = testApp(events(done()), options);
    assert.equal((await app.request(request(fields))).status, 200);
    const { maxTokens, sampling } = engine.calls[0]!.request;
    assert.deepEqual([maxTokens, sampling!.topP], [limit, options.defaults?.sampling?.topP]);
  }
});

Deno.test("each choice of a prompt has a seed of its own, the first the one that was asked for", async () => {
  const last = Number.MAX_SAFE_INTEGER;
  for (
    const [seed, seeds] of [[5, [5, 6, 7]], [last - 1, [last - 1, last, 0]], [
      undefined,
      Array(3).fill(undefined),
    ]] as const
  ) {
    const { app, engine } = testApp(events(done()));
    await app.request(request({ prompt: ["a", "b"], n: 3, seed }));
    const given = engine.calls.map(({ request }) => request.sampling!.seed);
    assert.deepEqual(given, [...seeds, ...seeds]);
  }
});

Deno.test("token ids are the prompt as they are, and are echoed as text", async () => {
  const { app, engine } = testApp(events(done()));
  const ids = engine.encode(["a</s>b"]).slice(1);
  const body = await (await app.request(request({ prompt: [ids, ids], echo: true }))).json();
  assert.deepEqual(body.choices.map(({ text }: { text: string }) => text), ["a</s>b", "a</s>b"]);
  const { prompt, promptIds } = engine.calls[0]!.request;
  assert.deepEqual([prompt, promptIds], [[], ids]);
  await checkRefused(events(done()), request({ prompt: [0, 2 ** 31 - 1] }), {
    status: 400,
    code: "invalid_value",
    message: /expected ids below \d+, got 2147483647$/,
    param: "prompt",
  });
});

Deno.test("stream: bytes of one choice", async () => {
  const script = events(said("Hel"), said("lo\n🦙"), done());
  const end = chunk(0, '""', '"stop"') + "data: [DONE]\n\n";
  await checkStream(script, {}, chunk(0, '"Hel"') + chunk(0, '"lo\\n🦙"') + end);
  await checkStream(script, { echo: true }, chunk(0, '"hi"') + chunk(0, '"Hel"') + chunk(0, '"lo\\n🦙"') + end);
  await checkStream(events(done()), { prompt: "", echo: true }, end);
});

Deno.test("stream: choices interleave as their pieces come, and usage is the last chunk", async () => {
  const none = ',"usage":null';
  const script = byPrompt({ a: [said("1"), said("2"), done()], b: [said("3"), done("length")] });
  const usage = '"usage":{"prompt_tokens":6,"completion_tokens":4,"total_tokens":10}';
  const expected = chunk(0, '"1"', "null", none) + chunk(1, '"3"', "null", none) + chunk(0, '"2"', "null", none) +
    chunk(1, '""', '"length"', none) + chunk(0, '""', '"stop"', none) +
    `data: {${head},"choices":[],${usage}}\n\ndata: [DONE]\n\n`;
  await checkStream(script, { prompt: ["a", "b"], stream_options: { include_usage: true } }, expected);
});

Deno.test("stream: a failure after the start is its last event, without [DONE], and ends the other choices", async () => {
  const late: Script = async function* ({ prompt }, signal) {
    yield said("x");
    if (prompt[0] === "b") throw new EngineError("internal", "panic at x.rs");
    await aborted(signal);
    yield done("cancelled");
  };
  const { app, engine, log } = testApp(late);
  const text = await (await app.request(request({ prompt: ["a", "b"], stream: true }))).text();
  const hidden = `{"error":{"message":"the server failed; its log has the reason","type":"server_error","param":null,` +
    `"code":"internal_error"}}`;
  assert.equal(text, `${chunk(0, '"x"')}${chunk(1, '"x"')}data: ${hidden}\n\n`);
  assert(engine.calls.every(({ signal }) => signal.aborted));
  assert.deepEqual(log.filter(({ event }) => event === "failure").length, 1);
});

Deno.test("failures before the first piece have their status, whichever choice fails, streamed or not", async () => {
  const table: [EngineErrorCode, Refusal][] = [
    ["invalid_request", { status: 400, code: "invalid_value", message: /^why$/ }],
    ["context_overflow", { status: 400, code: "context_length_exceeded", param: "prompt", message: /^why$/ }],
    ["overloaded", { status: 429, code: "overloaded", message: /^why$/ }],
    ["closed", { status: 503, code: "closed", message: /^why$/ }],
    ["internal", { status: 500, code: "internal_error", message: /^the server failed; its log/ }],
  ];
  for (const [code, refusal] of table) {
    for (const stream of [false, true]) {
      const script = byPrompt({ a: [said("x"), done()], b: new EngineError(code, "why") });
      const { engine } = await checkRefused(script, request({ prompt: ["a", "b"], stream }), refusal);
      assert(engine.calls.every(({ signal }) => signal.aborted));
    }
  }
  const cancelled = { status: 503, code: "closed", message: /cancelled/ };
  await checkRefused(events(said("x"), done("cancelled")), request(), cancelled);
});

Deno.test("requests that break the protocol never reach the engine", async () => {
  const refuse = async (asked: Request, status: number, code: string, message: RegExp, param: string | null = null) => {
    const { engine } = await checkRefused(events(done()), asked, { status, code, message, param });
    assert.deepEqual(engine.calls, []);
  };
  await refuse(request({}, { body: "{oops" }), 400, "invalid_json", /expected JSON/);
  await refuse(request({}, { headers: { "content-type": "text/plain" } }), 415, "unsupported_media_type", /json/);
  await refuse(request({ prompt: undefined }), 400, "invalid_value", /^prompt: .* got nothing$/, "prompt");
  await refuse(request({ n: 1e9 }), 400, "invalid_value", /^n: .* got 1000000000$/, "n");
  await refuse(request({ logprobs: 21 }), 400, "invalid_value", /^logprobs: expected an integer from 0/, "logprobs");
  await refuse(request({ suffix: "x" }), 400, "unsupported_value", /^suffix: /, "suffix");
  await refuse(request({ model: "gpt-5" }), 404, "model_not_found", /got "gpt-5"$/, "model");
});

Deno.test("leaving cancels every choice: in the middle, before anything was read, while a head was sent early", async () => {
  for (const stream of [true, false]) {
    for (const script of [untilAborted(said("x")), untilAborted()]) {
      const { app, engine } = testApp(script, { headAfterMs: 5 });
      const response = await app.request(request({ n: 3, stream }));
      assert.equal(response.status, 200);
      assert(engine.calls.every(({ signal }) => !signal.aborted));
      await response.body!.cancel();
      assert.deepEqual(engine.calls.map(({ signal }) => signal.aborted), [true, true, true]);
    }
  }
  const { app, engine } = testApp(untilAborted(said("x")));
  const reader = (await app.request(request({ n: 2, stream: true }))).body!.getReader();
  await reader.read();
  await reader.read();
  const pending = reader.read();
  await reader.cancel();
  assert.deepEqual([engine.calls.every(({ signal }) => signal.aborted), (await pending).done], [true, true]);
});

Deno.test("silence is filled, in a stream and before a whole reply", async () => {
  const asked: [Record<string, unknown>, RegExp][] = [
    [{}, /^ +\{.*"text":"x"/],
    [{ stream: true }, /^data: .*"x".*\n\n(: keep-alive\n\n)+data: .*"stop".*\n\ndata: \[DONE\]\n\n$/],
  ];
  for (const [fields, expected] of asked) {
    const silence = Promise.withResolvers<void>();
    const { app } = testApp(async function* () {
      yield said("x");
      await silence.promise;
      yield done();
    }, { headAfterMs: 5, keepAliveMs: 10 });
    const response = await app.request(request(fields));
    const type = fields.stream ? "text/event-stream" : "application/json";
    assert.deepEqual([response.status, response.headers.get("content-type")], [200, type]);
    let text = "";
    for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
      text += piece;
      if (/^ $|keep-alive\n\n$/.test(text)) silence.resolve();
    }
    assert.match(text, expected);
  }
});

Deno.test("whole: a failure after the head breaks the body off, and is logged", async () => {
  const failing: Script = async function* () {
    yield said("x");
    await new Promise((resolve) => setTimeout(resolve, 20));
    throw new EngineError("internal", "panic at x.rs");
  };
  const { app, log } = testApp(failing, { headAfterMs: 5 });
  const response = await app.request(request());
  assert.equal(response.status, 200);
  await assert.rejects(response.text(), /^ApiError: the server failed; its log has the reason$/);
  assert.deepEqual(log.filter(({ event }) => event === "failure").length, 1);
});

const token = (text: string, logprob: number, id = 7) => ({ id, token: text, bytes: [], logprob, top: [] });

Deno.test("log probabilities in columns; an echoed prompt has them too, but for its first token", async () => {
  const script: Script = async function* ({ logprobs, promptLogprobs }) {
    const tokens = logprobs === undefined ? {} : { logprobs: [token("x", -1)] };
    const prompt = promptLogprobs === undefined ? {} : { promptLogprobs: [null, token("h", -2), token("i", -3)] };
    yield { type: "text", text: "x", completionTokens: 1, ...tokens, ...prompt };
    yield {
      type: "text",
      text: "",
      completionTokens: 2,
      ...(logprobs === undefined ? {} : { logprobs: [token("y", -4)] }),
    };
    yield done();
  };
  const ask = async (fields: Record<string, unknown>) => {
    const { app } = testApp(script);
    return await (await app.request(request(fields))).json();
  };
  const plain = (await ask({ logprobs: 0 })).choices[0];
  assert.deepEqual(plain.logprobs, {
    tokens: ["x", "y"],
    token_logprobs: [-1, -4],
    top_logprobs: [{ x: -1 }, { y: -4 }],
    text_offset: [0, 1],
  });
  assert(!("prompt_logprobs" in plain));
  const echoed = (await ask({ logprobs: 1, echo: true })).choices[0];
  assert.equal(echoed.text, "hix");
  // The begin token, which the fake engine spells.
  assert.deepEqual(echoed.logprobs.tokens, ["<s>", "h", "i", "x", "y"]);
  assert.deepEqual(echoed.logprobs.token_logprobs, [null, -2, -3, -1, -4]);
  assert.equal(echoed.logprobs.top_logprobs[0], null);
  const asked = (await ask({ prompt_logprobs: 0 })).choices[0];
  assert.equal(asked.logprobs, null);
  assert.deepEqual(asked.prompt_logprobs[0], null);
  assert.deepEqual(asked.prompt_logprobs[1], { 7: { logprob: -2, decoded_token: "h" } });
  const { app } = testApp(script);
  const streamed = await (await app.request(request({ logprobs: 0, echo: true, prompt_logprobs: 0, stream: true })))
    .text();
  const pieces = streamed.split("\n\n").filter((line) => line.startsWith("data: {")).map((line) =>
    JSON.parse(line.slice(6)).choices[0]
  );
  assert.deepEqual(pieces.map(({ text }) => text), ["hi", "x", "", ""]);
  assert.deepEqual(pieces[1].logprobs.tokens, ["<s>", "h", "i", "x"]);
  assert.deepEqual(pieces[1].prompt_logprobs.length, 3);
  assert.deepEqual(pieces[2].logprobs.text_offset, [6]);
});

Deno.test("an echo without a reply: how probable a text is", async () => {
  const prompt = [null, token("h", -2), token("i", -3)];
  const script = events(
    { type: "text", text: "x", completionTokens: 1, logprobs: [token("x", -1)], promptLogprobs: prompt },
    done(),
  );
  const { app, engine } = testApp(script);
  const fields = { max_tokens: 0, echo: true, logprobs: 0 };
  const body = await (await app.request(request(fields))).json();
  assert.equal(engine.calls[0]!.request.maxTokens, 1);
  const [{ text, finish_reason, logprobs }] = body.choices;
  assert.deepEqual([text, finish_reason, logprobs.tokens], ["hi", "length", ["<s>", "h", "i"]]);
  assert.deepEqual(body.usage, { prompt_tokens: 3, completion_tokens: 0, total_tokens: 3 });
  const streamed = await (await app.request(request({ ...fields, stream: true }))).text();
  assert.match(streamed, /"text":"hi"[^]*"tokens":\["<s>","h","i"\][^]*"finish_reason":"length"/);
  assert.doesNotMatch(streamed, /"x"/);
});

Deno.test("best_of: the most probable choices of each prompt, and the tokens of all", async () => {
  let made = 0;
  const script: Script = async function* ({ prompt }) {
    const rank = made++ % 3;
    yield {
      type: "text",
      text: `${prompt[0]}${rank}`,
      completionTokens: 1,
      logprobs: [token("x", [-2, -1, -3][rank]!)],
    };
    yield done();
  };
  const { app, engine } = testApp(script);
  const body = await (await app.request(request({ prompt: ["a", "b"], best_of: 3, n: 2 }))).json();
  assert.deepEqual(
    body.choices.map(({ index, text, logprobs }: Record<string, unknown>) => [index, text, logprobs]),
    [[0, "a1", null], [1, "a0", null], [2, "b1", null], [3, "b0", null]],
  );
  assert.deepEqual(body.usage, { prompt_tokens: 6, completion_tokens: 12, total_tokens: 18 });
  assert.deepEqual(engine.calls.map(({ request }) => request.logprobs), Array(6).fill(0));
});

Deno.test("the engine gets what a completion must be and when it ends; ignored fields are named", async () => {
  const { app, engine } = testApp(events(done()));
  const fields = {
    stop_token_ids: [5],
    min_tokens: 2,
    ignore_eos: true,
    structured_outputs: { regex: "a+" },
    user: "u",
  };
  const response = await app.request(request(fields));
  assert.deepEqual([response.status, response.headers.get("x-llamero-ignored")], [200, "user"]);
  assert.partialDeepStrictEqual(engine.calls[0]!.request, {
    stopTokenIds: [5],
    minTokens: 2,
    ignoreEos: true,
    constraint: { type: "regex", pattern: "a+" },
  });
});
