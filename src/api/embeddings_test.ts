import assert from "node:assert/strict";
import { EngineError } from "../engine/engine.ts";
import { FakeEngine } from "../engine/fake.ts";
import { createApp } from "./app.ts";
import { keyed } from "./key_test_support.ts";
import type { Observer } from "./observe.ts";
import { aborted, done, events, plainTemplate, postRequest, testApp } from "./test_support.ts";

const PATH = "/v1/embeddings";
const asked = { model: "org/model", input: "hi" };

async function post(path: string, value: unknown) {
  const { app, engine } = testApp(events(done()));
  const response = await app.request(postRequest(path, value));
  return { status: response.status, body: await response.json(), engine };
}

Deno.test("POST /v1/embeddings: a vector for each input, tokens counted over all", async () => {
  const { status, body, engine } = await post(PATH, { ...asked, input: ["hi", "ho", "hi"] });
  const vectors = await Promise.all(["hi", "ho", "hi"].map((text) => engine.embed({ prompt: [text] })));
  const data = vectors.map(({ values }, index) => ({ object: "embedding", index, embedding: [...values] }));
  const usage = { prompt_tokens: 9, total_tokens: 9 };
  assert.deepEqual([status, body], [200, { object: "list", data, model: "org/model", usage }]);
  const ids = await post(PATH, { ...asked, input: await engine.tokenize(["hi"]) });
  assert.deepEqual(ids.body.data, data.slice(0, 1));
});

Deno.test("POST /v1/embeddings: fewer dimensions, and bytes", async () => {
  const whole = (await post(PATH, asked)).body.data[0].embedding;
  const { embedding } = (await post(PATH, { ...asked, dimensions: 2, encoding_format: "base64" })).body.data[0];
  const [x, y] = new Float32Array(Uint8Array.fromBase64(embedding).buffer);
  const norm = Math.hypot(whole[0], whole[1]);
  assert.ok(Math.abs(x! - whole[0] / norm) < 1e-6 && Math.abs(y! - whole[1] / norm) < 1e-6);
});

Deno.test("other paths: FastChat's has the model, Ollama's two have their own shapes", async () => {
  const { data: [{ embedding }] } = (await post(PATH, asked)).body;
  const path = await post("/v1/engines/org/model/embeddings", { input: "hi" });
  assert.deepEqual([path.status, path.body.data[0].embedding], [200, embedding]);
  const { total_duration: _, ...embed } = (await post("/api/embed", { ...asked, model: "org/model:latest" })).body;
  assert.deepEqual(embed, { model: "org/model", embeddings: [embedding], load_duration: 0, prompt_eval_count: 3 });
  const older = await post("/api/embeddings", { model: "org/model", prompt: "hi" });
  assert.deepEqual(older.body, { embedding });
  assert.deepEqual((await post("/api/embed", { model: "org/model", input: "" })).status, 400);
});

Deno.test("what cannot be embedded is refused in the envelope, under the field's name", async () => {
  const refused: [object, unknown[]][] = [
    [{ model: "x" }, [404, "model_not_found", "model"]],
    [{ input: "" }, [400, "invalid_value", "input"]],
    [{ dimensions: 9 }, [400, "invalid_value", "dimensions"]],
    [{ input: [2 ** 31 - 1] }, [400, "invalid_value", "input"]],
    [{ input: "x".repeat(2048) }, [400, "context_length_exceeded", "input"]],
  ];
  for (const [fields, expected] of refused) {
    const { status, body: { error } } = await post(PATH, { ...asked, ...fields });
    assert.deepEqual([status, error.code, error.param], expected, JSON.stringify(fields).slice(0, 80));
  }
  assert.equal((await post("/v1/engines/x/embeddings", { input: "hi" })).status, 404);
});

Deno.test("a request whose client leaves late ends with the text that is being read", async () => {
  const { app, engine } = testApp(events(done()));
  const calls: AbortSignal[] = [];
  engine.embed = async (_request, { signal } = {}) => {
    calls.push(signal!);
    await aborted(signal!);
    throw new EngineError("closed", "embedding: the request was cancelled");
  };
  const response = await app.request(postRequest(PATH, { ...asked, input: ["a", "b"] }));
  await response.body!.cancel();
  assert.deepEqual(calls.map((signal) => signal.aborted), [true]);
});

Deno.test("a failure after the head breaks the body off", async () => {
  const { app, engine } = testApp(events(done()));
  const failing = Promise.withResolvers<never>();
  engine.embed = () => failing.promise;
  const response = await app.request(postRequest(PATH, asked));
  failing.reject(new EngineError("closed", "embedding: the engine was closed"));
  assert.equal(response.status, 200);
  await assert.rejects(response.json(), /engine was closed/);
});

Deno.test("what is embedded counts for the key and for those who follow replies", async () => {
  const seen: [string, number | undefined][] = [];
  const observer: Observer = {
    reply: () => ({ event() {}, end: (outcome, done) => seen.push([outcome, done?.usage.promptTokens]) }),
  };
  const { app } = testApp(events(), { observers: [observer] });
  const response = await app.request(postRequest("/v1/embeddings", { model: "org/model", input: ["ab", "c"] }));
  const { usage } = await response.json();
  assert.deepEqual(seen.map(([outcome]) => outcome), ["stop"]);
  assert.equal(seen.reduce((sum, [, tokens]) => sum + tokens!, 0), usage.prompt_tokens);
});

Deno.test("the texts of a request share one time limit, and its end is told as what it is", async () => {
  const engine = new FakeEngine({ tokenMs: 60_000 });
  const app = createApp({ engine, template: plainTemplate, modelId: "fake", requestLimits: { timeoutMs: 20 } });
  const response = await app.request(postRequest(PATH, { model: "fake", input: ["a", "b"] }));
  assert.deepEqual([response.status, (await response.json()).error.code], [503, "request_timeout"]);
});

Deno.test("a request of many texts overdraws the tokens of its key once, as one long text would", async () => {
  const { key, keys } = await keyed({ tokens_per_minute: 5 });
  const { app } = testApp(events(), { keys, clock: () => 1_700_000_000_000 });
  const init = { headers: { authorization: `Bearer ${key}` } };
  const ask = () => app.request(postRequest(PATH, { ...asked, input: ["aaaa", "bbbb", "cccc"] }, init));
  assert.deepEqual([(await ask()).status, (await ask()).status], [200, 429]);
});
