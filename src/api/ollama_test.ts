import assert from "node:assert/strict";
import { EngineError, type EngineErrorCode } from "../engine/engine.ts";
import type { AppOptions } from "./app.ts";
import { done, events, said, type Script, testApp, untilAborted } from "./test_support.ts";

/** The texts of a request, by path. */
const ASKED: Record<string, Record<string, unknown>> = {
  "/api/generate": { prompt: "hi" },
  "/api/chat": { messages: [{ role: "user", content: "hi" }] },
};
const PATHS = Object.keys(ASKED);

function post(path: string, fields: Record<string, unknown> = {}, init: RequestInit = {}): Request {
  const body = JSON.stringify({ model: "org/model", ...ASKED[path], ...fields });
  const headers = { "content-type": "application/json", ...init.headers };
  return new Request(`http://localhost${path}`, { method: "POST", body, ...init, headers });
}

const head = '"model":"org/model","created_at":"2023-11-14T22:13:20.500Z"';
const stats = '"total_duration":3000000,"load_duration":0,"prompt_eval_count":3,"prompt_eval_duration":1000000,' +
  '"eval_count":2,"eval_duration":2000000';

/** A line with a text as `path` has it. */
function line(path: string, text: string, end = '"done":false'): string {
  const content = JSON.stringify(text);
  const said = path === "/api/chat" ? `"message":{"role":"assistant","content":${content}}` : `"response":${content}`;
  return `{${head},${said},${end}}\n`;
}

const failing = (code: EngineErrorCode, ...before: ReturnType<typeof said>[]): Script =>
  async function* () {
    yield* before;
    throw new EngineError(code, "what it was");
  };

async function checkRefused(request: Request, status: number, message: RegExp, script = events(done())) {
  const { app } = testApp(script);
  const response = await app.request(request);
  const text = await response.text();
  assert.equal(response.status, status, text);
  assert.equal(response.headers.get("content-type"), "application/json");
  const { error, ...rest } = JSON.parse(text);
  assert.deepEqual(rest, {});
  assert.match(error, message);
  return response;
}

Deno.test("ollama: a stream of lines is the default, the last one has reason, counts and times", async () => {
  for (const path of PATHS) {
    for (const reason of ["stop", "length"] as const) {
      const { app } = testApp(events(said("Hel"), said("lo\n🦙"), done(reason)));
      const response = await app.request(post(path));
      assert.deepEqual([response.status, response.headers.get("content-type")], [200, "application/x-ndjson"]);
      const end = line(path, "", `"done":true,"done_reason":"${reason}",${stats}`);
      assert.equal(await response.text(), line(path, "Hel") + line(path, "lo\n🦙") + end);
    }
  }
});

Deno.test("ollama: whole", async () => {
  for (const path of PATHS) {
    const { app } = testApp(events(said("Hel"), said("lo"), done()));
    const response = await app.request(post(path, { stream: false }));
    assert.equal(response.headers.get("content-type"), "application/json");
    assert.equal(`${await response.text()}\n`, line(path, "Hello", `"done":true,"done_reason":"stop",${stats}`));
    assert.equal(response.headers.get("x-llamero-ignored"), null);
  }
});

Deno.test("ollama: the engine gets the rendered prompt, or a raw one with its special tokens, and the options", async () => {
  const options = { temperature: 0, seed: 5, num_predict: 9, stop: ["END"] };
  const asked: [string, Record<string, unknown>, string, string[]][] = [
    ["/api/generate", {}, "user:hi\n", ["<end>", "END"]],
    ["/api/generate", { system: "be" }, "system:be\nuser:hi\n", ["<end>", "END"]],
    ["/api/generate", { raw: true, prompt: "<s>[INST] a</s>" }, "[INST] a</s>", ["END"]],
    ["/api/chat", {}, "user:hi\n", ["<end>", "END"]],
  ];
  for (const [path, fields, text, stops] of asked) {
    const { app, engine } = testApp(events(done()));
    await (await app.request(post(path, { ...fields, options }))).text();
    const { prompt, maxTokens, stop, sampling } = engine.calls[0]!.request;
    assert.deepEqual([prompt.join(""), maxTokens, stop], [text, 9, stops]);
    assert.deepEqual(sampling, { temperature: 0, seed: 5 });
  }
});

Deno.test("ollama: what is left open, the operator decides, but for an explicit lack of a limit", async () => {
  const { app, engine } = testApp(events(done()), { defaults: { sampling: { topP: 0.9 }, maxTokens: 20 } });
  const limits: [Record<string, unknown>, number][] = [[{}, 20], [{ num_predict: 5 }, 5], [
    { num_predict: -1 },
    2 ** 31 - 1,
  ]];
  for (const [options, limit] of limits) {
    await (await app.request(post("/api/chat", { options }))).text();
    const { maxTokens, sampling } = engine.calls.at(-1)!.request;
    assert.deepEqual([maxTokens, sampling], [limit, { topP: 0.9 }]);
  }
});

Deno.test("ollama: fields that do nothing are named in a header, streamed or not", async () => {
  for (const stream of [true, false]) {
    const { app } = testApp(events(done()));
    const response = await app.request(post("/api/chat", { stream, keep_alive: "5m", options: { num_ctx: 2048 } }));
    await response.body?.cancel();
    assert.equal(response.headers.get("x-llamero-ignored"), "options.num_ctx, keep_alive");
  }
});

Deno.test("ollama: without a prompt the model is there already, whatever keep_alive says", async () => {
  for (const path of PATHS) {
    for (const fields of [{}, { stream: false }, { keep_alive: 0 }, { system: "be" }]) {
      const { app, engine } = testApp(events(done()));
      const response = await app.request(post(path, { prompt: undefined, messages: undefined, ...fields }));
      assert.equal(`${await response.text()}\n`, line(path, "", '"done":true,"done_reason":"load"'));
      assert.equal(engine.calls.length, 0);
    }
  }
});

Deno.test("ollama: a model whose engine has failed or is closed is not called loaded", async () => {
  const { app, engine } = testApp(events(done()));
  const ask = async () => {
    const response = await app.request(post("/api/chat", { messages: [] }));
    return [response.status, (await response.json()).error];
  };
  engine.die(new EngineError("internal", "panicked"));
  assert.deepEqual(await ask(), [503, "loading the model: expected an engine that runs, got one that has failed"]);
  await engine.close();
  assert.deepEqual(await ask(), [503, "calling an engine that is closed"]);
});

Deno.test("ollama: the model by its names, with Ollama's default tag or without", async () => {
  for (const model of ["org/model", "org/model:latest", "model.gguf", "model.gguf:latest"]) {
    const { app } = testApp(events(done()));
    const response = await app.request(post("/api/chat", { model, stream: false }));
    assert.equal((await response.json()).model, "org/model");
  }
  const tagged = testApp(events(done()), { modelId: "own:latest" });
  assert.equal((await tagged.app.request(post("/api/show", { model: "own:latest" }))).status, 200);
  for (const model of ["llama3.2", "org/model:7b", "latest"]) {
    for (const path of [...PATHS, "/api/show"]) {
      await checkRefused(post(path, { model }), 404, /expected "org\/model", got /);
    }
  }
});

Deno.test("ollama: refusals have their status and are one sentence", async () => {
  for (const path of PATHS) {
    await checkRefused(post(path, { format: "xml" }), 400, /^format: .* got "xml"$/);
    await checkRefused(post(path, { options: { temperature: -1 } }), 400, /^options\.temperature: .* got -1$/);
    await checkRefused(post(path, {}, { body: "{oops" }), 400, /expected JSON/);
    await checkRefused(post(path, {}, { headers: { "content-type": "text/plain" } }), 415, /application\/json/);
    await checkRefused(post(path, {}, { headers: { origin: "https://evil.test" } }), 403, /Origin/);
    const wrong = await checkRefused(new Request(`http://localhost${path}`), 405, /expected POST, got GET$/);
    assert.equal(wrong.headers.get("allow"), "POST");
  }
  await checkRefused(new Request("http://localhost/api/tags", { method: "DELETE" }), 405, /expected GET/);
  await checkRefused(post("/api/pull"), 404, /unknown one$/);
  await checkRefused(post("/api/generate", { template: "{{ .Prompt }}" }), 400, /^template: /);
});

Deno.test("ollama: engine failures before the first token have their status, streamed or not", async () => {
  const statuses: [EngineErrorCode, number, RegExp][] = [
    ["context_overflow", 400, /^what it was$/],
    ["overloaded", 429, /^what it was$/],
    ["closed", 503, /^what it was$/],
    ["internal", 500, /^the server failed; its log has the reason$/],
  ];
  for (const [code, status, message] of statuses) {
    for (const stream of [true, false]) {
      const response = await checkRefused(post("/api/chat", { stream }), status, message, failing(code));
      assert.equal(response.headers.get("retry-after"), status === 429 ? "1" : null);
    }
  }
});

Deno.test("ollama: a failure inside a stream is its last line, without our insides", async () => {
  const failures: [Script, string][] = [
    [failing("closed", said("x")), "what it was"],
    [failing("internal", said("x")), "the server failed; its log has the reason"],
    [events(said("x"), done("cancelled")), "the reply was cancelled before its end; the server is closing"],
  ];
  for (const [script, error] of failures) {
    for (const path of PATHS) {
      const { app } = testApp(script);
      const response = await app.request(post(path));
      assert.equal(await response.text(), `${line(path, "x")}${JSON.stringify({ error })}\n`);
    }
  }
});

Deno.test("ollama: leaving cancels the engine, and silence is filled with what JSON ignores", async () => {
  const quick: Partial<AppOptions> = { headAfterMs: 5, keepAliveMs: 5 };
  for (const path of PATHS) {
    for (const stream of [true, false]) {
      const { app, engine, log } = testApp(untilAborted(said("x")), quick);
      const response = await app.request(post(path, { stream }));
      const reader = response.body!.getReader();
      let text = "";
      while (!text.endsWith("  ")) text += new TextDecoder().decode((await reader.read()).value);
      assert.equal(text.trimEnd(), stream ? line(path, "x").trimEnd() : "");
      assert.equal(engine.calls[0]!.signal.aborted, false);
      await reader.cancel();
      assert.equal(engine.calls[0]!.signal.aborted, true);
      assert.equal(log.filter((entry) => "outcome" in entry).length, 1);
    }
  }
  const { app } = testApp(async function* () {
    await new Promise((resolve) => setTimeout(resolve, 30));
    yield said("x");
    yield done();
  }, quick);
  const text = await (await app.request(post("/api/chat"))).text();
  assert.match(text, /^ +\{/);
  assert.deepEqual(text.trim().split("\n").map((each) => JSON.parse(each).done), [false, true]);
});

Deno.test("ollama: tags, show and version say what is true", async () => {
  const { app, engine } = testApp(events(done()));
  const details = {
    parent_model: "",
    family: "fake",
    families: ["fake"],
    parameter_size: "0",
    quantization_level: "NONE",
  };
  const tags = await (await app.request("/api/tags")).json();
  assert.deepEqual(tags, { models: [{ name: "org/model", model: "org/model", details }] });
  const shown = await (await app.request(post("/api/show"))).json();
  assert.deepEqual([shown.details, shown.capabilities], [details, ["completion", "tools"]]);
  assert.equal(shown.model_info["fake.context_length"], engine.model.contextLength);
  assert.deepEqual(Object.keys(await (await app.request("/api/version")).json()), ["version"]);
});

Deno.test("ollama: thoughts apart, calls whole, log probabilities", async () => {
  const token = { id: 1, token: "x", bytes: [120], logprob: -1, top: [] };
  const script = events(
    said("<think>a"),
    said(" b</think>"),
    { type: "text", text: "x ", completionTokens: 3, logprobs: [token] },
    said('<tool_call>{"name": "f", "arguments": {"a": '),
    said('1}}</tool_call>{"name": "g"}'),
    done(),
  );
  const tools = ["f", "g"].map((name) => ({ type: "function", function: { name } }));
  const { app, engine } = testApp(script);
  const calls = [{ function: { name: "f", arguments: { a: 1 } } }, { function: { name: "g", arguments: {} } }];
  const whole = await (await app.request(post("/api/chat", { tools, logprobs: true, think: true, stream: false })))
    .json();
  assert.deepEqual(whole.message, { role: "assistant", content: "x", thinking: "a b", tool_calls: calls });
  assert.deepEqual(whole.logprobs, [{ token: "x", logprob: -1, bytes: [120], top_logprobs: [] }]);
  assert.equal(engine.calls[0]!.request.logprobs, 0);
  const text = await (await app.request(post("/api/chat", { tools }))).text();
  const lines = text.trim().split("\n").map((each) => JSON.parse(each));
  assert.deepEqual(lines.map(({ message }) => message), [
    { role: "assistant", content: "", thinking: "a" },
    { role: "assistant", content: "", thinking: " b" },
    { role: "assistant", content: "x" },
    { role: "assistant", content: "", tool_calls: [calls[0]] },
    { role: "assistant", content: "", tool_calls: [calls[1]] },
    { role: "assistant", content: "" },
  ]);
  const generated = await (await app.request(post("/api/generate", { stream: false }))).json();
  assert.equal(generated.thinking, "a b");
  const raw = await (await app.request(post("/api/generate", { stream: false, raw: true }))).json();
  assert.match(raw.response, /^<think>a b<\/think>x/);
});

Deno.test("ollama: the engine is told of the format", async () => {
  for (const path of PATHS) {
    const { app, engine } = testApp(events(done()));
    await app.request(post(path, { format: { type: "object" }, think: false }));
    assert.deepEqual(engine.calls[0]!.request.constraint, { type: "json_schema", schema: { type: "object" } });
  }
});
