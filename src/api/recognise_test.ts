import { upgradeWebSocket } from "hono/deno";
import assert from "node:assert/strict";
import type { AppOptions } from "./app.ts";
import { keyed } from "./key_test_support.ts";
import { done, events, postRequest, testApp } from "./test_support.ts";

/** An application with the key of `alice`. */
async function locked(fields: Record<string, unknown> = {}, options: Partial<AppOptions> = {}) {
  const { keys, key } = await keyed(fields);
  return { key, keys, ...testApp(events(done()), { keys, ...options }) };
}

/** Every row that the application has, from its own document, and some that it has not. */
async function everyPath({ app, key }: { app: ReturnType<typeof testApp>["app"]; key: string }) {
  const response = await app.request("/openapi.json", { headers: { authorization: `Bearer ${key}` } });
  const { paths } = await response.json() as { paths: Record<string, Record<string, { security?: unknown[] }>> };
  const rows = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { security }]) => ({
      method: method.toUpperCase(),
      path: path.replace(/\{\w+\}/g, "x"),
      open: security !== undefined,
    }))
  );
  const unknown = [
    "/",
    "/nowhere",
    "/v1",
    "/v1/chat/completions/",
    "//healthz",
    "/healthz/x",
    "/HEALTHZ",
    "/%68ealthz2",
  ];
  return [...rows, ...unknown.map((path) => ({ method: "GET", path, open: false }))];
}

/** Rows that tell nothing about anybody and do nothing; a socket then waits for a key. */
const MAY_BE_OPEN = ["/healthz", "/readyz", "/v1/responses"];

Deno.test("every row and every unknown path needs a key, but for health; any method of them", async () => {
  const on = await locked({}, { upgradeWebSocket });
  const rows = await everyPath(on);
  const opened = rows.filter(({ open }) => open).map(({ path }) => path);
  assert.deepEqual(opened.filter((path) => !MAY_BE_OPEN.includes(path)), []);
  for (const { method, path } of rows) {
    for (const each of new Set([method, "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"])) {
      const mayPass = opened.includes(path) && ["GET", "HEAD"].includes(each);
      const response = await on.app.request(path, { method: each });
      await response.body?.cancel();
      assert.equal(response.status === 401, !mayPass, `${each} ${path} ${response.status}`);
    }
  }
});

Deno.test("a key opens every row: as Bearer in any case, as x-api-key, as a subprotocol", async () => {
  const { app, key } = await locked();
  const shown: Record<string, string>[] = [
    { authorization: `Bearer ${key}` },
    { authorization: `bearer  ${key} ` },
    { "x-api-key": key },
    { authorization: "Basic abc", "x-api-key": key },
    { "sec-websocket-protocol": `realtime, openai-insecure-api-key.${key}` },
  ];
  for (const headers of shown) {
    assert.equal((await app.request("/v1/models", { headers })).status, 200, JSON.stringify(headers));
  }
});

Deno.test("no key and a wrong key are told apart, in the envelope and for browsers", async () => {
  const { app, key, engine } = await locked();
  const cases: [headers: Record<string, string>, words: RegExp, challenge: string][] = [
    [{}, /^expected a key, .* got none$/, 'Bearer realm="llamero"'],
    [{ authorization: "Bearer" }, /got none$/, 'Bearer realm="llamero"'],
    [{ authorization: "Bearer nope" }, /^the key is not one of/, 'Bearer realm="llamero", error="invalid_token"'],
    [{ "x-api-key": `${key}x` }, /^the key is not one of/, 'Bearer realm="llamero", error="invalid_token"'],
    // The first that is shown counts: a right one cannot vouch for a wrong one.
    [
      { authorization: "Bearer nope", "x-api-key": key },
      /^the key is not/,
      'Bearer realm="llamero", error="invalid_token"',
    ],
  ];
  for (const [headers, words, challenge] of cases) {
    const response = await app.request(postRequest("/v1/chat/completions", {}, { headers }));
    const { error } = await response.json();
    assert.deepEqual([response.status, response.headers.get("www-authenticate")], [401, challenge]);
    assert.deepEqual([error.type, error.code, error.param], ["invalid_request_error", "invalid_api_key", null]);
    assert.match(error.message, words);
  }
  assert.deepEqual(engine.calls, []);
  const health = await app.request("/healthz", { headers: { authorization: "Bearer nope" } });
  assert.equal(health.status, 200, "a wrong key is no reason to be ill");
});

Deno.test("refusals speak the dialect of their path", async () => {
  const { app } = await locked();
  const { error } = await (await app.request(postRequest("/api/chat", {}))).json();
  assert.match(error, /^expected a key/);
});

Deno.test("a key for other models opens nothing here; one for an alias does", async () => {
  const other = await locked({ models: ["another"] });
  for (const path of ["/v1/models", "/nowhere"]) {
    const response = await other.app.request(path, { headers: { authorization: `Bearer ${other.key}` } });
    const { error } = await response.json();
    assert.deepEqual([response.status, error.code], [403, "model_not_allowed"]);
  }
  const alias = await locked({ models: ["another", "model.gguf"] });
  const headers = { authorization: `Bearer ${alias.key}` };
  assert.equal((await alias.app.request("/v1/models", { headers })).status, 200);
});

Deno.test("a key that is taken away is refused at once", async () => {
  const { app, key, keys } = await locked();
  const headers = { authorization: `Bearer ${key}` };
  assert.equal((await app.request("/v1/models", { headers })).status, 200);
  keys.replace((await keyed()).parsed);
  assert.equal((await app.request("/v1/models", { headers })).status, 401);
});
