import assert from "node:assert/strict";
import { keyed } from "./key_test_support.ts";
import { chatRequest, done, events, testApp } from "./test_support.ts";

const PAGE = "https://chat.example";

function corsHeaders({ headers }: Response): string[] {
  return [...headers.keys()].filter((name) => name.startsWith("access-control"));
}

function preflight(path: string, origin: string): Request {
  const headers = {
    origin,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
  };
  return new Request(`http://localhost${path}`, { method: "OPTIONS", headers });
}

Deno.test("without allowed pages there are no cross-origin headers, and preflights are refused", async () => {
  const { app } = testApp(events(done()));
  const foreign = await app.request(preflight("/v1/chat/completions", PAGE));
  assert.deepEqual([foreign.status, corsHeaders(foreign)], [403, []]);
  const read = await app.request("/v1/models", { headers: { origin: PAGE } });
  assert.deepEqual([read.status, corsHeaders(read)], [200, []]);
});

Deno.test("an allowed page may ask, send its key and read replies, limits and failures; no other may", async () => {
  const { keys, key } = await keyed({ requests_per_minute: 2 });
  const { app } = testApp(events(done()), { keys, origins: [`${PAGE}/`] });
  const asked = await app.request(preflight("/v1/chat/completions", PAGE));
  assert.deepEqual([asked.status, await asked.text()], [204, ""]);
  assert.equal(asked.headers.get("access-control-allow-origin"), PAGE);
  assert.match(asked.headers.get("access-control-allow-methods")!, /POST/);
  assert.equal(asked.headers.get("access-control-allow-headers"), "authorization,content-type,x-stainless-os");
  assert.equal(asked.headers.get("access-control-allow-credentials"), null);

  const send = (authorization: string) => app.request(chatRequest({}, { headers: { origin: PAGE, authorization } }));
  for (const [token, status] of [[key, 200], [key, 200], [key, 429], ["nope", 401]] as const) {
    const response = await send(`Bearer ${token}`);
    await response.body?.cancel();
    assert.deepEqual([response.status, response.headers.get("access-control-allow-origin")], [status, PAGE]);
    assert.match(response.headers.get("access-control-expose-headers")!, /x-request-id.*x-ratelimit-remaining-tokens/);
    assert.match(response.headers.get("vary")!, /origin/i);
    assert.equal(response.headers.get("access-control-allow-credentials"), null);
  }
  for (const origin of ["https://evil.test", "http://chat.example", `${PAGE}.evil.test`, "null"]) {
    const response = await app.request(preflight("/v1/chat/completions", origin));
    assert.deepEqual([response.status, response.headers.get("access-control-allow-origin")], [403, null], origin);
  }
});

Deno.test("every response says what it is not: also failures, streams and preflights", async () => {
  const { app } = testApp(events(done()), { origins: [PAGE] });
  const requests = [
    new Request("http://localhost/healthz"),
    new Request("http://localhost/nowhere"),
    chatRequest({ stream: true }),
    chatRequest({ model: 1 }),
    preflight("/v1/models", PAGE),
  ];
  for (const request of requests) {
    const response = await app.request(request);
    await response.body?.cancel();
    for (const [name, value] of [["x-content-type-options", "nosniff"], ["x-frame-options", "DENY"]] as const) {
      assert.equal(response.headers.get(name), value, `${request.method} ${request.url}`);
    }
    assert.ok(response.headers.get("x-request-id"));
  }
});
