import assert from "node:assert/strict";
import type { GuardOptions } from "./guard.ts";
import { chatRequest, done, events, testApp } from "./test_support.ts";

async function checkHost(host: string, status: number, options: GuardOptions = {}): Promise<void> {
  const { app } = testApp(events(done()), options);
  const response = await app.request("/healthz", { headers: { host } });
  const body = await response.json();
  assert.equal(response.status, status, host);
  if (status === 403) assert.equal(body.error.code, "host_not_allowed");
}

async function checkOrigin(origin: string, status: number, options: GuardOptions = {}, host = "localhost:8000") {
  const { app, engine } = testApp(events(done()), options);
  const response = await app.request(chatRequest({}, { headers: { host, origin } }));
  const body = await response.json();
  assert.equal(response.status, status, origin);
  if (status === 403) assert.deepEqual([body.error.code, engine.calls], ["origin_not_allowed", []]);
}

Deno.test("hosts: loopback names and address literals pass", async () => {
  for (const host of ["localhost", "LOCALHOST:8000", "app.localhost", "127.0.0.1:8000", "[::1]:8000", "192.168.1.7"]) {
    await checkHost(host, 200);
  }
});

Deno.test("hosts: names that an attacker can point at us do not", async () => {
  const foreign = [
    "evil.test",
    "localhost.evil.test",
    "127.0.0.1.evil.test",
    "localhost@evil.test",
    "evil.test/localhost",
  ];
  for (const host of [...foreign, "a b", "::", "[", "evil.test#localhost", "%6cocalhost"]) await checkHost(host, 403);
});

Deno.test("hosts: configured names pass in any case", async () => {
  await checkHost("Box.lan:8000", 200, { hosts: ["box.LAN"] });
  await checkHost("other.lan", 403, { hosts: ["box.lan"] });
});

Deno.test("origins: a page of the server itself and configured pages may post, others not", async () => {
  await checkOrigin("http://localhost:8000", 200);
  await checkOrigin("https://chat.example", 200, { origins: ["https://chat.example/"] });
  await checkOrigin("http://[::1]:8000", 200, {}, "[::1]:8000");
  for (const origin of ["https://evil.test", "http://localhost:9000", "http://127.0.0.1:8000", "null", ""]) {
    await checkOrigin(origin, 403);
  }
});

Deno.test("origins: reading is left to the browser, which shows nothing to other pages", async () => {
  const { app } = testApp(events(done()));
  assert.equal((await app.request("/v1/models", { headers: { origin: "https://evil.test" } })).status, 200);
});
