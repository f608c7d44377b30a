import assert from "node:assert/strict";
import { EngineError } from "../engine/engine.ts";
import { done, events, testApp, untilAborted } from "./test_support.ts";

async function checkError(response: Response, status: number, code: string, message: RegExp): Promise<void> {
  const text = await response.text();
  assert.equal(response.status, status, text);
  assert.equal(response.headers.get("content-type"), "application/json");
  const { error, ...rest } = JSON.parse(text);
  assert.deepEqual([Object.keys(error), rest], [["message", "type", "param", "code"], {}]);
  assert.equal(error.code, code);
  assert.match(error.message, message);
}

Deno.test("GET /v1/models lists the one model; it is found under its id, raw or encoded, and its aliases", async () => {
  const { app } = testApp(events(done()));
  const model = {
    id: "org/model",
    object: "model",
    created: 1_700_000_000,
    owned_by: "llamero",
    // Anthropic's clients ask under the same path.
    type: "model",
    display_name: "org/model",
    created_at: "2023-11-14T22:13:20.000Z",
    max_input_tokens: 2048,
  };
  const page = { has_more: false, first_id: "org/model", last_id: "org/model" };
  assert.deepEqual(await (await app.request("/v1/models")).json(), { object: "list", data: [model], ...page });
  for (const id of ["org/model", "org%2Fmodel", "model.gguf"]) {
    assert.deepEqual(await (await app.request(`/v1/models/${id}`)).json(), model);
  }
  await checkError(
    await app.request("/v1/models/gpt-5"),
    404,
    "model_not_found",
    /expected "org\/model", got "gpt-5"$/,
  );
});

Deno.test("GET /healthz tells status, model, device and load, and 503 when the engine cannot serve", async () => {
  const { app, engine } = testApp(untilAborted());
  const stats = { waiting: 0, running: 0, generated_tokens: 0 };
  const body = { status: "ok", model: "org/model", device: "cpu test", stats };
  const well = await app.request("/healthz");
  assert.deepEqual([well.status, await well.json()], [200, body]);
  assert.equal((await app.request("/healthz", { method: "HEAD" })).status, 200);
  engine.die(new EngineError("internal", "panicked"));
  const ill = await app.request("/healthz");
  assert.deepEqual([ill.status, await ill.json()], [503, { ...body, status: "unhealthy" }]);
  await engine.close();
  await checkError(await app.request("/healthz"), 503, "closed", /closed$/);
});

Deno.test("GET /readyz: 200 while requests can be served, else 503", async () => {
  const { app, engine } = testApp(untilAborted());
  const well = await app.request("/readyz");
  assert.deepEqual([well.status, await well.json()], [200, { status: "ready" }]);
  assert.equal((await app.request("/readyz", { method: "HEAD" })).status, 200);
  engine.die(new EngineError("internal", "panicked"));
  const ill = await app.request("/readyz");
  assert.deepEqual([ill.status, await ill.json()], [503, { status: "unavailable" }]);
  await engine.close();
  await checkError(await app.request("/readyz"), 503, "closed", /closed$/);
});

Deno.test("unknown paths and methods are refused in the envelope", async () => {
  const { app } = testApp(events(done()));
  await checkError(await app.request("/v1/chat"), 404, "not_found", /^GET \/v1\/chat: /);
  await checkError(await app.request("/"), 404, "not_found", /^GET \/: /);
  const allowed = {
    "/healthz": "GET, HEAD",
    "/readyz": "GET, HEAD",
    "/v1/models": "GET, HEAD",
    "/v1/models/x": "GET, HEAD",
  };
  for (const [path, allow] of Object.entries(allowed)) {
    const response = await app.request(path, { method: "DELETE" });
    assert.equal(response.headers.get("allow"), allow);
    await checkError(response, 405, "method_not_allowed", /expected GET, got DELETE$/);
  }
  const posted = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/apply-template"];
  for (const path of [...posted, "/api/v1/token_check"]) {
    const response = await app.request(path);
    assert.equal(response.headers.get("allow"), "POST");
    await checkError(response, 405, "method_not_allowed", /expected POST, got GET$/);
  }
  // Without a way to upgrade there is no socket.
  await checkError(await app.request("/v1/responses"), 405, "method_not_allowed", /expected POST, got GET$/);
});

Deno.test("x-request-id is made or, when it is harmless, taken over, on errors as well", async () => {
  const { app } = testApp(events(done()));
  const idOf = async (path: string, id?: string) => {
    const response = await app.request(path, id === undefined ? {} : { headers: { "x-request-id": id } });
    await response.body?.cancel();
    return response.headers.get("x-request-id");
  };
  assert.equal(await idOf("/healthz", "abc-1"), "abc-1");
  assert.equal(await idOf("/nowhere", "abc-2"), "abc-2");
  assert.match((await idOf("/healthz"))!, /^[0-9a-f-]{36}$/);
  for (const bad of ["a b", "\x1b[31m", "x".repeat(256)]) {
    assert.match((await idOf("/healthz", bad))!, /^[0-9a-f-]{36}$/);
  }
});

Deno.test("every request is logged once, without its content", async () => {
  const { app, log } = testApp(events(done()));
  await app.request("/healthz", { headers: { "x-request-id": "a" } });
  await app.request("/nowhere?secret=1", { headers: { "x-request-id": "b" } });
  assert.deepEqual(log, [
    {
      event: "request",
      requestId: "a",
      key: "anybody",
      method: "GET",
      path: "/healthz",
      status: 200,
      headMs: 0,
      ms: 0,
    },
    {
      event: "request",
      requestId: "b",
      key: "anybody",
      method: "GET",
      path: "/nowhere",
      status: 404,
      headMs: 0,
      ms: 0,
    },
  ]);
});
