import assert from "node:assert/strict";
import { FakeEngine } from "../engine/fake.ts";
import { MemoryStore } from "../sessions/memory_store.ts";
import type { AppOptions } from "./app.ts";
import { keyed } from "./key_test_support.ts";
import { jsonLine, type LogEntry } from "./log.ts";
import { Service } from "./service.ts";
import { chatRequest, done, events, plainTemplate, postRequest, said, testApp, untilAborted } from "./test_support.ts";

/** What is logged when a request was answered and its body read. */
async function logged(request: (key: string) => Request, options: Partial<AppOptions> = {}): Promise<LogEntry[]> {
  const { keys, key } = await keyed();
  let now = 0;
  const clock = () => now += 10;
  const script = events({ type: "started", promptTokens: 3 }, said("secret reply"), done());
  const { app, log } = testApp(script, { keys, clock, ...options });
  await (await app.request(request(key))).text();
  return log;
}

const chat = (fields: Record<string, unknown> = {}) => (key: string) =>
  chatRequest(fields, { headers: { authorization: `Bearer ${key}`, "x-request-id": "r1" } });

Deno.test("one entry for each request, whole or streamed, when all of it is over: who, how long, tokens, outcome", async () => {
  for (const stream of [true, false]) {
    const [entry, ...more] = await logged(chat({ stream }));
    assert(entry?.event === "request");
    const { headMs, ms, ...facts } = entry;
    assert.deepEqual(more, []);
    assert.deepEqual(facts, {
      event: "request",
      requestId: "r1",
      key: "alice",
      method: "POST",
      path: "/v1/chat/completions",
      status: 200,
      outcome: "stop",
      promptTokens: 3,
      completionTokens: 2,
    });
    assert.ok(headMs > 0 && ms >= headMs, `${headMs} ${ms}`);
  }
});

Deno.test("choices are one entry with all their tokens; refused and failed requests have theirs", async () => {
  const headers = (key: string) => ({ authorization: `Bearer ${key}` });
  const body = { model: "org/model", prompt: "x", n: 3 };
  const [choices] = await logged((key) => postRequest("/v1/completions", body, { headers: headers(key) }));
  assert(choices?.event === "request");
  assert.deepEqual([choices.promptTokens, choices.completionTokens, choices.outcome], [9, 6, "stop"]);
  const [stranger] = await logged(() => chatRequest());
  assert(stranger?.event === "request");
  assert.deepEqual([stranger.status, stranger.key, stranger.outcome], [401, "stranger", undefined]);
});

Deno.test("a reader that leaves is logged with what it had", async () => {
  const { app, log } = testApp(untilAborted(said("x")));
  const response = await app.request(chatRequest({ stream: true }));
  const reader = response.body!.getReader();
  await reader.read();
  await reader.read();
  assert.equal(log.length, 0, "it is not over");
  await reader.cancel();
  assert.deepEqual(log.map((entry) => "outcome" in entry && entry.outcome), ["left"]);
});

Deno.test("prompts and replies are logged on demand, and never without", async () => {
  const secret = { messages: [{ role: "user", content: "secret prompt" }] };
  for (const logPrompts of [undefined, false]) {
    assert.doesNotMatch(JSON.stringify(await logged(chat(secret), { logPrompts })), /secret/);
  }
  const [entry] = await logged(chat(secret), { logPrompts: true });
  assert(entry?.event === "request");
  assert.deepEqual([entry.prompts, entry.replies], [[secret.messages], ["secret reply"]]);
});

Deno.test("replies without an open request, as on a socket, have entries of their own", async () => {
  const log: LogEntry[] = [];
  const service = new Service({
    engine: new FakeEngine({ reply: "a b" }),
    template: plainTemplate,
    modelId: "m",
    aliases: [],
    clock: () => 0,
    newId: () => "1",
    log: (entry) => log.push(entry),
    store: new MemoryStore(),
  });
  const origin = { requestId: "r", caller: { id: "key:alice", name: "alice" } };
  for (let i = 0; i < 2; i++) {
    const request = { messages: [{ role: "user", content: "x" } as const], sampling: {}, stop: [] };
    for await (const _ of service.reply(origin, request, new AbortController().signal));
  }
  const facts = { outcome: "stop", promptTokens: 8, completionTokens: 2 };
  const entry = { event: "reply", requestId: "r", key: "alice", ms: 0, ...facts };
  assert.deepEqual(log, [entry, entry]);
});

Deno.test("hostile ids, paths, models and keys are one harmless line each", async () => {
  const evil = 'x\r\n{"event":"forged"}\x1b[31m\x9b\u2028\u202e';
  const requests: ((key: string) => Request)[] = [
    (key) => new Request(`http://localhost/v1/models/${encodeURIComponent(evil)}`, { headers: { "x-api-key": key } }),
    (key) => chatRequest({ model: evil }, { headers: { "x-api-key": key } }),
    (key) => chatRequest({}, { headers: { "x-api-key": key, "x-request-id": "a b[31m" } }),
    () => chatRequest({}, { headers: { "x-api-key": 'x{"event":"forged"}[31m' } }),
  ];
  for (const request of requests) {
    const entries = await logged(request);
    assert.equal(entries.length, 1);
    const line = jsonLine(entries[0]);
    // deno-lint-ignore no-control-regex -- they are what is looked for
    assert.doesNotMatch(line, /[\x00-\x1f\x7f-\x9f\u2028-\u202e]/);
    assert.deepEqual(JSON.parse(line), JSON.parse(JSON.stringify(entries[0])));
    assert.doesNotMatch(line, /"event":"forged"/);
  }
  assert.equal(jsonLine(evil), '"x\\r\\n{\\"event\\":\\"forged\\"}\\u001b[31m\\u009b\\u2028\\u202e"');
});
