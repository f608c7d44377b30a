import assert from "node:assert/strict";
import { EngineError } from "../engine/engine.ts";
import type { Observer } from "./observe.ts";
import { aborted, chatRequest, done, events, said, testApp, untilAborted } from "./test_support.ts";

Deno.test("a server that stops refuses new requests, says so, and lets replies go on", async () => {
  const closing = new AbortController();
  const finish = new AbortController();
  const { app } = testApp(async function* () {
    yield said("first");
    await aborted(finish.signal);
    yield said("last");
    yield done();
  }, { closing: closing.signal });
  const running = await app.request(chatRequest({ stream: true }));
  closing.abort();

  const refused = await app.request(chatRequest());
  assert.equal(refused.status, 503);
  assert.equal(refused.headers.get("retry-after"), "1");
  assert.equal((await refused.json()).error.code, "stopping");
  assert.equal((await app.request("http://localhost/v1/models")).status, 503);
  assert.equal((await app.request("http://localhost/healthz")).status, 200);
  const ready = await app.request("http://localhost/readyz");
  assert.deepEqual([ready.status, await ready.json()], [503, { status: "stopping" }]);

  finish.abort();
  const text = await running.text();
  assert.match(text, /"last"/);
  assert.match(text, /\[DONE\]/);
});

Deno.test("a reply that is cut at the end of the drain has an error as its last event", async () => {
  const { app } = testApp(async function* () {
    yield* events(said("first"))({ prompt: [] }, new AbortController().signal);
    throw new EngineError("closed", "generating: the engine was closed");
  });
  const text = await (await app.request(chatRequest({ stream: true }))).text();
  const last = JSON.parse(text.trim().split("\n\n").at(-1)!.replace(/^data: /, ""));
  assert.equal(last.error.code, "closed");
  assert.doesNotMatch(text, /\[DONE\]/);
});

Deno.test("whoever follows replies hears of the end of one whose body nobody has read", async () => {
  const ended = Promise.withResolvers<string>();
  const observer: Observer = { reply: () => ({ event() {}, end: (outcome) => ended.resolve(outcome) }) };
  const { app, log } = testApp(untilAborted({ type: "started", promptTokens: 3 }), { observers: [observer] });
  const response = await app.request(chatRequest({ stream: true }));
  await response.body!.cancel();
  assert.match(await ended.promise, /^(left|cancelled)$/);
  assert.deepEqual(log.map(({ event }) => event), ["request"]);
});
