import assert from "node:assert/strict";
import type { ChatMessage } from "../chat/message.ts";
import { check, inputItemSchema, isReference, type ItemBody } from "../protocol/mod.ts";
import { toMessages } from "./items.ts";

function messagesOf(...items: Record<string, unknown>[]): ChatMessage[] {
  return toMessages(items.map((item) => {
    const checked = check(inputItemSchema, item);
    assert(!isReference(checked));
    return checked as ItemBody;
  }));
}

const call = (name: string) => ({ type: "function_call", call_id: `call_${name}`, name, arguments: "{}" });
const result = (name: string) => ({ type: "function_call_output", call_id: `call_${name}`, output: `${name}!` });
const thought = (text: string) => ({ type: "reasoning", summary: [], content: [{ type: "reasoning_text", text }] });
const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });
const toolCall = (name: string) => ({ id: `call_${name}`, name, arguments: "{}" });

Deno.test("messages of each role; a developer is the system", () => {
  const parts = [{ type: "input_text", text: "a" }, { type: "input_text", text: "b" }];
  const items = [{ role: "developer", content: "d" }, { role: "user", content: parts }, assistant("c")];
  assert.deepEqual(messagesOf({ role: "system", content: "s" }, ...items), [
    { role: "system", content: "s" },
    { role: "system", content: "d" },
    { role: "user", content: "ab" },
    { role: "assistant", content: "c" },
  ]);
});

Deno.test("a thought, a text and calls that follow each other are one message of the assistant", () => {
  assert.deepEqual(messagesOf(user("q"), thought("hm"), assistant("wait"), call("f"), call("g"), result("f")), [
    { role: "user", content: "q" },
    { role: "assistant", content: "wait", reasoning: "hm", toolCalls: [toolCall("f"), toolCall("g")] },
    { role: "tool", content: "f!", toolCallId: "call_f" },
  ]);
});

Deno.test("a text after a text, a text after calls and a thought after either are a new message", () => {
  assert.deepEqual(messagesOf(assistant("a"), assistant("b"), call("f"), assistant("c"), thought("hm"), call("g")), [
    { role: "assistant", content: "a" },
    { role: "assistant", content: "b", toolCalls: [toolCall("f")] },
    { role: "assistant", content: "c" },
    { role: "assistant", content: "", reasoning: "hm", toolCalls: [toolCall("g")] },
  ]);
});

Deno.test("a thought that nothing follows is left out; a summary stands for a thought that is not shown", () => {
  const summary = { type: "reasoning", summary: [{ type: "summary_text", text: "s" }] };
  assert.deepEqual(messagesOf(thought("a"), user("q"), summary, assistant("c"), thought("b")), [
    { role: "user", content: "q" },
    { role: "assistant", content: "c", reasoning: "s" },
  ]);
});

Deno.test("a step in which nothing was said is no message", () => {
  assert.deepEqual(messagesOf(user("q"), assistant(""), thought("hm"), assistant("")), [{
    role: "user",
    content: "q",
  }]);
});
