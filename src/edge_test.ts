import assert from "node:assert/strict";
import type { LogEntry } from "./api/log.ts";
import { createEdge, type EdgeOptions } from "./edge.ts";
import * as glue from "./engine/wasm_loopback.ts";
import { EMPTY_MODULE, TRAP } from "./engine/wasm_loopback.ts";

const FILE = new Uint8Array(3);
/** The module of the loopback core as bytes: magic and version. */
const EMPTY_BYTES = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

function edge(options: Partial<EdgeOptions> = {}) {
  const log: LogEntry[] = [];
  const parts = { glue, wasm: EMPTY_MODULE, weights: FILE, modelId: "toy", template: "vicuna-v1.1", hosts: ["edge"] };
  return { log, service: createEdge({ ...parts, log: (entry) => log.push(entry), ...options }) };
}

function chat(content = "Hi", stream = true): Request {
  const body = JSON.stringify({ model: "toy", messages: [{ role: "user", content }], stream });
  const headers = { "content-type": "application/json" };
  return new Request("http://edge/v1/chat/completions", { method: "POST", headers, body });
}

Deno.test("edge: streams a chat completion and ends it with [DONE]", async () => {
  const { service } = edge({ wasm: EMPTY_BYTES });
  const response = await service.fetch(chat());
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const lines = (await response.text()).trimEnd().split("\n\n");
  assert.equal(lines.pop(), "data: [DONE]");
  const text = lines.map((line) => JSON.parse(line.slice(6)).choices[0]?.delta.content ?? "").join("");
  assert.equal(text, "The quick brown fox jumps over the lazy dog");
});

Deno.test("edge: takes weights as bytes, response, stream of known length, and functions of these", async () => {
  const response = () => new Response(FILE, { headers: { "content-length": "3" } });
  const stream = () => ({ stream: new Blob([FILE]).stream(), bytes: 3 });
  for (const weights of [FILE, response(), stream(), response, () => Promise.resolve(stream())]) {
    const { service } = edge({ weights });
    assert.equal((await service.fetch(new Request("http://edge/healthz"))).status, 200);
  }
});

Deno.test("edge: loads once for requests that come at once", async () => {
  let opened = 0;
  const { service } = edge({ weights: () => (opened++, FILE) });
  const responses = await Promise.all([service.fetch(chat("a", false)), service.fetch(chat("b", false))]);
  assert.deepEqual(responses.map(({ status }) => status), [200, 200]);
  assert.equal(opened, 1);
});

Deno.test("edge: a model that cannot be loaded is a 503 with its reason in the log, and is tried again", async () => {
  const sources = [
    new Response(FILE, { status: 404 }),
    new Response(FILE),
    { stream: new Blob([FILE]).stream(), bytes: 4 },
    FILE,
  ];
  const { log, service } = edge({ weights: () => sources.shift()! });
  for (const reason of [/status 404/, /expected status 200 and a length/, /wanted 4 bytes, got 3/]) {
    const refused = await service.fetch(chat());
    assert.deepEqual([refused.status, (await refused.json()).error.code], [503, "model_not_loaded"]);
    const entry = log.at(-1);
    assert.ok(entry?.event === "failure");
    assert.match(entry.message, reason);
  }
  assert.equal((await service.fetch(chat("Hi", false))).status, 200);
});

Deno.test("edge: a trap is a failed reply; what can be opened again serves on, what cannot says so", async () => {
  for (const [weights, status] of [[FILE, 200], [{ stream: new Blob([FILE]).stream(), bytes: 3 }, 500]] as const) {
    const { log, service } = edge({ weights });
    assert.equal((await service.fetch(chat(TRAP, false))).status, 500);
    assert.equal((await service.fetch(chat("Hi", false))).status, status);
    const reasons = log.filter(({ event }) => event === "failure").map((entry) => JSON.stringify(entry));
    assert.equal(reasons.some((reason) => reason.includes("can be opened again")), status === 500);
  }
});
