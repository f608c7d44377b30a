/** The served program as its clients see it: a process of its own, real sockets, the real core. */
import assert from "node:assert/strict";
import { join } from "node:path";
import {
  healthUntil,
  llamero,
  NO_REAL_MODEL,
  NO_WASM,
  REAL_MODEL,
  served,
  type ServeOptions,
  testUnless,
  TINY_MODEL,
  WITHOUT_FFI,
} from "./support.ts";

function chat(url: string, body: Record<string, unknown>, init: RequestInit = {}): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body: JSON.stringify(body), ...init });
}

function user(content: string) {
  return [{ role: "user", content }];
}

Deno.test("serve: whole, streamed and over WebSocket, the same greedy text", async () => {
  await saysTheSameEverywhere(TINY_MODEL);
});

testUnless(
  [NO_WASM, NO_REAL_MODEL],
  "serve: without permission for FFI likewise, on SmolLM2 in WebAssembly",
  async () => {
    await saysTheSameEverywhere(REAL_MODEL!, { permissions: WITHOUT_FFI });
  },
);

async function saysTheSameEverywhere(model: string, options?: ServeOptions): Promise<void> {
  await using server = await served(model, options);
  const request = { model: server.model, messages: user("Hello!"), temperature: 0, max_tokens: 24 };
  const whole = await (await chat(server.url, request)).json();
  const text = whole.choices[0].message.content;
  assert.ok(text.length > 0 && whole.usage.completion_tokens <= 24);
  assert.equal(await streamed(await chat(server.url, { ...request, stream: true })), text);
  assert.equal(await overSocket(server.url, server.model), text);
}

testUnless([NO_WASM], "chat: falling back to WebAssembly is said with its reason", async () => {
  const { code, stdout, stderr } = await llamero(["chat", "--model", TINY_MODEL, "-n", "4", "Hi"], WITHOUT_FFI)
    .output();
  const said = new TextDecoder().decode(stderr);
  assert.match(said, /^llamero: using the WebAssembly engine, which is slower, .* run deno with --allow-ffi=.*\n/);
  assert.deepEqual([code, stdout.length > 1], [0, true]);
});

async function streamed(response: Response): Promise<string> {
  const lines = (await response.text()).split("\n\n").filter((line) => line.startsWith("data: "));
  assert.equal(lines.at(-1), "data: [DONE]");
  return lines.slice(0, -1).map((line) => JSON.parse(line.slice(6)).choices[0]?.delta.content ?? "").join("");
}

async function overSocket(url: string, model: string): Promise<string> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/v1/responses`);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = "";
  socket.onopen = () =>
    socket.send(
      JSON.stringify({ type: "response.create", model, input: "Hello!", temperature: 0, max_output_tokens: 24 }),
    );
  socket.onerror = () => reject(new Error("the socket failed"));
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === "response.output_text.delta") text += event.delta;
    if (/^response\.(completed|incomplete)$/.test(event.type)) resolve(text);
    if (/^(response\.failed|error)$/.test(event.type)) reject(new Error(data));
  };
  try {
    return await promise;
  } finally {
    const closed = new Promise((done) => socket.onclose = done);
    socket.close();
    await closed;
  }
}

Deno.test("serve: bad requests get their sentence, and the server lives on", async () => {
  await using server = await served(TINY_MODEL);
  const ok = { model: server.model, messages: user("Hi"), max_tokens: 2 };
  const cases: [body: string, status: number, words: RegExp][] = [
    ["{", 400, /JSON/],
    ["[]", 400, /expected/],
    [JSON.stringify({ ...ok, messages: "Hi" }), 400, /messages/],
    [JSON.stringify({ ...ok, max_tokens: "2" }), 400, /max_tokens/],
    [JSON.stringify({ ...ok, max_tokens: 2 ** 53 }), 400, /max_tokens/],
    [JSON.stringify({ ...ok, temperature: -1 }), 400, /temperature/],
    [JSON.stringify({ ...ok, model: "gpt-4" }), 404, /gpt-4/],
    [JSON.stringify({ ...ok, messages: user("word ".repeat(600)) }), 400, /\d{3,} tokens.*512.*511/],
  ];
  for (const [body, status, words] of cases) {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${server.url}/v1/chat/completions`, { method: "POST", headers, body });
    const { error } = await response.json();
    assert.equal(response.status, status, body.slice(0, 80));
    assert.match(error.message, words);
  }
  assert.equal((await chat(server.url, ok)).status, 200);
});

Deno.test("serve: a client that leaves ends its generation", async () => {
  await using server = await served(TINY_MODEL);
  for (const stream of [true, false]) {
    const left = new AbortController();
    const endless = { model: server.model, messages: user("Hello!"), stream };
    const reply = chat(server.url, endless, { signal: left.signal }).then((response) => response.text()).catch(() =>
      ""
    );
    await healthUntil(server.url, ({ stats }) => stats.running + stats.waiting > 0 || stats.generated_tokens > 0);
    left.abort();
    await reply;
    const { stats } = await healthUntil(server.url, ({ stats }) => stats.running + stats.waiting === 0);
    assert.deepEqual([stats.running, stats.waiting], [0, 0]);
  }
});

Deno.test("serve: a port in use is a sentence", async () => {
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr as Deno.NetAddr;
  const { code, stderr } = await llamero(["serve", "--model", TINY_MODEL, "--port", String(port)]).output();
  taken.close();
  assert.equal(code, 1);
  assert.match(new TextDecoder().decode(stderr), new RegExp(`port ${port} failed: the port is in use`));
});

for (const [engine, reason] of [["native", undefined], ["wasm", NO_WASM]] as const) {
  const name = `serve --engine ${engine}: health is answered during a long prefill, and leaving ends the prefill`;
  testUnless([NO_REAL_MODEL, reason], name, () => staysFree(["--engine", engine]));
}

async function staysFree(flags: string[]): Promise<void> {
  await using server = await served(REAL_MODEL!, { flags });
  const left = new AbortController();
  const messages = user("The quick brown fox jumps over the lazy dog. ".repeat(200));
  const request = { model: server.model, messages, max_tokens: 1, stream: true };
  const reply = chat(server.url, request, { signal: left.signal }).then((response) => response.text()).catch(() =>
    "left"
  );
  await healthUntil(server.url, ({ stats }) => stats.running > 0);
  const waits: number[] = [];
  for (let i = 0; i < 20; i++) {
    const asked = performance.now();
    const health = await (await fetch(`${server.url}/healthz`)).json();
    waits.push(performance.now() - asked);
    assert.deepEqual([health.stats.running, health.stats.generated_tokens], [1, 0], "the prompt is still in prefill");
  }
  // The median, since a machine that does other things as well may miss a single one.
  assert.ok(waits.sort((a, b) => a - b)[10]! < 50, `health took ${waits.map(Math.round)} ms`);
  left.abort();
  assert.equal(await reply, "left");
  const { stats } = await healthUntil(server.url, ({ stats }) => stats.running === 0);
  assert.deepEqual([stats.running, stats.generated_tokens], [0, 0]);
}

Deno.test("serve: conversations outlive the program, also when it is killed", async () => {
  const dir = await Deno.makeTempDir();
  const flags = ["--store", join(dir, "conversations.sqlite")];
  let id = "";
  const ask = async (url: string, path: string, body?: unknown) => {
    const headers = { "content-type": "application/json" };
    const init = body === undefined ? {} : { method: "POST", headers, body: JSON.stringify(body) };
    const response = await fetch(`${url}/v1/conversations${path}`, init);
    assert.equal(response.status, 200);
    return await response.json();
  };
  for (const [round, signal] of (["SIGKILL", "SIGTERM", "SIGKILL"] as const).entries()) {
    await using server = await served(TINY_MODEL, { flags });
    id ||= (await ask(server.url, "", {})).id;
    await ask(server.url, `/${id}/items`, { items: user(`${round}`.repeat(100_000)) });
    await server.end(signal);
  }
  await using server = await served(TINY_MODEL, { flags });
  const { data } = await ask(server.url, `/${id}/items?order=asc`);
  assert.deepEqual(
    data.map((item: { content: { text: string }[] }) => item.content[0]!.text),
    [0, 1, 2].map((round) => {
      return `${round}`.repeat(100_000);
    }),
  );
  await server.end();
  await Deno.remove(dir, { recursive: true });
});
