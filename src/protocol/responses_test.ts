import assert from "node:assert/strict";
import type OpenAI from "openai";
import {
  type CreateFrame,
  parseClientFrame,
  ProtocolError,
  type ResponseEvent,
  responseUsage,
  ResponseWriter,
  type WireResponse,
} from "./mod.ts";

const minimal = { type: "response.create", model: "m", input: "hi" };

function checkRefused(frame: unknown, param: string | null, message: RegExp): void {
  const text = typeof frame === "string" ? frame : JSON.stringify(frame);
  assert.throws(() => parseClientFrame(text), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.equal(error.param, param, error.message);
    assert.match(error.message, message);
    return true;
  });
}

function createFrame(fields: Record<string, unknown> = {}): CreateFrame {
  const frame = parseClientFrame(JSON.stringify({ ...minimal, ...fields }));
  assert(frame.type === "response.create");
  return frame;
}

Deno.test("response.create: text input, message input, instructions first", () => {
  assert.deepEqual(createFrame().messages, [{ role: "user", content: "hi" }]);
  const input = [
    { type: "message", role: "user", content: [{ type: "input_text", text: "a" }] },
    { role: "assistant", content: [{ type: "output_text", text: "b", annotations: [] }] },
    { role: "developer", content: "c" },
  ];
  assert.deepEqual(createFrame({ input, instructions: "be brief" }).messages, [
    { role: "system", content: "be brief" },
    { role: "user", content: "a" },
    { role: "assistant", content: "b" },
    { role: "system", content: "c" },
  ]);
});

Deno.test("response.create: sampling and limits, null as absence", () => {
  const frame = createFrame({ temperature: 0, top_p: 0.5, max_output_tokens: 7, instructions: null, tools: null });
  assert.partialDeepStrictEqual(frame, { sampling: { temperature: 0, topP: 0.5 }, maxTokens: 7, stop: [] });
});

Deno.test("response.cancel", () => {
  const frame = parseClientFrame('{"type":"response.cancel","response_id":"resp_1"}');
  assert.deepEqual(frame, { type: "response.cancel", responseId: "resp_1" });
});

Deno.test("refused frames name the field", () => {
  checkRefused("{", null, /^request: expected JSON, got "\{": /);
  checkRefused("3", null, /expected an object, got 3$/);
  checkRefused({}, "type", /expected "response.create" or "response.cancel", got nothing$/);
  checkRefused({ type: "session.update" }, "type", /got "session.update"$/);
  checkRefused({ type: "response.cancel" }, "response_id", /got nothing$/);
  checkRefused({ ...minimal, model: 3 }, "model", /got 3$/);
  checkRefused({ ...minimal, input: "" }, "input", /got ""$/);
  checkRefused({ ...minimal, input: 3 }, "input", /expected a text or a list of messages, got 3$/);
  checkRefused({ ...minimal, input: [{ role: "user", content: 3 }] }, "input[0].content", /got 3$/);
  const image = [{ role: "user", content: [{ type: "input_image" }] }];
  checkRefused({ ...minimal, input: image }, "input[0].content[0].type", /got "input_image"$/);
  checkRefused({ ...minimal, temperature: 3 }, "temperature", /got 3$/);
  checkRefused({ ...minimal, max_output_tokens: 2 ** 53 }, "max_output_tokens", /got 9007199254740992$/);
  for (const field of ["previous_response_id", "stream_id"]) {
    checkRefused({ ...minimal, [field]: "x" }, field, /expected nothing, as nothing else is supported, got "x"$/);
  }
  checkRefused({ ...minimal, background: true }, "background", /got true$/);
});

function write(pieces: string[], end: Parameters<ResponseWriter["end"]>[0]): ResponseEvent[] {
  const writer = new ResponseWriter(createFrame(), { id: "1", createdAt: 5, model: "m" });
  return [...writer.start(), ...pieces.flatMap((piece) => writer.text(piece)), ...writer.end(end)];
}

function checkEvents(events: ResponseEvent[], types: string[]): WireResponse {
  assert.deepEqual(events.map(({ type }) => type.replace("response.", "")), types);
  assert.deepEqual(events.map(({ sequence_number }) => sequence_number), [...events.keys()]);
  assert(events.every(({ response_id }) => response_id === "resp_1"));
  const last = events.at(-1)!;
  assert("response" in last);
  return last.response;
}

const opening = ["created", "in_progress", "output_item.added", "content_part.added"];
const closing = ["output_text.done", "content_part.done", "output_item.done"];
const delta = "output_text.delta";
const usage = responseUsage(3, 2);

Deno.test("a whole response", () => {
  const events = write(["Hel", "lo"], { status: "completed", usage });
  const response = checkEvents(events, [...opening, delta, delta, ...closing, "completed"]);
  assert.equal(response.output[0]!.content[0]!.text, "Hello");
  assert.partialDeepStrictEqual(response, { status: "completed", usage: { total_tokens: 5 }, error: null });
  assert.deepEqual(events.filter((event) => "response" in event).map(({ response }) => response.status), [
    "in_progress",
    "in_progress",
    "completed",
  ]);
});

Deno.test("an empty, a limited and a cancelled response still open and close their message", () => {
  const empty = checkEvents(write([], { status: "completed", usage }), [...opening, ...closing, "completed"]);
  assert.equal(empty.output[0]!.content[0]!.text, "");
  const limited = checkEvents(write(["x"], { status: "incomplete", usage }), [
    ...opening,
    delta,
    ...closing,
    "incomplete",
  ]);
  assert.deepEqual([limited.incomplete_details, limited.output[0]!.status], [
    { reason: "max_output_tokens" },
    "incomplete",
  ]);
  const cancelled = checkEvents(write(["x"], { status: "cancelled", usage }), [
    ...opening,
    delta,
    ...closing,
    "cancelled",
  ]);
  assert.deepEqual([cancelled.status, cancelled.output[0]!.content[0]!.text], ["cancelled", "x"]);
});

Deno.test("a failed response says why, and keeps what was said", () => {
  const error = { code: "internal_error", message: "m" };
  const early = checkEvents(write([], { status: "failed", error }), ["created", "in_progress", "failed"]);
  assert.deepEqual([early.output, early.error, early.usage], [[], error, null]);
  const late = checkEvents(write(["x"], { status: "failed", error }), [...opening, delta, "failed"]);
  assert.deepEqual([late.output[0]!.status, late.output[0]!.content[0]!.text], ["incomplete", "x"]);
});

Deno.test("event shapes are those of OpenAI's own client, but for what we add", () => {
  // Checked by the compiler: theirs has no cancelled event, a closed list of failure codes, no usage of null (which
  // OpenAI itself sends while a response is in progress), and fields that only its client fills in.
  type Theirs = OpenAI.Responses.ResponseStreamEvent;
  type Ours = Exclude<ResponseEvent, { response: unknown }>;
  const events: Theirs[] = write(["x"], { status: "completed", usage }).filter((e): e is Ours => !("response" in e));
  assert.equal(events.length, 6);
  const response: Omit<OpenAI.Responses.Response, "output_text" | "error" | "usage" | "access_programs"> = checkEvents(
    write([], { status: "completed", usage }),
    [...opening, ...closing, "completed"],
  );
  assert.equal(response.object, "response");
});
