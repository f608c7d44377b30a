/**
 * What the service costs: tokens a second of one process over many streams with an engine that emits at will, and what
 * HTTP adds to the first token and to decoding of a real model.
 *
 *     deno task bench:service [--streams 100] [--tokens 1000] [--model FILE] [--json]
 *
 * The first part has the server in a process of its own and reads here, both on this machine: the reader's share of the
 * processor is not the server's, but it is taken from it where there are few cores. The second part runs the engine, the
 * server and the client in this process, in turns with and without the service, so that it tells more than the service
 * alone costs.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { createApp } from "../src/api/app.ts";
import { Metrics } from "../src/api/metrics.ts";
import { median } from "../src/cli/bench_table.ts";
import { tracer } from "../src/api/trace.ts";
import { type Engine, openEngine } from "../src/engine/mod.ts";

const SERVER = fileURLToPath(new URL("./bench_service_server.ts", import.meta.url));
const MODEL = "fake";
const PROMPT = "Once upon a time";
/** What is wanted, for the last column. */
const WANTED = { tokensPerSecond: 20_000, firstTokenMs: 1, decodePercent: 3 };
/** Turns of the second part; medians are taken. */
const ROUNDS = 41;
/** Replies of one token before them: a service that runs has been compiled by what it did before. */
const WARM_UP = 150;
const DECODED = 64;

interface Result {
  what: string;
  value: number;
  unit: string;
  wanted: string;
  met: boolean;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      streams: { type: "string", default: "100" },
      tokens: { type: "string", default: "1000" },
      model: { type: "string" },
      json: { type: "boolean", default: false },
    },
  });
  const [streams, tokens] = [Number(values.streams), Number(values.tokens)];
  const results = [
    await withServer((port) => rate(`SSE, ${streams} streams`, streams, tokens, () => sse(port, tokens))),
    await withServer((port) => rate(`WebSocket, ${streams} sockets`, streams, tokens, () => socket(port, tokens))),
  ];
  if (values.model) results.push(...await overhead(values.model));
  if (values.json) return console.log(JSON.stringify(results));
  for (const { what, value, unit, wanted, met } of results) {
    console.log(
      `${what.padEnd(34)} ${value.toFixed(unit === "tokens/s" ? 0 : 2).padStart(9)} ${unit.padEnd(9)} ` +
        (wanted && `wanted ${wanted}: ${met ? "met" : "MISSED"}`),
    );
  }
}

async function withServer<T>(measure: (port: number) => Promise<T>): Promise<T> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", SERVER],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const port = Number((await reader.read()).value);
  try {
    return await measure(port);
  } finally {
    await child.stdin.close();
    await reader.cancel();
    await child.status;
  }
}

/** All streams at once, after a small warm-up. */
async function rate(what: string, streams: number, tokens: number, one: () => Promise<number>): Promise<Result> {
  await Promise.all(Array.from({ length: 8 }, one));
  const started = performance.now();
  const counts = await Promise.all(Array.from({ length: streams }, one));
  const seconds = (performance.now() - started) / 1000;
  const wrong = counts.find((count) => count !== tokens);
  if (wrong !== undefined) throw new Error(`${what}: expected ${tokens} tokens in each stream, got ${wrong}`);
  const value = streams * tokens / seconds;
  return {
    what,
    value,
    unit: "tokens/s",
    wanted: `at least ${WANTED.tokensPerSecond}`,
    met: value >= WANTED.tokensPerSecond,
  };
}

function chatBody(model: string, maxTokens: number): string {
  const messages = [{ role: "user", content: "Write a long story." }];
  return JSON.stringify({ model, messages, stream: true, max_tokens: maxTokens, temperature: 0 });
}

function head(port: number, body: string): Uint8Array {
  return new TextEncoder().encode(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/json\r\n` +
      `content-length: ${new TextEncoder().encode(body).length}\r\n\r\n${body}`,
  );
}

/** One stream over a bare connection: a client that parses would measure itself. Gives the number of pieces with text. */
async function sse(port: number, tokens: number): Promise<number> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  let count = 0;
  for await (const text of textOf(connection, head(port, chatBody(MODEL, tokens)))) {
    for (let at = text.indexOf('"content":" '); at >= 0; at = text.indexOf('"content":" ', at + 1)) count++;
    if (text.includes("[DONE]")) break;
  }
  return count;
}

/** What comes back for a request, in whole lines. */
async function* textOf(connection: Deno.TcpConn, request: Uint8Array): AsyncGenerator<string> {
  await connection.write(request);
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(1 << 16);
  let rest = "";
  for (;;) {
    const size = await connection.read(buffer);
    if (size === null) return;
    const text = rest + decoder.decode(buffer.subarray(0, size), { stream: true });
    const end = text.lastIndexOf("\n") + 1;
    rest = text.slice(end);
    if (end > 0) yield text.slice(0, end);
  }
}

function socket(port: number, tokens: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const ws = new WebSocket(`ws://127.0.0.1:${port}/v1/responses`);
  let count = 0;
  ws.onopen = () => {
    const input = "Write a long story.";
    ws.send(JSON.stringify({ type: "response.create", model: MODEL, input, max_output_tokens: tokens, store: false }));
  };
  ws.onmessage = ({ data }) => {
    if (data.startsWith('{"type":"response.output_text.delta"')) count += data.split(" token").length - 1;
    else if (/^\{"type":"response\.(incomplete|completed)"/.test(data)) {
      resolve(count);
      ws.close();
    } else if (data.startsWith('{"type":"error"') || data.startsWith('{"type":"response.failed"')) {
      reject(new Error(data));
    }
  };
  ws.onerror = () => reject(new Error("the socket failed"));
  return promise;
}

interface Timed {
  firstMs: number;
  decodeMs: number;
}

/** The same reply without the service, through the application, and over a connection, in turns. */
async function overhead(model: string): Promise<Result[]> {
  await using engine = await openEngine({ model });
  const template = { name: "plain", render: () => ({ prompt: [PROMPT], stop: [] }) };
  const metrics = new Metrics({ engine, modelId: MODEL });
  const observers = [metrics, tracer(MODEL)];
  const app = createApp({ engine, template, modelId: MODEL, observers, log() {} });
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request, info) => app.fetch(request, info),
  );
  const { port } = server.addr;
  const ways = {
    direct: () => timed(piecesOf(engine)),
    inside: (tokens: number) => timed(textOfBody(() => app.fetch(chatRequest(port, tokens)))),
    outside: async (tokens: number) => {
      using connection = await Deno.connect({ hostname: "127.0.0.1", port });
      return await timed(textOf(connection, head(port, chatBody(MODEL, tokens))));
    },
  };
  for (let each = 0; each < WARM_UP; each++) await (each % 2 === 0 ? ways.inside(1) : ways.outside(1));
  const [direct, inside, outside]: Timed[][] = [[], [], []];
  for (let round = 0; round < ROUNDS; round++) {
    direct!.push(await ways.direct());
    inside!.push(await ways.inside(DECODED));
    outside!.push(await ways.outside(DECODED));
  }
  await server.shutdown();
  const first = (served: Timed[]) => median(served.map(({ firstMs }, at) => firstMs - direct![at]!.firstMs));
  const share = 100 * median(outside!.map(({ decodeMs }, at) => decodeMs / direct![at]!.decodeMs - 1));
  const [own, all] = [first(inside!), first(outside!)];
  return [
    { what: "added to the first token", value: own, unit: "ms", wanted: "below 1", met: own < WANTED.firstTokenMs },
    { what: "  with HTTP and the connection", value: all, unit: "ms", wanted: "", met: true },
    {
      what: "added to decoding, all in all",
      value: share,
      unit: "%",
      wanted: "below 3",
      met: share < WANTED.decodePercent,
    },
  ];
}

function chatRequest(port: number, tokens: number): Request {
  const headers = { "content-type": "application/json" };
  const body = chatBody(MODEL, tokens);
  return new Request(`http://127.0.0.1:${port}/v1/chat/completions`, { method: "POST", headers, body });
}

/** The reply as the engine gives it, in the form of a stream's pieces. */
async function* piecesOf(engine: Engine): AsyncGenerator<string> {
  const request = { prompt: [PROMPT], maxTokens: DECODED, sampling: { temperature: 0 } };
  for await (const event of engine.generate(request)) {
    if (event.type === "text") yield '"content":"x"';
  }
}

async function* textOfBody(ask: () => Response | Promise<Response>): AsyncGenerator<string> {
  yield* (await ask()).body!.pipeThrough(new TextDecoderStream());
}

async function timed(pieces: AsyncIterable<string>): Promise<Timed> {
  const started = performance.now();
  let first = 0;
  for await (const text of pieces) {
    if (/"content":"[^"]/.test(text)) first ||= performance.now();
    if (text.includes("[DONE]")) break;
  }
  return { firstMs: first - started, decodeMs: performance.now() - first };
}

if (import.meta.main) await main();
