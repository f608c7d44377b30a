import assert from "node:assert/strict";
import type { GenerateEvent } from "../engine/engine.ts";
import { FakeEngine } from "../engine/fake.ts";
import type { AppOptions } from "./app.ts";
import { createApp } from "./app.ts";
import { keyed } from "./key_test_support.ts";
import { duration } from "./limits.ts";
import {
  aborted,
  chatRequest,
  done,
  events,
  plainTemplate,
  postRequest,
  said,
  type Script,
  testApp,
  untilAborted,
} from "./test_support.ts";

const START = 1_700_000_000_000;

/** An application with a key under `fields`, and a clock that stands still until it is moved. */
async function limited(
  fields: Parameters<typeof keyed>[0],
  script: Script = events(done()),
  options: Partial<AppOptions> = {},
) {
  const time = { now: START };
  const clock = () => time.now;
  const { key, keys, line } = await keyed(fields, clock);
  const on = testApp(script, { keys, clock, ...options });
  const authorization = `Bearer ${key}`;
  const get = (path: string) => on.app.request(path, { headers: { authorization } });
  const chat = (more: Record<string, unknown> = {}) =>
    on.app.request(chatRequest(more, { headers: { authorization } }));
  return { ...on, time, keys, line, get, chat, authorization };
}

async function checkRefusal(response: Response, status: number, code: string, words: RegExp): Promise<Headers> {
  const { error } = await response.json();
  assert.deepEqual([response.status, error.code], [status, code], error.message);
  assert.match(error.message, words);
  return response.headers;
}

function limitHeaders(headers: Headers): Record<string, string> {
  return Object.fromEntries([...headers].filter(([name]) => name.startsWith("x-ratelimit")));
}

Deno.test("requests of a minute: as many at once, then one for each share of the minute; headers count along", async () => {
  const { time, get } = await limited({ requests_per_minute: 3 });
  const left: (string | null)[] = [];
  for (let i = 0; i < 3; i++) {
    const response = await get("/v1/models");
    await response.body?.cancel();
    left.push(response.headers.get("x-ratelimit-remaining-requests"));
  }
  assert.deepEqual(left, ["2", "1", "0"]);
  const headers = await checkRefusal(
    await get("/v1/models"),
    429,
    "rate_limit_exceeded",
    /^requests: expected at most 3/,
  );
  assert.deepEqual([headers.get("retry-after"), headers.get("retry-after-ms")], ["20", "20000"]);
  assert.deepEqual(limitHeaders(headers), {
    "x-ratelimit-limit-requests": "3",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "1m0s",
  });
  time.now += 19_999;
  assert.equal((await get("/v1/models")).status, 429);
  time.now += 1;
  assert.equal((await get("/v1/models")).status, 200);
  assert.equal((await get("/v1/models")).status, 429);
  time.now += 3_600_000;
  for (const status of [200, 200, 200, 429]) assert.equal((await get("/v1/models")).status, status);
  // A clock that is set back takes nothing from anybody.
  time.now -= 7_200_000;
  assert.equal((await get("/v1/models")).status, 429);
  time.now += 20_000;
  assert.equal((await get("/v1/models")).status, 200);
});

Deno.test("health is neither counted nor refused, and other keys have buckets of their own", async () => {
  const { get, app } = await limited({ requests_per_minute: 1 });
  await get("/v1/models");
  assert.equal((await get("/v1/models")).status, 429);
  for (let i = 0; i < 3; i++) assert.equal((await app.request("/healthz")).status, 200);
  const other = await limited({ requests_per_minute: 1 });
  assert.equal((await other.get("/v1/models")).status, 200);
});

Deno.test("tokens of a minute are paid for as they come; an overdrawn bucket refuses replies and nothing else", async () => {
  const on = await limited({ tokens_per_minute: 60 }, async function* (): AsyncGenerator<GenerateEvent> {
    yield { type: "started", promptTokens: 50 };
    yield said("a", 10);
    yield said("b", 19);
    yield { ...done(), usage: { promptTokens: 50, completionTokens: 20 } };
  });
  const first = await on.chat();
  assert.deepEqual([first.status, first.headers.get("x-ratelimit-remaining-tokens")], [200, "60"]);
  await first.body?.cancel();
  // 70 of 60 are used: 10 are owed and one must be there, at one in a second.
  const headers = await checkRefusal(
    await on.chat(),
    429,
    "rate_limit_exceeded",
    /^tokens: expected at most 60 in a min/,
  );
  assert.deepEqual([headers.get("retry-after"), headers.get("x-ratelimit-reset-tokens")], ["11", "1m10s"]);
  assert.equal((await on.get("/v1/models")).status, 200);
  on.time.now += 10_000;
  assert.equal((await on.chat()).status, 429);
  on.time.now += 1;
  assert.equal((await on.chat()).status, 200);
});

/** Replies that each end when the test says so. */
function onDemand() {
  const running: { finish: () => void }[] = [];
  const script: Script = async function* (_request, signal) {
    const { promise, resolve } = Promise.withResolvers<void>();
    running.push({ finish: resolve });
    yield { type: "started", promptTokens: 1 };
    await Promise.race([promise, aborted(signal)]);
    yield done(signal.aborted ? "cancelled" : "stop");
  };
  return { running, script };
}

Deno.test("replies in progress: the next waits for the end of one, in order, and more are refused", async () => {
  const { running, script } = onDemand();
  const on = await limited({ max_running: 1, max_waiting: 2 }, script);
  const replies = [on.chat(), on.chat(), on.chat()];
  await Promise.all(replies);
  const headers = await checkRefusal(
    await on.chat(),
    429,
    "rate_limit_exceeded",
    /at most 1 in progress and 2 waiting/,
  );
  assert.equal(headers.get("retry-after"), "1");
  for (const at of [0, 1, 2]) {
    assert.equal(running.length, at + 1);
    running[at]!.finish();
    await (await replies[at]!).text();
  }
  const after = on.chat({ stream: true });
  await after;
  assert.equal(running.length, 4);
  running[3]!.finish();
  assert.match(await (await after).text(), /\[DONE\]\n\n$/);
});

Deno.test("who leaves while it waits makes room, and never reaches the engine's work", async () => {
  const { running, script } = onDemand();
  const on = await limited({ max_running: 1, max_waiting: 1 }, script);
  const first = await on.chat({ stream: true });
  const second = await on.chat({ stream: true });
  assert.equal((await on.chat()).status, 429);
  await second.body?.cancel();
  const third = await on.chat({ stream: true });
  assert.equal(third.status, 200);
  running[0]!.finish();
  await first.text();
  const text = third.text();
  while (on.engine.calls.filter(({ signal }) => !signal.aborted).length < 2) await new Promise((r) => setTimeout(r));
  running.at(-1)!.finish();
  assert.match(await text, /\[DONE\]/);
});

Deno.test("the choices of one request share a place, and cannot wait for each other", async () => {
  const on = await limited({ max_running: 1 }, events({ type: "started", promptTokens: 1 }, said("x"), done()));
  const headers = { authorization: on.authorization };
  const body = { model: "org/model", prompt: "x", n: 8 };
  for (let i = 0; i < 2; i++) {
    const response = await on.app.request(postRequest("/v1/completions", body, { headers }));
    assert.deepEqual([response.status, (await response.json()).choices.length], [200, 8]);
  }
});

Deno.test("what an operator allows to a request: tokens and choices, with the field that asks for more", async () => {
  const { app, engine } = testApp(events(done()), { requestLimits: { maxTokens: 10, maxChoices: 2 } });
  await checkRefusal(
    await app.request(chatRequest({ max_tokens: 11 })),
    400,
    "invalid_value",
    /^max_tokens: expected at/,
  );
  for (const fields of [{ max_tokens: 10 }, {}]) assert.equal((await app.request(chatRequest(fields))).status, 200);
  const completion = (n: number) => app.request(postRequest("/v1/completions", { model: "org/model", prompt: "x", n }));
  await checkRefusal(await completion(3), 400, "invalid_value", /^n: expected at most 2 replies to one request/);
  assert.equal((await completion(2)).status, 200);
  assert.deepEqual([...new Set(engine.calls.map(({ request }) => request.maxTokens))], [10]);
});

Deno.test("a reply that nobody bounds ends where the operator says", async () => {
  const engine = new FakeEngine({ reply: Array.from({ length: 50 }, () => "x") });
  const app = createApp({ engine, template: plainTemplate, modelId: "org/model", requestLimits: { maxTokens: 5 } });
  const { usage, choices } = await (await app.request(chatRequest())).json();
  assert.deepEqual([usage.completion_tokens, choices[0].finish_reason], [5, "length"]);
});

Deno.test("a request that takes too long: a status before the head, an error event after it", async () => {
  const { app, engine } = testApp(untilAborted(), { requestLimits: { timeoutMs: 1 }, startAfterMs: 60_000 });
  await checkRefusal(await app.request(chatRequest()), 503, "request_timeout", /longer than the 0.001 seconds/);
  assert.equal(engine.calls[0]?.signal.aborted, true);
  const late = testApp(untilAborted(said("a")), { requestLimits: { timeoutMs: 20 } });
  const response = await late.app.request(chatRequest({ stream: true }));
  const [last] = (await response.text()).trimEnd().split("\n\n").slice(-1);
  assert.equal(response.status, 200);
  assert.equal(JSON.parse(last!.slice(6)).error.code, "request_timeout");
});

Deno.test("a key that is taken away or ends: replies in progress end with an error event, waiting ones too", async () => {
  const on = await limited({ max_running: 1, max_waiting: 1 }, untilAborted(said("a")));
  const texts = [(await on.chat({ stream: true })).text(), (await on.chat({ stream: true })).text()];
  on.keys.replace((await keyed()).parsed);
  for (const text of await Promise.all(texts)) {
    const [last] = text.trimEnd().split("\n\n").slice(-1);
    assert.equal(JSON.parse(last!.slice(6)).error.code, "invalid_api_key");
  }
});

Deno.test("times as OpenAI writes them", () => {
  const cases = { 0: "0ms", 0.2: "1ms", 999: "999ms", 1000: "1s", 1001: "2s", 59_001: "1m0s", 61_000: "1m1s" };
  for (const [ms, text] of Object.entries(cases)) assert.equal(duration(Number(ms)), text);
});
