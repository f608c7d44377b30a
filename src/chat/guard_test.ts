import assert from "node:assert/strict";
import { guardTexts, MAX_VALUE_DEPTH } from "./guard.ts";
import { ChatTemplateError } from "./message.ts";

const SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", ""];

/** The parts of a content that a template writes between `<s>` and `</s>`. */
function parts(content: string, specialTokens = SPECIALS): string[] {
  const { value, split } = guardTexts(content, specialTokens);
  return split(`<s>${value}</s>`);
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
    const { value, split } = guardTexts(content, overlapping);
    const found = split(value);
    assert.equal(found.join(""), content);
    for (const token of overlapping) assert.ok(!found.some((part) => part.includes(token)), `${token} in ${found}`);
  }
});

Deno.test("takes the first guard that no message and no token uses", () => {
  assert.deepEqual(parts("\uFDD0</s>\uFDD1", ["</s>", "\uFDD2x"]), ["<s>\uFDD0<", "/s>\uFDD1</s>"]);
  const { value } = guardTexts("\uFDD0</s>", ["</s>", "\uFDD1x"]);
  assert.equal(value, "\uFDD0<\uFDD2/s>");
});

Deno.test("guards every text with the same character", () => {
  const { value, split } = guardTexts(["</s>", "\uFDD0", "<s>"], SPECIALS);
  assert.deepEqual(value, ["<\uFDD1/s>", "\uFDD0", "<\uFDD1s>"]);
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

Deno.test("guards texts wherever they are, and names of fields", () => {
  const value = { a: ["</s>", 1, null, true, { "<s>": { b: "<s>" } }], n: undefined };
  assert.deepEqual(guardTexts(value, SPECIALS).value, {
    a: ["<\uFDD0/s>", 1, null, true, { "<\uFDD0s>": { b: "<\uFDD0s>" } }],
    n: undefined,
  });
  const proto = JSON.parse('{"__proto__": {"x": "</s>"}}');
  assert.equal(JSON.stringify(guardTexts(proto, SPECIALS).value), '{"__proto__":{"x":"<\uFDD0/s>"}}');
});

Deno.test("refuses values that are nested too deeply", () => {
  const nested = (depth: number): unknown => depth === 0 ? "</s>" : [nested(depth - 1)];
  assert.doesNotThrow(() => guardTexts(nested(MAX_VALUE_DEPTH), SPECIALS));
  for (const depth of [MAX_VALUE_DEPTH + 2, 5000]) {
    assert.throws(() => guardTexts(nested(depth), SPECIALS), { code: "invalid_message" });
  }
});
