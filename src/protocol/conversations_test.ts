import { assertEquals, assertThrows } from "@std/assert";
import { ProtocolError } from "./check.ts";
import { parseChangedConversation, parseNewConversation, parseNewItems } from "./conversations.ts";

const hi = { role: "user", content: "hi" };
const heard = { type: "message", role: "user", status: "completed", content: [{ type: "input_text", text: "hi" }] };

function refused(parse: (value: unknown) => unknown, value: unknown, param: string | null): string {
  const { code, param: named, message } = assertThrows(() => parse(value), ProtocolError);
  assertEquals([code.replace("unsupported", "invalid"), named], ["invalid_value", param], message);
  return message;
}

Deno.test("a conversation without anything, and one with everything", () => {
  for (const value of [{}, { metadata: null, items: null }, { unknown: 1 }]) {
    assertEquals(parseNewConversation(value), { metadata: {}, items: [] });
  }
  const value = { metadata: { a: "b" }, items: [hi, { id: "msg_x", ...heard }] };
  assertEquals(parseNewConversation(value), { metadata: { a: "b" }, items: [heard, heard] } as never);
});

Deno.test("items are asked for, at most 20 of them, and none stands for another", () => {
  assertEquals(parseNewItems({ items: Array(20).fill(hi) }).length, 20);
  assertEquals(parseNewItems({ items: [] }), []);
  for (const items of [undefined, null, "hi", hi, Array(21).fill(hi)]) refused(parseNewItems, { items }, "items");
  refused(parseNewConversation, { items: Array(21).fill(hi) }, "items");
  refused(parseNewItems, { items: [hi, { type: "item_reference", id: "msg_1" }] }, "items[1].type");
  refused(parseNewItems, { items: [hi, { role: "user", content: 1 }] }, "items[1].content");
  for (const value of [undefined, null, 1, "x"]) refused(parseNewItems, value, null);
});

Deno.test("metadata: up to 16 pairs of 64 and 512 characters, null for none", () => {
  const pairs = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, "v"]));
  const largest = { ["k".repeat(64)]: "v".repeat(512) };
  for (const metadata of [{}, pairs(16), largest]) {
    assertEquals(parseNewConversation({ metadata }).metadata, metadata);
    assertEquals(parseChangedConversation({ metadata }), metadata);
  }
  assertEquals(parseChangedConversation({ metadata: null }), {});
  for (const metadata of [pairs(17), "x", [], 1, true]) {
    for (const parse of [parseNewConversation, parseChangedConversation]) refused(parse, { metadata }, "metadata");
  }
  for (const [key, value] of [["k".repeat(65), "v"], ["k", "v".repeat(513)], ["k", 1], ["k", null], ["k", "\ud800"]]) {
    for (const parse of [parseNewConversation, parseChangedConversation]) {
      refused(parse, { metadata: { [key as string]: value } }, `metadata.${key}`);
    }
  }
  assertEquals(
    refused(parseChangedConversation, {}, "metadata"),
    "metadata: expected an object, or null for none, got nothing",
  );
  for (const value of [undefined, null, 1]) refused(parseChangedConversation, value, null);
});
