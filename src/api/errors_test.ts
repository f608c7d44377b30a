import assert from "node:assert/strict";
import { ChatTemplateError, type ChatTemplateErrorCode } from "../chat/message.ts";
import { EngineError, type EngineErrorCode } from "../engine/engine.ts";
import { ProtocolError } from "../protocol/mod.ts";
import { SessionError, type SessionErrorCode } from "../sessions/error.ts";
import { StoreError, type StoreErrorCode } from "../sessions/entry.ts";
import { ApiError, toApiError } from "./errors.ts";
import { chatRequest, done, events, postRequest, said, type Script, testApp } from "./test_support.ts";

const SECRET = "panic at /home/x.rs:7";

type Row = [error: unknown, status: number, type: string, code: string, param: string | null];

const engine = (
  code: EngineErrorCode,
  status: number,
  type: string,
  shown: string = code,
  param: string | null = null,
) => [new EngineError(code, SECRET), status, type, shown, param] satisfies Row;
const template = (code: ChatTemplateErrorCode, status: number) =>
  (status === 400
    ? [new ChatTemplateError(code, SECRET), 400, "invalid_request_error", "invalid_value", "messages"]
    : [new ChatTemplateError(code, SECRET), 500, "server_error", "internal_error", null]) satisfies Row;
const session = (code: SessionErrorCode, status: number, shown: string) =>
  [new SessionError(code, SECRET), status, "invalid_request_error", shown, null] satisfies Row;
const store = (code: StoreErrorCode, status: number, type: string, shown: string) =>
  [new StoreError(code, SECRET), status, type, shown, null] satisfies Row;

/** Every failure that there is, and what a client sees of it. */
const ROWS: readonly Row[] = [
  [new ProtocolError("invalid_json", "why"), 400, "invalid_request_error", "invalid_json", null],
  [new ProtocolError("invalid_value", "why", "n"), 400, "invalid_request_error", "invalid_value", "n"],
  [new ProtocolError("unsupported_value", "why", "n"), 400, "invalid_request_error", "unsupported_value", "n"],
  engine("invalid_request", 400, "invalid_request_error", "invalid_value"),
  engine("unsupported", 400, "invalid_request_error", "unsupported_value"),
  engine("context_overflow", 400, "invalid_request_error", "context_length_exceeded", "messages"),
  engine("overloaded", 429, "overloaded_error"),
  engine("closed", 503, "server_error"),
  ...(["not_found", "io", "invalid_format", "internal", "insufficient_resources"] as const)
    .map((code) => engine(code, 500, "server_error", "internal_error")),
  ...(["invalid_message", "invalid_order", "unguardable", "refused", "limit"] as const).map((code) =>
    template(code, 400)
  ),
  ...(["no_template", "unknown_template", "invalid_template", "failed"] as const).map((code) => template(code, 500)),
  session("not_found", 404, "not_found"),
  session("conflict", 409, "conversation_conflict"),
  session("gone", 410, "resume_gone"),
  session("invalid", 400, "invalid_value"),
  session("too_large", 413, "too_large"),
  [new SessionError("too_many", SECRET), 429, "overloaded_error", "too_many_responses", null],
  [
    new SessionError("not_found", SECRET, "response_id"),
    404,
    "invalid_request_error",
    "response_not_found",
    "response_id",
  ],
  store("too_large", 413, "invalid_request_error", "too_large"),
  store("full", 503, "server_error", "store_full"),
  [new ApiError(409, { code: "x", message: "why", type: "t", param: "p" }), 409, "t", "x", "p"],
  ...[new TypeError(SECRET), SECRET, undefined, null, { status: 418, message: SECRET }]
    .map((error): Row => [error, 500, "server_error", "internal_error", null]),
];

/** Those that code can throw: the router hands on nothing else. */
const ERRORS = ROWS.filter(([error]) => error instanceof Error);

/** What a client must never see: a stack, or the sentence of our own mistake. */
function checkShown(status: number, message: string): void {
  assert.notEqual(message, "");
  assert.doesNotMatch(message, /\n|\bat .*:\d+:\d+/);
  if (status === 500) assert.equal(message, "the server failed; its log has the reason");
}

Deno.test("every failure has its status, type, code and param, and only the caller's show their reason", () => {
  for (const [error, status, type, code, param] of ROWS) {
    const shown = toApiError(error);
    assert.deepEqual([shown.status, shown.wire.type, shown.wire.code, shown.wire.param], [status, type, code, param]);
    checkShown(status, shown.wire.message);
    assert.equal(shown.headers["retry-after"], status === 429 ? "1" : undefined);
  }
});

/** A script that fails with `error`, after some text. */
function failing(error: unknown, ...before: string[]): Script {
  return async function* () {
    yield* before.map((text) => said(text));
    throw error;
  };
}

const ASKED = {
  "/v1/chat/completions": { messages: [{ role: "user", content: "hi" }] },
  "/v1/completions": { prompt: "hi" },
};

Deno.test("before a reply begins, streamed or whole, a failure is the envelope with its status", async () => {
  for (const [path, fields] of Object.entries(ASKED)) {
    for (const [error, status, type, code, param] of ERRORS) {
      for (const stream of [false, true]) {
        const { app, log } = testApp(failing(error));
        const response = await app.request(postRequest(path, { model: "org/model", stream, ...fields }));
        assert.equal(response.status, status);
        assert.equal(response.headers.get("content-type"), "application/json");
        const body = await response.json();
        assert.deepEqual(Object.keys(body.error), ["message", "type", "param", "code"]);
        const named = path === "/v1/completions" && param === "messages" ? "prompt" : param;
        assert.deepEqual([body.error.type, body.error.code, body.error.param], [type, code, named]);
        checkShown(status, body.error.message);
        assert.equal(log.filter(({ event }) => event === "failure").length, status === 500 ? 1 : 0);
      }
    }
  }
});

Deno.test("inside a stream a failure is its last event, the same envelope, and nothing says that it is done", async () => {
  for (const [path, fields] of Object.entries(ASKED)) {
    for (const [error, status, type, code] of ERRORS) {
      const { app } = testApp(failing(error, "x"));
      const response = await app.request(postRequest(path, { model: "org/model", stream: true, ...fields }));
      assert.equal(response.status, 200);
      const last = (await response.text()).trimEnd().split("\n\n").at(-1)!;
      const body = JSON.parse(last.slice("data: ".length));
      assert.deepEqual(Object.keys(body), ["error"]);
      assert.deepEqual([body.error.type, body.error.code], [type, code]);
      checkShown(status, body.error.message);
    }
  }
});

Deno.test("whatever a body is, it never makes the server fail", async () => {
  const numbers = [-1, 0, 0.5, 2 ** 31, 2 ** 53, 1e308, "1", "", null, true, [], [[]], {}, "\ud800"];
  const { app } = testApp(events(done()));
  const fields = ["temperature", "top_k", "max_tokens", "n", "seed", "logprobs", "top_logprobs", "logit_bias", "stop"];
  fields.push("messages", "prompt", "tools", "tool_choice", "response_format", "structured_outputs", "stream");
  fields.push("stream_options", "samplers", "best_of", "echo", "model", "chat_template_kwargs", "functions");
  for (const [path, minimal] of Object.entries(ASKED)) {
    for (const field of fields) {
      for (const value of numbers) {
        const response = await app.request(postRequest(path, { model: "org/model", ...minimal, [field]: value }));
        assert([200, 400, 404].includes(response.status), `${field} ${JSON.stringify(value)}: ${response.status}`);
        await response.body?.cancel();
      }
    }
  }
});

Deno.test("a hundred thousand brackets are refused wherever they are", async () => {
  const deep = "[".repeat(100_000) + "]".repeat(100_000);
  const { app, engine } = testApp(events(done()));
  const fields = [
    `"tools":[{"type":"function","function":{"name":"f","parameters":{"a":${deep}}}}]`,
    `"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"a":${deep}}}}`,
    `"chat_template_kwargs":{"a":${deep}}`,
    `"messages":${deep}`,
    `"metadata":${deep}`,
  ];
  for (const field of fields) {
    const body = `{"model":"org/model","messages":[{"role":"user","content":"hi"}],${field}}`;
    const response = await app.request(chatRequest({}, { body }));
    assert.equal(response.status, 400, field.slice(0, 40));
    await response.body?.cancel();
  }
  assert.deepEqual(engine.calls, []);
});
