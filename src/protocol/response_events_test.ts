import assert from "node:assert/strict";
import type OpenAI from "openai";
import {
  itemUnique,
  parseResponseRequest,
  type ResponseEnd,
  type ResponseEvent,
  responseOfItem,
  responseUsage,
  ResponseWriter,
  type WireResponse,
} from "./mod.ts";

const head = { unique: "ab", createdAt: 5, model: "m", firstItem: 1 };

function writerOf(options: Partial<typeof head> & { streamId?: string } = {}): ResponseWriter {
  return new ResponseWriter(parseResponseRequest({ input: "hi" }).echo, { ...head, ...options });
}

const usage = responseUsage(3, 2);
const completed: ResponseEnd = { status: "completed", completedAt: 9, usage };

/** The events of a whole response, whatever is made in it. */
function write(make: (writer: ResponseWriter) => ResponseEvent[], end = completed, writer = writerOf()) {
  const made = [...writer.start("in_progress"), ...make(writer)];
  const closed = end.status === "failed"
    ? []
    : writer.closeAll(end.status === "completed" ? "completed" : "incomplete");
  return [...made, ...closed, writer.end(writer.ended(end))];
}

function checkEvents(events: ResponseEvent[], types: string[]): WireResponse {
  assert.deepEqual(events.map(({ type }) => type.replace("response.", "")), types);
  assert.deepEqual(events.map(({ sequence_number }) => sequence_number), [...events.keys()]);
  assert(events.every(({ response_id }) => response_id === "resp_ab"));
  const last = events.at(-1)!;
  assert("response" in last);
  return last.response;
}

const begin = ["created", "in_progress"];
const opening = ["output_item.added", "content_part.added"];
const said = ["output_text.done", "content_part.done", "output_item.done"];

Deno.test("a text", () => {
  const events = write((writer) => [...writer.text("Hel"), ...writer.text("lo")]);
  const deltas = ["output_text.delta", "output_text.delta"];
  const response = checkEvents(events, [...begin, ...opening, ...deltas, ...said, "completed"]);
  const message = {
    id: "msg_ab0001",
    type: "message",
    role: "assistant",
    status: "completed",
    content: [{ type: "output_text", text: "Hello", annotations: [] }],
  };
  assert.partialDeepStrictEqual(response, {
    status: "completed",
    output: [message],
    completed_at: 9,
    usage,
    error: null,
  });
  const items = events.flatMap((event) => "item" in event ? [event.item] : []);
  assert.deepEqual(items, [{ ...message, status: "in_progress", content: [] }, message]);
});

Deno.test("a thought, a text and two calls are four items, each closed before the next", () => {
  const events = write((writer) => [
    ...writer.reasoning("hm"),
    ...writer.text("wait"),
    ...writer.call("call_1", "f"),
    ...writer.callArguments("{"),
    ...writer.callArguments("}"),
    ...writer.call("call_2", "g"),
  ]);
  const call = (deltas: number) => [
    "output_item.added",
    ...Array(deltas).fill("function_call_arguments.delta"),
    "function_call_arguments.done",
    "output_item.done",
  ];
  const thought = ["reasoning_text.delta", "reasoning_text.done", "content_part.done", "output_item.done"];
  const text = ["output_text.delta", ...said];
  const types = [...begin, ...opening, ...thought, ...opening, ...text, ...call(2), ...call(0), "completed"];
  const { output } = checkEvents(events, types);
  assert.deepEqual(output.map(({ id }) => id), ["rs_ab0001", "msg_ab0002", "fc_ab0003", "fc_ab0004"]);
  assert.deepEqual(output.map(({ status }) => status), Array(4).fill("completed"));
  assert.deepEqual(output[2], {
    id: "fc_ab0003",
    type: "function_call",
    call_id: "call_1",
    name: "f",
    arguments: "{}",
    status: "completed",
  });
  assert.partialDeepStrictEqual(output[0], { summary: [], content: [{ type: "reasoning_text", text: "hm" }] });
  const places = events.flatMap((event) => "output_index" in event ? [event.output_index] : []);
  assert.deepEqual(places, places.toSorted());
});

Deno.test("log probabilities come with their text, and with the whole of it", () => {
  const token = (token: string) => ({ token, bytes: [1], logprob: -1 });
  const chosen = (text: string) => ({ ...token(text), top_logprobs: [token("z")] });
  const events = write((writer) => [...writer.text("a", [chosen("a")]), ...writer.text("b", [chosen("b")])]);
  const all = events.flatMap((event) => event.type === "response.output_text.done" ? event.logprobs : []);
  assert.deepEqual(all, [chosen("a"), chosen("b")]);
  const response = (events.at(-1) as { response: WireResponse }).response;
  assert.partialDeepStrictEqual(response.output[0], { content: [{ logprobs: all }] });
});

Deno.test("an empty, a limited and a cancelled response still open and close their message", () => {
  checkEvents(write(() => []), [...begin, ...opening, ...said, "completed"]);
  for (const status of ["incomplete", "cancelled"] as const) {
    const events = write((writer) => writer.text("x"), { ...completed, status });
    const response = checkEvents(events, [...begin, ...opening, "output_text.delta", ...said, status]);
    assert.equal(response.output[0]!.status, "incomplete");
    const details = status === "incomplete" ? { reason: "max_output_tokens" } : null;
    assert.deepEqual([response.incomplete_details, response.completed_at], [details, null]);
  }
});

Deno.test("a failed response says why, and keeps what was said", () => {
  const failed: ResponseEnd = { ...completed, status: "failed", error: { code: "internal_error", message: "m" } };
  const early = checkEvents(write(() => [], failed), [...begin, "failed"]);
  assert.deepEqual([early.output, early.error, early.usage], [[], failed.error, usage]);
  const late = checkEvents(write((writer) => writer.text("x"), failed), [
    ...begin,
    ...opening,
    "output_text.delta",
    "failed",
  ]);
  assert.partialDeepStrictEqual(late.output, [{ status: "incomplete", content: [{ text: "x" }] }]);
});

Deno.test("a response that waits is queued first; the lane is on every event", () => {
  const writer = writerOf({ streamId: "a" });
  const events = [...writer.start("queued"), ...writer.begin(), ...writer.text("x")];
  assert.deepEqual(events.map(({ type }) => type).slice(0, 3), [
    "response.created",
    "response.queued",
    "response.in_progress",
  ]);
  assert(events.every(({ stream_id }) => stream_id === "a"));
});

Deno.test("an item's id leads to its response", () => {
  assert.equal(responseOfItem(`msg_${itemUnique("0a".repeat(16), 300)}`), `resp_${"0a".repeat(16)}`);
  for (const id of ["msg", "msg_", "msg_012", "x"]) assert.equal(responseOfItem(id), undefined);
});

Deno.test("event shapes are those of OpenAI's own client, but for what we add", () => {
  // Checked by the compiler: theirs has no cancelled event, a closed list of failure codes, no usage of null (which
  // OpenAI itself sends while a response is in progress), and fields that only its client fills in.
  type Theirs = OpenAI.Responses.ResponseStreamEvent;
  type Ours = Exclude<ResponseEvent, { response: unknown }>;
  const events = write((writer) => [...writer.text("x"), ...writer.reasoning("y"), ...writer.call("c", "f")]);
  const theirs: Theirs[] = events.filter((event): event is Ours => !("response" in event));
  assert(theirs.length > 10);
  type Fields = "output_text" | "error" | "usage" | "access_programs" | "reasoning" | "output" | "user";
  const response: Omit<OpenAI.Responses.Response, Fields> = checkEvents(write(() => []), [
    ...begin,
    ...opening,
    ...said,
    "completed",
  ]);
  assert.equal(response.object, "response");
});
