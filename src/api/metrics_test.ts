import assert from "node:assert/strict";
import { EngineError } from "../engine/engine.ts";
import { FakeEngine } from "../engine/fake.ts";
import { ANYBODY } from "./caller.ts";
import { Metrics } from "./metrics.ts";
import { chatRequest, done, events, postRequest, said, testApp } from "./test_support.ts";

/** The samples of a text in Prometheus' format, by name and labels. */
function samples(text: string): Map<string, number> {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ")))]),
  );
}

function measured(script = events(said("a"), said("b", 2), done())) {
  const engine = new FakeEngine();
  const metrics = new Metrics({ engine, modelId: "org/model" });
  return { metrics, ...testApp(script, { observers: [metrics], routes: [metrics.route] }) };
}

Deno.test("metrics: requests by route, replies by outcome, tokens by model and key", async () => {
  const { app } = measured();
  await (await app.request(chatRequest())).text();
  await (await app.request(chatRequest({ stream: true }))).text();
  await app.request(postRequest("/v1/chat/completions", {}));
  await app.request("http://localhost/v1/models/org/model");
  await app.request("http://localhost/no/such/path");
  const response = await app.request("http://localhost/metrics");
  assert.match(response.headers.get("content-type")!, /^text\/plain/);
  const all = samples(await response.text());
  const labels = 'model="org/model",key="anybody"';
  assert.equal(all.get(`llamero_replies_total{${labels},outcome="stop"}`), 2);
  assert.equal(all.get(`llamero_prompt_tokens_total{${labels}}`), 6);
  assert.equal(all.get(`llamero_completion_tokens_total{${labels}}`), 4);
  const requests = (method: string, route: string, status: number) =>
    all.get(`llamero_requests_total{method="${method}",route="${route}",status="${status}"}`);
  assert.equal(requests("POST", "/v1/chat/completions", 200), 2);
  assert.equal(requests("POST", "/v1/chat/completions", 400), 1);
  assert.equal(requests("GET", "/v1/models/:id{.+}", 200), 1);
  assert.equal(requests("GET", "unknown", 404), 1);
  assert.equal(all.get("llamero_time_to_first_token_seconds_count"), 2);
  assert.equal(all.get("llamero_inter_token_seconds_count"), 2);
  assert.equal(all.get("llamero_queue_seconds_count"), 2);
});

Deno.test("metrics: a failure is counted by its code, and what runs and waits is the engine's own", async () => {
  // deno-lint-ignore require-yield
  const { app } = measured(async function* () {
    throw new EngineError("overloaded", "full");
  });
  assert.equal((await app.request(chatRequest())).status, 429);
  const all = samples(await (await app.request("http://localhost/metrics")).text());
  assert.equal(all.get('llamero_replies_total{model="org/model",key="anybody",outcome="overloaded"}'), 1);
  assert.equal(all.get("llamero_requests_running"), 0);
  assert.equal(all.get("llamero_healthy"), 1);
});

Deno.test("metrics: guesses are counted by the engine alone", async () => {
  const engine = new FakeEngine();
  const stats = { ...engine.stats(), proposedTokens: 12, acceptedTokens: 9 };
  engine.stats = () => stats;
  const metrics = new Metrics({ engine, modelId: "m" });
  await metrics.text();
  const all = samples(await metrics.text());
  assert.equal(all.get("llamero_proposed_tokens_total"), 12);
  assert.equal(all.get("llamero_accepted_tokens_total"), 9);
});

Deno.test("metrics: a text of several tokens is as many times, on the given clock", async () => {
  let now = 0;
  const metrics = new Metrics({ engine: new FakeEngine(), modelId: "m", now: () => now });
  const reply = metrics.reply({ requestId: "r", caller: ANYBODY });
  now = 40;
  reply.event(said("a", 1));
  now = 100;
  reply.event(said("bcd", 4));
  reply.end("stop", undefined);
  const all = samples(await metrics.text());
  assert.equal(all.get("llamero_time_to_first_token_seconds_sum"), 0.04);
  assert.equal(all.get("llamero_inter_token_seconds_count"), 3);
  assert.equal(all.get('llamero_inter_token_seconds_bucket{le="0.025"}'), 3);
  assert.equal(all.get('llamero_inter_token_seconds_bucket{le="0.01"}'), 0);
});
