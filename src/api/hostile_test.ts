/** Clients that keep to no protocol, over real connections: they cost the engine nothing, and the server lives on. */
import assert from "node:assert/strict";
import type { AppOptions } from "./app.ts";
import { done, events, testApp } from "./test_support.ts";
import { LATE, within } from "./timing.ts";

const HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

/** How long a client waits for the server to do something. */
const PATIENCE_MS = 30_000;

/** A served application. */
function serve(options: Partial<AppOptions>) {
  const { app, engine } = testApp(events(done()), options);
  const stop = new AbortController();
  const where = { hostname: "127.0.0.1", port: 0, onListen() {}, signal: stop.signal };
  const server = Deno.serve(where, app.fetch);
  return {
    engine,
    port: server.addr.port,
    // Not `shutdown`: that waits for connections, and these clients keep theirs as they like.
    async [Symbol.asyncDispose]() {
      stop.abort();
      await server.finished;
    },
  };
}

/** Sends `pieces` one after another until there is an answer or an end; gives the answer and what was sent. */
async function exchange(port: number, pieces: Iterable<string>): Promise<{ text: string; sent: number }> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  let sent = 0;
  const answer = answerOf(connection);
  const sending = (async () => {
    const encoder = new TextEncoder();
    for (const piece of pieces) {
      const bytes = encoder.encode(piece);
      for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
      sent += bytes.length;
    }
  })().catch(() => {}); // Not taken to the end, or ended with the connection: `sent` tells.
  const text = await within(answer, PATIENCE_MS);
  if (text === LATE) throw new Error(`expected an answer or an end within ${PATIENCE_MS} ms, got neither`);
  void sending;
  return { text, sent };
}

/** What comes until a whole JSON body has, or the other side ends the connection. */
async function answerOf(connection: Deno.TcpConn): Promise<string> {
  const [decoder, buffer] = [new TextDecoder(), new Uint8Array(65536)];
  let text = "";
  while (!text.endsWith("}}")) {
    const n = await connection.read(buffer).catch(() => null);
    if (n === null) break;
    text += decoder.decode(buffer.subarray(0, n));
  }
  return text;
}

async function lives(port: number): Promise<void> {
  assert.equal((await (await fetch(`http://127.0.0.1:${port}/healthz`)).json()).status, "ok");
}

Deno.test("a body that trickles is given up with 408, declared or in chunks, and costs the engine nothing", async () => {
  await using server = serve({ bodyTimeoutMs: 50 });
  for (const framing of ["Content-Length: 1000\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]) {
    const { text } = await exchange(server.port, [HEAD + framing]);
    assert.match(text, /^HTTP\/1\.1 408 /);
    assert.match(text, /connection: close\r\n/i);
    assert.match(text, /"code":"request_timeout"/);
  }
  assert.deepEqual(server.engine.calls, []);
  await lives(server.port);
});

Deno.test("a body without end is refused at its limit, not when it ends", async () => {
  await using server = serve({ maxBodyBytes: 2 ** 20 });
  const chunk = `10000\r\n${"x".repeat(65536)}\r\n`;
  function* gigabyte() {
    yield `${HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n`;
    for (let i = 0; i < 2 ** 14; i++) yield chunk;
  }
  const { text, sent } = await exchange(server.port, gigabyte());
  assert.match(text, /^HTTP\/1\.1 413 /);
  assert.ok(sent < 2 ** 26, `${sent} bytes were taken`);
  const declared = await exchange(server.port, [`${HEAD}Connection: close\r\nContent-Length: 1073741824\r\n\r\n`]);
  assert.match(declared.text, /^HTTP\/1\.1 413 /);
  await lives(server.port);
});

Deno.test("heads of a megabyte, many headers and what is no HTTP end their connection", async () => {
  await using server = serve({});
  const many = Array.from({ length: 10_000 }, (_, i) => `x${i}: y\r\n`).join("");
  const heads = [
    `${HEAD}x: ${"y".repeat(2 ** 20)}\r\n\r\n`,
    `${HEAD}${many}\r\n`,
    `GET /${"y".repeat(2 ** 20)} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
    "\0\x01\x02\r\n\r\n",
    "GET / HTTP/9.9\r\n\r\n",
  ];
  for (const head of heads) {
    const { text } = await exchange(server.port, [head]);
    assert.match(text, /^(HTTP\/1\.1 4\d\d [^]*)?$/, head.slice(0, 40));
  }
  assert.deepEqual(server.engine.calls, []);
  await lives(server.port);
});
