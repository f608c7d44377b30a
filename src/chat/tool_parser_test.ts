import assert from "node:assert/strict";
import { ReplyParser } from "./reply.ts";
import type { ReplyPart } from "./reply_part.ts";

const TOOLS = ["f", "get_weather"];

/** The parts of a reply that comes in pieces, neighbours of one kind joined: thoughts, text, calls as `name(arguments)`. */
function parse(pieces: readonly string[], thoughts: boolean | "open" = false): string[] {
  let ids = 0;
  const parser = new ReplyParser({ tools: TOOLS, thoughts, newCallId: () => `id${ids++}` });
  const parts = [...pieces.flatMap((piece) => parser.push(piece)), ...parser.end()];
  const told: string[] = [];
  let last: ReplyPart | undefined;
  for (const part of parts) {
    const goesOn = last?.type === part.type && part.type !== "tool_call";
    if (part.type === "tool_call") {
      assert.equal(part.id, `id${part.index}`);
      told.push(`${part.name}:`);
    } else {
      assert.notEqual(part.text, "");
      const opened = { text: "", reasoning: "?", tool_arguments: "=" }[part.type];
      told.push(goesOn ? told.pop()! + part.text : opened + part.text);
    }
    last = part;
  }
  return told;
}

const CASES: [text: string, expected: string[]][] = [
  ["", []],
  ["Hello", ["Hello"]],
  [" \n Hello ", [" \n Hello "]],
  ["a < b, <tool> and [TOOL] {}", ["a < b, <tool> and [TOOL] {}"]],
  ['<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', ["f:", '={"a": 1}']],
  [
    'Let me see. \n\n<tool_call>{"name":"f","arguments":{}}</tool_call>\n<tool_call>{"name":"get_weather","arguments":{"c":"}"}}</tool_call>',
    ["Let me see.", "f:", "={}", "get_weather:", '={"c":"}"}'],
  ],
  ['<tool_call>{"name": "f", "arguments": {"a": {"b": ["]"]}}}</tool_call> done', [
    "f:",
    '={"a": {"b": ["]"]}}',
    "done",
  ]],
  ['{"name": "f", "parameters": {"a": "\\"}"}}', ["f:", '={"a": "\\"}"}']],
  ['\n{"type": "function", "name": "f", "parameters": {}}; {"name": "f", "parameters": {"x":2}}', [
    "f:",
    "={}",
    "f:",
    '={"x":2}',
  ]],
  ['<|python_tag|>{"name": "f", "parameters": {}}', ["f:", "={}"]],
  ['[TOOL_CALLS][{"name": "f", "arguments": {"a":1}, "id": "123456789"}, {"name": "f", "arguments": {}}]', [
    "f:",
    '={"a":1}',
    "f:",
    "={}",
  ]],
  ['[{"name": "f", "arguments": {}}]', ["f:", "={}"]],
  ['[TOOL_CALLS] {"name": "f", "arguments": {}}', ["f:", "={}"]],
  ['<tool_call>[{"name":"f","arguments":{}}]</tool_call>', ["f:", "={}"]],
  // Arguments before the name, as a text, none, null, of another kind.
  ['{"arguments": {"a": 1}, "name": "f"}', ["f:", '={"a": 1}']],
  ['{"name": "f", "arguments": "{\\"a\\": 1}"}', ["f:", '={"a": 1}']],
  ['{"name": "f"}', ["f:", "={}"]],
  ['{"name": "f", "arguments": null, "id": 5 }', ["f:", "={}"]],
  ['{"name": "f", "arguments": ""}', ["f:", "={}"]],
  ['{"name": "f", "arguments": [1]}', ["f:", "=[1]"]],
  ['{"name": "\\u0066", "arguments": {},}', ["f:", "={}"]],
  // What is no call stays text.
  ['{"name": "other", "arguments": {}}', ['{"name": "other", "arguments": {}}']],
  ['{"name": "John", "age": 3}', ['{"name": "John", "age": 3}']],
  ['{"answer": {"name": "f"}}', ['{"answer": {"name": "f"}}']],
  ["[1, 2]", ["[1, 2]"]],
  ["[the link](x)", ["[the link](x)"]],
  ["[TOOL", ["[TOOL"]],
  ["[Two", ["[Two"]],
  ["[", ["["]],
  ["[ [ {", ["[ [ {"]],
  ["{", ["{"]],
  ["{}", ["{}"]],
  ['{"name"', ['{"name"']],
  ['{"name": "f", "name": "f"}', ['{"name": "f", "name": "f"}']],
  ['{"name": 5}', ['{"name": 5}']],
  ['{"name": "f" "arguments"', ['{"name": "f" "arguments"']],
  ['{"id": 5]', ['{"id": 5]']],
  ["a \n<tool_call>oops</tool_call>", ["a \n<tool_call>oops</tool_call>"]],
  ["<tool_call>", ["<tool_call>"]],
  ["x <tool_ca", ["x <tool_ca"]],
  ['<tool_call>  <tool_call>{"name":"f"}</tool_call>', ["<tool_call>  ", "f:", "={}"]],
  // A call that breaks off, or goes wrong after it has begun.
  ['<tool_call>{"name": "f", "arguments": {"a": [1', ["f:", '={"a": [1']],
  ['<tool_call>{"name": "f", "arguments": {}', ["f:", "={}"]],
  ['<tool_call>{"name": "f", "arguments": {}}</tool', ["f:", "={}"]],
  ['<tool_call>{"name": "f", "arguments": {}} and more', ["f:", "={}", "and more"]],
  ['<tool_call>{"name": "f", "arguments": {}, "x": 1}', ["f:", "={}", '": 1}']],
  ['{"name": "f"}, really', ["f:", "={}", ", really"]],
];

Deno.test("calls, in each notation, and text that is none", () => {
  for (const [text, expected] of CASES) assert.deepEqual(parse([text]), expected, text);
});

Deno.test("thoughts at the beginning", () => {
  const cases: [string, string[], (boolean | "open")?][] = [
    ["<think>\n a b \n</think>\n\nHi ", ["?a b", "Hi "], true],
    ["\n<think>a</think>Hi", ["?a", "Hi"], true],
    ["<think></think>Hi", ["Hi"], true],
    ["<think>a", ["?a"], true],
    ["<think>a</thi", ["?a</thi"], true],
    ["<thin", ["<thin"], true],
    ["Hi <think>a</think>", ["Hi <think>a</think>"], true],
    [" \n", [" \n"], true],
    ["<think>a</think>Hi", ["<think>a</think>Hi"], false],
    ["\na\n</think>\nHi", ["?a", "Hi"], "open"],
    ["a </b> c", ["?a </b> c"], "open"],
    ['<think>{"name":"f"}</think>\n{"name":"f"}', ['?{"name":"f"}', "f:", "={}"], true],
  ];
  for (const [text, expected, thoughts] of cases) assert.deepEqual(parse([text], thoughts), expected, text);
});

/** A small repeatable generator (Marsaglia's xorshift). */
function numbers(seed: number): (below: number) => number {
  return (below) => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return (seed >>> 0) % below;
  };
}

function cut(text: string, next: (below: number) => number): string[] {
  const pieces: string[] = [];
  for (let from = 0; from < text.length;) {
    const to = from + 1 + next(next(2) === 0 ? 3 : 20);
    pieces.push(text.slice(from, to));
    from = to;
  }
  return pieces;
}

Deno.test("how a reply is cut changes nothing", () => {
  const next = numbers(7);
  for (const [text] of CASES) {
    for (const all of [text, `<think>x </think> ${text}`]) {
      const expected = parse([all], true);
      assert.deepEqual(parse([...all], true), expected, all);
      for (let round = 0; round < 20; round++) assert.deepEqual(parse(cut(all, next), true), expected, all);
    }
  }
});

Deno.test("no text is too wild, and none is lost outside calls", () => {
  const words = [
    ...'{}[]",:;\\ \n'.split(""),
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    '"name"',
    '"f"',
    '"arguments"',
    "<think>",
    "</think>",
    "<tool",
    "1",
    "🦙",
  ];
  const next = numbers(11);
  for (let round = 0; round < 20_000; round++) {
    const text = Array.from({ length: next(16) }, () => words[next(words.length)]!).join("");
    const whole = parse([text], true);
    assert.deepEqual(parse(cut(text, next), true), whole, text);
    const bare = !text.includes("think") && !whole.some((part) => part === "f:");
    if (bare) assert.equal(whole.join(""), text);
  }
});

Deno.test("arguments leave as they come", () => {
  const parser = new ReplyParser({ tools: TOOLS, newCallId: () => "id" });
  const pieces = ["<tool_call>", '{"name"', ': "f", "arg', 'uments": ', '{"a', '": 1', "}", "}</tool_call>"];
  assert.deepEqual(pieces.map((piece) => parser.push(piece).map((part) => "text" in part ? part.text : part.name)), [
    [],
    [],
    [],
    [],
    ["f", '{"a'],
    ['": 1'],
    ["}"],
    [],
  ]);
  assert.equal(parser.calls, 1);
});
