import assert from "node:assert/strict";
import { EngineError, type EngineErrorCode, type GenerateEvent } from "../engine/engine.ts";
import { done, events, said, type Script, testApp, untilAborted } from "./test_support.ts";

const PATHS = ["/generate", "/generate_stream"];

function post(path: string, parameters: Record<string, unknown> = {}, init: RequestInit = {}): Request {
  const body = JSON.stringify({ inputs: "Hi ", parameters });
  const headers = { "content-type": "application/json", ...init.headers };
  return new Request(`http://localhost${path}`, { method: "POST", body, ...init, headers });
}

const failing = (code: EngineErrorCode, ...before: GenerateEvent[]): Script =>
  async function* () {
    yield* before;
    throw new EngineError(code, "what it was");
  };

/** Ended by a stop text. */
const stopped: GenerateEvent = { ...done(), stop: "END" };

async function whole(script: Script, parameters: Record<string, unknown> = {}): Promise<unknown> {
  const response = await testApp(script).app.request(post("/generate", parameters));
  assert.equal(response.status, 200);
  return await response.json();
}

async function streamed(script: Script, parameters: Record<string, unknown> = {}): Promise<string> {
  const response = await testApp(script).app.request(post("/generate_stream", parameters));
  assert.deepEqual([response.status, response.headers.get("content-type")], [200, "text/event-stream"]);
  return await response.text();
}

async function checkRefused(request: Request, status: number, kind: string, message: RegExp, script = events(done())) {
  const response = await testApp(script).app.request(request);
  const text = await response.text();
  assert.equal(response.status, status, text);
  const { error, error_type, ...rest } = JSON.parse(text);
  assert.deepEqual([error_type, rest], [kind, {}]);
  assert.match(error, message);
  return response;
}

Deno.test("generate: whole, with details and the prompt when they are asked for", async () => {
  const script = events(said("Hel"), said("lo"), done());
  assert.deepEqual(await whole(script), { generated_text: "Hello" });
  assert.deepEqual(await whole(script, { return_full_text: true, details: true, seed: 7 }), {
    generated_text: "Hi Hello",
    details: { finish_reason: "eos_token", generated_tokens: 2, seed: 7, prefill: [] },
  });
});

Deno.test("generate: each way to end has its reason, and a stop text is part of the reply", async () => {
  const ends: [GenerateEvent, string, string][] = [
    [done(), "a", "eos_token"],
    [done("length"), "a", "length"],
    [stopped, "aEND", "stop_sequence"],
  ];
  for (const [end, generated_text, finish_reason] of ends) {
    const details = { finish_reason, generated_tokens: 2, seed: null, prefill: [] };
    assert.deepEqual(await whole(events(said("a"), end), { details: true }), { generated_text, details });
  }
});

Deno.test("generate: bytes of a stream, whose last piece has the whole text", async () => {
  const piece = (index: number, text: string) =>
    `data: {"index":${index},"token":{"text":"${text}","special":false},"generated_text":null,"details":null}\n\n`;
  const end = (token: string, text: string, reason: string) =>
    `data: {"index":2,"token":${token},"generated_text":"${text}","details":{"finish_reason":"${reason}",` +
    `"generated_tokens":2,"seed":null,"input_length":3}}\n\n`;
  const texts = [said("a", 1), said("b", 2)];
  const pieces = piece(1, "a") + piece(2, "b");
  const special = '{"text":"","special":true}';
  assert.equal(await streamed(events(...texts, done())), pieces + end(special, "ab", "eos_token"));
  assert.equal(await streamed(events(...texts, done("length"))), pieces + end(special, "ab", "length"));
  const stop = '{"text":"END","special":false}';
  assert.equal(await streamed(events(...texts, stopped)), pieces + end(stop, "abEND", "stop_sequence"));
  const full = await streamed(events(...texts, done()), { return_full_text: true });
  assert.equal(full, pieces + end(special, "Hi ab", "eos_token"));
});

Deno.test("generate: the engine gets the prompt as it stands, greedy unless chance is asked for", async () => {
  const asked: [Record<string, unknown>, Record<string, unknown>][] = [
    [{}, { temperature: 0, topP: 0.9 }],
    [{ do_sample: true, top_k: 5, seed: 1 }, { temperature: 0.3, topK: 5, topP: 0.9, seed: 1 }],
    [{ temperature: 2 }, { temperature: 2, topP: 0.9 }],
  ];
  for (const path of PATHS) {
    for (const [parameters, expected] of asked) {
      const defaults = { sampling: { temperature: 0.3, topP: 0.9 }, maxTokens: 20 };
      const { app, engine } = testApp(events(done()), { defaults });
      const body = JSON.stringify({ inputs: "<s>[INST] a</s>", parameters: { ...parameters, stop: ["END"] } });
      await (await app.request(post(path, {}, { body }))).text();
      const { prompt, sampling, stop, maxTokens } = engine.calls[0]!.request;
      assert.deepEqual([prompt, sampling, stop, maxTokens], [["[INST] a</s>"], expected, ["END"], 20]);
    }
  }
});

Deno.test("generate: refusals and engine failures have their status and kind", async () => {
  const failures: [EngineErrorCode, number, string, RegExp][] = [
    ["context_overflow", 400, "validation", /^what it was$/],
    ["overloaded", 429, "overloaded", /^what it was$/],
    ["closed", 503, "generation", /^what it was$/],
    ["internal", 500, "generation", /^the server failed/],
  ];
  for (const path of PATHS) {
    for (const [code, ...refusal] of failures) await checkRefused(post(path), ...refusal, failing(code));
    await checkRefused(post(path, { top_k: 0 }), 400, "validation", /^parameters\.top_k: .* got 0$/);
    await checkRefused(post(path, { grammar: {} }), 400, "validation", /^parameters\.grammar\.type: .*"regex"/);
    await checkRefused(post(path, {}, { body: "{}" }), 400, "validation", /^inputs: /);
    await checkRefused(post(path, {}, { headers: { "content-type": "text/plain" } }), 415, "validation", /json/);
    await checkRefused(new Request(`http://localhost${path}`), 405, "validation", /expected POST, got GET$/);
  }
});

Deno.test("generate: a failure inside a stream is its last event, without our insides", async () => {
  const failures: [Script, string][] = [
    [failing("closed", said("x")), "what it was"],
    [failing("internal", said("x")), "the server failed; its log has the reason"],
    [events(said("x"), done("cancelled")), "the reply was cancelled before its end; the server is closing"],
  ];
  for (const [script, error] of failures) {
    const last = (await streamed(script)).trimEnd().split("\n\n").at(-1);
    assert.equal(last, `data: ${JSON.stringify({ error, error_type: "generation" })}`);
  }
});

Deno.test("generate: leaving cancels the engine, and silence is filled", async () => {
  const fillers: Record<string, string> = { "/generate": "  ", "/generate_stream": ": keep-alive\n\n: keep-alive\n\n" };
  for (const [path, filler] of Object.entries(fillers)) {
    const { app, engine } = testApp(untilAborted(said("x")), { headAfterMs: 5, keepAliveMs: 5 });
    const reader = (await app.request(post(path))).body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.endsWith(filler)) text += (await reader.read()).value;
    assert.equal(engine.calls[0]!.signal.aborted, false);
    await reader.cancel();
    assert.equal(engine.calls[0]!.signal.aborted, true);
  }
});
