import assert from "node:assert/strict";
import type Anthropic from "@anthropic-ai/sdk";
import { messagesError, type MessagesEvent, type MessagesReply, messagesUsage, MessageWriter } from "./mod.ts";

function writer(): MessageWriter {
  return new MessageWriter({ id: "1", model: "m" });
}

const ended = { stop_reason: "end_turn", stop_sequence: null } as const;

function briefly(events: MessagesEvent[]): unknown[] {
  return events.map((event) => {
    if (event.type === "content_block_start") return [event.index, event.content_block.type];
    if (event.type === "content_block_delta") return [event.index, ...Object.values(event.delta)];
    return event.type === "content_block_stop" ? [event.index, "stop"] : event.type;
  });
}

Deno.test("blocks follow each other: one is closed before the next begins", () => {
  const message = writer();
  const events = [
    ...message.start(3),
    ...message.thinking("h"),
    ...message.thinking("m"),
    ...message.text("a"),
    ...message.text("b"),
    ...message.toolUse("t1", "clock"),
    ...message.toolUse("t2", "weather"),
    ...message.toolInput('{"city":'),
    ...message.toolInput('"Paris"}'),
    ...message.text("c"),
    ...message.end(ended, messagesUsage(3, 7)),
  ];
  assert.deepEqual(briefly(events), [
    "message_start",
    [0, "thinking"],
    [0, "thinking_delta", "h"],
    [0, "thinking_delta", "m"],
    [0, "stop"],
    [1, "text"],
    [1, "text_delta", "a"],
    [1, "text_delta", "b"],
    [1, "stop"],
    [2, "tool_use"],
    [2, "stop"],
    [3, "tool_use"],
    [3, "input_json_delta", '{"city":'],
    [3, "input_json_delta", '"Paris"}'],
    [3, "stop"],
    [4, "text"],
    [4, "text_delta", "c"],
    [4, "stop"],
    "message_delta",
    "message_stop",
  ]);
  const caller = { type: "direct" };
  assert.deepEqual(message.message.content, [
    { type: "thinking", thinking: "hm", signature: "" },
    { type: "text", text: "ab", citations: null },
    { type: "tool_use", id: "t1", name: "clock", input: {}, caller },
    { type: "tool_use", id: "t2", name: "weather", input: { city: "Paris" }, caller },
    { type: "text", text: "c", citations: null },
  ]);
});

Deno.test("events are what they were when they came: later pieces do not reach into them", () => {
  const message = writer();
  const events = [...message.start(3), ...message.text("a"), ...message.end(ended, messagesUsage(3, 1))];
  const [start, block] = events;
  assert(start?.type === "message_start" && block?.type === "content_block_start");
  assert.deepEqual([start.message.content, start.message.stop_reason, start.message.usage.output_tokens], [
    [],
    null,
    0,
  ]);
  assert.deepEqual(block.content_block, { type: "text", text: "", citations: null });
});

Deno.test("an empty reply has no blocks", () => {
  const message = writer();
  const events = [...message.start(3), ...message.end(ended, messagesUsage(3, 0))];
  assert.deepEqual(briefly(events), ["message_start", "message_delta", "message_stop"]);
  assert.deepEqual(message.message.content, []);
});

Deno.test("arguments that are no JSON object stay a text", () => {
  for (const json of ['{"city": "Par', "[1]", "3", "null", "oops"]) {
    const message = writer();
    message.toolUse("t", "clock");
    message.toolInput(json);
    message.end(ended, messagesUsage(1, 1));
    assert.partialDeepStrictEqual(message.message.content[0], { type: "tool_use", input: json });
  }
});

Deno.test("failures have Anthropic's types", () => {
  const types: Record<number, string> = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    504: "timeout_error",
  };
  for (const [status, type] of Object.entries(types)) {
    const wire = { message: "m", type: "ours", code: "c", param: "p" };
    assert.deepEqual(messagesError(Number(status), wire, "r"), {
      type: "error",
      error: { type, message: "m", details: { error_code: "c", param: "p" } },
      request_id: "r",
    });
  }
});

Deno.test("shapes are those of Anthropic's own client", () => {
  const message = writer();
  const events = [
    ...message.start(3),
    ...message.text("a"),
    ...message.toolUse("t", "clock"),
    ...message.toolInput("{}"),
  ];
  events.push(...message.end({ stop_reason: "tool_use", stop_sequence: null }, messagesUsage(3, 2)));
  const reply: MessagesReply = message.message;
  // These two lines are checked by the compiler.
  const theirs: Anthropic.Message = reply;
  const theirEvents: Anthropic.MessageStreamEvent[] = events.filter((event) => event.type !== "ping");
  assert.equal(theirs.stop_reason, "tool_use");
  assert.equal(theirEvents.at(-1)!.type, "message_stop");
});
