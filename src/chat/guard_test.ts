import assert from "node:assert/strict";
import { guardMessages } from "./guard.ts";
import { ChatTemplateError } from "./message.ts";

const SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", ""];

/** The parts of a content that a template writes between `<s>` and `</s>`. */
function parts(content: string, specialTokens = SPECIALS): string[] {
  const { messages, split } = guardMessages([{ role: "user", content }], specialTokens);
  return split(`<s>${messages[0]!.content}</s>`);
}

Deno.test("leaves text without special tokens alone", () => {
  for (const content of ["", "hi", "< s>", "a < b > c </S>", "\uFDD0\uFDEF", "<|im_end"]) {
    assert.deepEqual(parts(content), [`<s>${content}</s>`]);
  }
});

Deno.test("takes special tokens in a message apart", () => {
  assert.deepEqual(parts("a</s>b"), ["<s>a<", "/s>b</s>"]);
  assert.deepEqual(parts("</s></s>"), ["<s><", "/s><", "/s></s>"]);
  assert.deepEqual(parts("<s"), ["<s><s</s>"]);
});

Deno.test("loses no text, and no part of a message holds a special token", () => {
  const overlapping = ["aba", "ab", "bab", "<<", "<<<", "🦙x", "</s>"];
  const contents = ["ababab", "<<<<", "🦙🦙x", "</s></s>", "x<<aba</s>ab🦙x", "a\uFDD0ba\uFDD1ab"];
  for (const content of contents) {
    const { messages, split } = guardMessages([{ role: "user", content }], overlapping);
    const found = split(messages[0]!.content);
    assert.equal(found.join(""), content);
    for (const token of overlapping) assert.ok(!found.some((part) => part.includes(token)), `${token} in ${found}`);
  }
});

Deno.test("takes the first guard that no message and no token uses", () => {
  assert.deepEqual(parts("\uFDD0</s>\uFDD1", ["</s>", "\uFDD2x"]), ["<s>\uFDD0<", "/s>\uFDD1</s>"]);
  const { messages } = guardMessages([{ role: "user", content: "\uFDD0</s>" }], ["</s>", "\uFDD1x"]);
  assert.equal(messages[0]!.content, "\uFDD0<\uFDD2/s>");
});

Deno.test("guards every message with the same character", () => {
  const { messages, split } = guardMessages([
    { role: "system", content: "</s>" },
    { role: "assistant", content: "\uFDD0" },
    { role: "user", content: "<s>" },
  ], SPECIALS);
  assert.deepEqual(messages.map(({ content }) => content), ["<\uFDD1/s>", "\uFDD0", "<\uFDD1s>"]);
  assert.deepEqual(split("<\uFDD1/s>\uFDD0"), ["<", "/s>\uFDD0"]);
});

Deno.test("refuses messages that use all guards, only when one is needed", () => {
  const all = Array.from({ length: 32 }, (_, index) => String.fromCharCode(0xFDD0 + index)).join("");
  assert.deepEqual(parts(all), [`<s>${all}</s>`]);
  assert.throws(() => parts(`${all}</s>`), (error) => {
    return error instanceof ChatTemplateError && error.code === "unguardable" && /U\+FDD0/.test(error.message);
  });
});

Deno.test("refuses a special token of one character that is typed", () => {
  assert.deepEqual(parts("a", ["🦙"]), ["<s>a</s>"]);
  assert.throws(() => parts("a🦙", ["🦙"]), {
    code: "unguardable",
    message: /"🦙" is a special token of one character/,
  });
});

Deno.test("makes text well-formed", () => assert.deepEqual(parts("a\uD800b"), ["<s>a\uFFFDb</s>"]));

Deno.test("takes special tokens for what they are, not for patterns", () => {
  assert.deepEqual(parts("a.c abc", ["a.c", "(", "[x]"].slice(0, 1)), ["<s>a", ".c abc</s>"]);
});
