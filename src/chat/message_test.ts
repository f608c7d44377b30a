import assert from "node:assert/strict";
import { type ChatMessage, ChatTemplateError, checkMessages, checkTurns, MAX_MESSAGES } from "./message.ts";

const user: ChatMessage = { role: "user", content: "u" };
const assistant: ChatMessage = { role: "assistant", content: "a" };
const system: ChatMessage = { role: "system", content: "s" };
const call = { id: "1", name: "f", arguments: "{}" };

function refusal(check: (messages: ChatMessage[]) => void, messages: unknown[]): string {
  try {
    check(messages as ChatMessage[]);
  } catch (error) {
    assert.ok(error instanceof ChatTemplateError);
    return `${error.code}: ${error.message}`;
  }
  return "accepted";
}

Deno.test("checks roles, contents and count", () => {
  const cases: [unknown[], string][] = [
    [[user], "accepted"],
    [[{ role: "user", content: "" }], "accepted"],
    [[], "invalid_message: checking messages: expected 1 to 4096, got 0"],
    [
      new Array(MAX_MESSAGES + 1).fill(user),
      "invalid_message: checking messages: expected 1 to 4096, got 4097",
    ],
    [
      [user, { role: "ipython", content: "" }],
      "invalid_message: checking messages[1]: expected role system, user, assistant, tool, got ipython",
    ],
    [
      [{ content: "" }],
      "invalid_message: checking messages[0]: expected role system, user, assistant, tool, got undefined",
    ],
    [[{ role: "user" }], "invalid_message: checking messages[0]: expected content as text, got undefined"],
    [[{ role: "user", content: ["x"] }], "invalid_message: checking messages[0]: expected content as text, got object"],
    [[{ role: "tool", content: "", toolCallId: "1" }, { ...assistant, toolCalls: [call], reasoning: "r" }], "accepted"],
    [[{ ...assistant, toolCalls: undefined, reasoning: undefined }, { ...user, toolCallId: undefined }], "accepted"],
    [
      [{ ...user, toolCallId: "1" }],
      "invalid_message: checking messages[0]: expected toolCallId of role tool only, got user",
    ],
    [
      [{ ...user, reasoning: "r" }],
      "invalid_message: checking messages[0]: expected reasoning of role assistant only, got user",
    ],
    [
      [{ role: "tool", content: "", toolCallId: 1 }],
      "invalid_message: checking messages[0]: expected toolCallId as text, got number",
    ],
    [
      [{ ...user, toolCalls: [] }],
      "invalid_message: checking messages[0]: expected toolCalls of role assistant only, got user",
    ],
    ...[{}, [{}], [null], [{ ...call, arguments: {} }]].map((toolCalls): [unknown[], string] => [
      [{ ...assistant, toolCalls }],
      "invalid_message: checking messages[0]: expected toolCalls as a list of calls, got others",
    ]),
  ];
  for (const [messages, expected] of cases) assert.equal(refusal(checkMessages, messages), expected);
});

Deno.test("checks the order of turns", () => {
  const cases: [ChatMessage[], string][] = [
    [[user], "accepted"],
    [[system, user], "accepted"],
    [[system, user, assistant, user], "accepted"],
    [[user, user], "invalid_order: checking messages[1]: expected role assistant, got user"],
    [[assistant, user], "invalid_order: checking messages[0]: expected role user, got assistant"],
    [[system, system, user], "invalid_order: checking messages[1]: expected role user, got system"],
    [[user, system], "invalid_order: checking messages[1]: expected role assistant, got system"],
    [[user, assistant], "invalid_order: checking messages[2]: expected role user, got the end"],
    [[system], "invalid_order: checking messages[1]: expected role user, got the end"],
  ];
  for (const [messages, expected] of cases) assert.equal(refusal(checkTurns, messages), expected);
});
