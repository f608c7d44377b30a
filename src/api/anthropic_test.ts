import assert from "node:assert/strict";
import { EngineError, type EngineErrorCode } from "../engine/engine.ts";
import { type MessagesEvent, MessageWriter, parseMessagesRequest } from "../protocol/mod.ts";
import type { TurnEvent } from "../sessions/turn_event.ts";
import { messageEvents } from "./anthropic.ts";
import { done, events, postRequest, said, type Script, testApp, untilAborted } from "./test_support.ts";

const minimal = { model: "org/model", max_tokens: 2, messages: [{ role: "user", content: "hi" }] };

function messagesRequest(fields: Record<string, unknown> = {}, init: RequestInit = {}): Request {
  return postRequest("/v1/messages", { ...minimal, ...fields }, init);
}

const started = { type: "started", promptTokens: 3 } as const;
const usage = (input: number, output: number) =>
  `"input_tokens":${input},"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":${output},` +
  `"output_tokens_details":null,"server_tool_use":null`;

function sse(type: string, fields: string): string {
  return `event: ${type}\ndata: {"type":"${type}"${fields === "" ? "" : ","}${fields}}\n\n`;
}

const opening = sse(
  "message_start",
  `"message":{"id":"msg_1","type":"message","role":"assistant","model":"org/model","content":[],"stop_reason":null,` +
    `"stop_sequence":null,"stop_details":null,"container":null,"diagnostics":null,` +
    `"usage":{${usage(3, 0)},"cache_creation":null,"inference_geo":null,"service_tier":null,"speed":null}}`,
);
const textBlock = sse("content_block_start", `"index":0,"content_block":{"type":"text","text":"","citations":null}`);
const textDelta = (text: string) =>
  sse("content_block_delta", `"index":0,"delta":{"type":"text_delta","text":${JSON.stringify(text)}}`);
const blockStop = sse("content_block_stop", `"index":0`);

function closing(reason: string, stop = "null"): string {
  const delta = `"delta":{"stop_reason":"${reason}","stop_sequence":${stop},"stop_details":null,"container":null}`;
  return sse("message_delta", `${delta},"usage":{${usage(3, 2)}}`) + sse("message_stop", "");
}

async function checkStream(script: Script, fields: Record<string, unknown>, expected: string): Promise<void> {
  const { app } = testApp(script);
  const response = await app.request(messagesRequest({ stream: true, ...fields }));
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  assert.equal(response.headers.get("request-id"), response.headers.get("x-request-id"));
  assert.equal(await response.text(), expected);
}

function failing(code: EngineErrorCode, message: string, ...before: Parameters<typeof events>): Script {
  return async function* () {
    yield* before;
    throw new EngineError(code, message);
  };
}

Deno.test("whole: the reply as one message, with counts", async () => {
  const { app } = testApp(events(started, said("Hel"), said("lo 🦙"), done()));
  const response = await app.request(messagesRequest({ metadata: { user_id: "u" } }, {
    headers: { "anthropic-version": "2023-06-01", "anthropic-beta": "x" },
  }));
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("x-llamero-ignored"), "metadata");
  const counts = { input_tokens: 3, cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 2 };
  assert.partialDeepStrictEqual(await response.json(), {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "org/model",
    content: [{ type: "text", text: "Hello 🦙" }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: counts,
  });
});

Deno.test("stream: bytes", async () => {
  const script = events(started, said("Hel"), said("lo\n🦙"), done());
  const pieces = opening + textBlock + textDelta("Hel") + textDelta("lo\n🦙") + blockStop;
  await checkStream(script, {}, pieces + closing("end_turn"));
  await checkStream(events(started, done("length")), {}, opening + closing("max_tokens"));
});

Deno.test("stream: a failure after the start is its last event, without message_stop and without our insides", async () => {
  const cases: [EngineErrorCode, string, string][] = [
    ["closed", "why", "closed"],
    ["internal", "the server failed; its log has the reason", "internal_error"],
  ];
  for (const [code, shown, errorCode] of cases) {
    const { app } = testApp(failing(code, "why", started, said("x")));
    const response = await app.request(messagesRequest({ stream: true }, { headers: { "x-request-id": "r1" } }));
    const details = `"details":{"error_code":"${errorCode}","param":null}`;
    const error = `"error":{"type":"api_error","message":"${shown}",${details}},"request_id":"r1"`;
    assert.equal(await response.text(), opening + textBlock + textDelta("x") + sse("error", error));
  }
});

Deno.test("stream: silence is filled with pings, before and after the start", async () => {
  const [start, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const script: Script = async function* () {
    await start.promise;
    yield started;
    await end.promise;
    yield done();
  };
  const { app } = testApp(script, { keepAliveMs: 5 });
  const response = await app.request(messagesRequest({ stream: true }));
  const ping = sse("ping", "");
  let text = "";
  for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
    text += piece;
    if (text === ping + ping) start.resolve();
    if (text.endsWith(opening + ping + ping)) end.resolve();
  }
  const [before, after] = text.split(opening);
  assert.deepEqual([before!.replaceAll(ping, ""), after!.replaceAll(ping, "")], ["", closing("end_turn")]);
});

Deno.test("stream: leaving cancels the engine", async () => {
  const { app, engine } = testApp(untilAborted(started, said("x")));
  const response = await app.request(messagesRequest({ stream: true }));
  const reader = response.body!.getReader();
  await reader.read();
  assert.equal(engine.calls[0]!.signal.aborted, false);
  await reader.cancel();
  assert.equal(engine.calls[0]!.signal.aborted, true);
});

async function turn(fields: Record<string, unknown>, ...all: TurnEvent[]): Promise<[MessageWriter, MessagesEvent[]]> {
  const writer = new MessageWriter({ id: "1", model: "m" });
  const script = async function* () {
    yield* all;
  };
  const request = parseMessagesRequest({ ...minimal, ...fields });
  return [writer, await Array.fromAsync(messageEvents(writer, request, script()))];
}

Deno.test("why a reply ended: only stop texts of the request are told, and a full context is none of its limits", async () => {
  const stopped = (stop: string): TurnEvent => ({ ...done(), stop });
  const cases: [Record<string, unknown>, TurnEvent, string, string | null][] = [
    [{}, done(), "end_turn", null],
    [{ stop_sequences: ["END"] }, stopped("END"), "stop_sequence", "END"],
    [{ stop_sequences: ["END"] }, stopped("<end>"), "end_turn", null],
    [{}, done("length"), "max_tokens", null],
    [{ max_tokens: 3 }, done("length"), "model_context_window_exceeded", null],
  ];
  for (const [fields, end, reason, stop] of cases) {
    const [{ message }] = await turn(fields, started, said("x"), end);
    assert.deepEqual([message.stop_reason, message.stop_sequence], [reason, stop]);
  }
  await assert.rejects(turn({}, started, done("cancelled")), { name: "ApiError", status: 503 });
});

Deno.test("thoughts, text and calls become blocks, and a call is why the reply ended", async () => {
  const [{ message }, written] = await turn(
    {},
    started,
    { type: "reasoning", text: "hm" },
    said("let me see"),
    { type: "tool_call", index: 0, id: "call_1", name: "weather" },
    { type: "tool_arguments", index: 0, text: '{"city":' },
    { type: "tool_arguments", index: 0, text: '"Paris"}' },
    { type: "tool_call", index: 1, id: "call_2", name: "clock" },
    done(),
  );
  const caller = { type: "direct" };
  assert.deepEqual(message.content, [
    { type: "thinking", thinking: "hm", signature: "" },
    { type: "text", text: "let me see", citations: null },
    { type: "tool_use", id: "call_1", name: "weather", input: { city: "Paris" }, caller },
    { type: "tool_use", id: "call_2", name: "clock", input: {}, caller },
  ]);
  assert.equal(message.stop_reason, "tool_use");
  const deltas = written.flatMap((event) => event.type === "content_block_delta" ? [event.delta.type] : []);
  assert.deepEqual(deltas, ["thinking_delta", "text_delta", "input_json_delta", "input_json_delta"]);
});

Deno.test("a call that a limit broke off says so", async () => {
  const call: TurnEvent = { type: "tool_call", index: 0, id: "c", name: "weather" };
  const [{ message }] = await turn(
    {},
    started,
    call,
    { type: "tool_arguments", index: 0, text: '{"ci' },
    done("length"),
  );
  assert.equal(message.stop_reason, "max_tokens");
  assert.partialDeepStrictEqual(message.content, [{ type: "tool_use", input: '{"ci' }]);
});

interface Refusal {
  status: number;
  type: string;
  message: RegExp;
}

async function checkRefused(request: Request, { status, type, message }: Refusal, script: Script = events(done())) {
  const { app } = testApp(script);
  const response = await app.request(request);
  const text = await response.text();
  assert.equal(response.status, status, text);
  const body = JSON.parse(text);
  assert.deepEqual([body.type, body.error.type, Object.keys(body)], ["error", type, ["type", "error", "request_id"]]);
  assert.equal(body.request_id, response.headers.get("request-id"));
  assert.match(body.error.message, message);
  return response;
}

Deno.test("refusals and failures have Anthropic's envelope, their true status and the request's id", async () => {
  const invalid = (message: RegExp, status = 400) => ({ status, type: "invalid_request_error", message });
  await checkRefused(messagesRequest({ temperature: 2 }), invalid(/^temperature: .* got 2$/));
  await checkRefused(messagesRequest({ max_tokens: undefined }), invalid(/^max_tokens: .* got nothing$/));
  await checkRefused(messagesRequest({}, { body: "{oops" }), invalid(/expected JSON/));
  await checkRefused(messagesRequest({}, { headers: { "content-type": "text/plain" } }), invalid(/^content-type/, 415));
  const unknown = { status: 404, type: "not_found_error", message: /got "claude"$/ };
  await checkRefused(messagesRequest({ model: "claude" }), unknown);
  await checkRefused(new Request("http://localhost/v1/messages"), invalid(/expected POST, got GET$/, 405));
  const nowhere = new Request("http://localhost/v1/messages/batches");
  await checkRefused(nowhere, { status: 404, type: "not_found_error", message: /unknown one$/ });
  const foreign = messagesRequest({}, { headers: { host: "evil.test" } });
  await checkRefused(foreign, { status: 403, type: "permission_error", message: /^Host header/ });
  for (const stream of [false, true]) {
    const request = () => messagesRequest({ stream });
    const busy = { status: 429, type: "rate_limit_error", message: /^too many$/ };
    const refused = await checkRefused(request(), busy, failing("overloaded", "too many"));
    assert.equal(refused.headers.get("retry-after"), "1");
    await checkRefused(request(), invalid(/^too long$/), failing("context_overflow", "too long"));
    const ours = { status: 500, type: "api_error", message: /^the server failed; its log has the reason$/ };
    await checkRefused(request(), ours, failing("internal", "panic at x.rs"));
  }
});

Deno.test("the engine gets the rendered prompt, stop texts, limit and sampling", async () => {
  const { app, engine } = testApp(events(done()));
  const fields = { system: "be brief", stop_sequences: ["END"], temperature: 0, top_k: 5, min_p: 0.1, max_tokens: 9 };
  assert.equal((await app.request(messagesRequest(fields))).status, 200);
  const { prompt, stop, maxTokens, sampling } = engine.calls[0]!.request;
  assert.equal(prompt.join(""), "system:be brief\nuser:hi\n");
  assert.deepEqual([[...stop!].sort(), maxTokens], [["<end>", "END"], 9]);
  assert.deepEqual(sampling, { temperature: 0, topK: 5, minP: 0.1 });
});

Deno.test("count_tokens: the tokens of the rendered prompt, without generating", async () => {
  const { app, engine } = testApp(events(done()));
  const { max_tokens: _, ...prompt } = minimal;
  const count = async (fields: Record<string, unknown>) => {
    const response = await app.request(postRequest("/v1/messages/count_tokens", { ...prompt, ...fields }));
    assert.equal(response.status, 200);
    return await response.json();
  };
  // The begin token, and one for each character of `user:hi\n`.
  assert.deepEqual(await count({}), { input_tokens: 9 });
  assert.deepEqual(await count({ system: "s" }), { input_tokens: 9 + "system:s\n".length });
  assert.deepEqual(engine.calls, []);
  const other = postRequest("/v1/messages/count_tokens", { ...prompt, model: "claude" });
  await checkRefused(other, { status: 404, type: "not_found_error", message: /got "claude"$/ });
});
