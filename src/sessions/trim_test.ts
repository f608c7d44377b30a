import assert from "node:assert/strict";
import type { ChatMessage } from "../chat/message.ts";
import { trimmed } from "./trim.ts";

const system = { role: "system", content: "s" } as const;
const user = (content: string) => ({ role: "user", content }) as const;
const assistant = (content: string) => ({ role: "assistant", content }) as const;
const tool = { role: "tool", content: "r", toolCallId: "c" } as const;

/** A token per message, so that numbers can be read. */
function trimTo(contextLength: number, messages: ChatMessage[], maxTokens = 1): Promise<readonly ChatMessage[]> {
  const count = (messages: readonly ChatMessage[]) => Promise.resolve(messages.length);
  return trimmed(messages, { count, contextLength, maxTokens });
}

const [a, b, c] = [user("a"), user("b"), user("c")];
const all = [system, a, assistant("A"), tool, assistant("AA"), system, b, assistant("B"), c];

Deno.test("what fits stays as it is", async () => {
  assert.equal(await trimTo(10, all), all);
});

Deno.test("the oldest turns go whole, system messages stay, and so does the last turn", async () => {
  assert.deepEqual(await trimTo(9, all), [system, system, b, assistant("B"), c]);
  assert.deepEqual(await trimTo(6, all), [system, system, b, assistant("B"), c]);
  assert.deepEqual(await trimTo(5, all), [system, system, c]);
  assert.deepEqual(await trimTo(1, all), [system, system, c]);
});

Deno.test("a reply has room, but no more than half of the context", async () => {
  assert.equal(await trimTo(12, all, 3), all);
  assert.deepEqual(await trimTo(12, all, 4), [system, system, b, assistant("B"), c]);
  assert.deepEqual(await trimTo(12, all, 1000), [system, system, b, assistant("B"), c]);
});

Deno.test("without an older turn nothing can go", async () => {
  const one = [system, a, assistant("A")];
  assert.equal(await trimTo(2, one), one);
  assert.deepEqual(await trimTo(2, [assistant("A")]), [assistant("A")]);
  assert.deepEqual(await trimTo(4, [assistant("0"), a, assistant("A"), b, c]), [b, c]);
});

Deno.test("a call stays with its result, whoever speaks in between", async () => {
  const calls = (...ids: string[]): ChatMessage => {
    return { ...assistant("calls"), toolCalls: ids.map((id) => ({ id, name: "f", arguments: "{}" })) };
  };
  const result = (id: string): ChatMessage => ({ ...tool, toolCallId: id });
  const apart = [a, calls("1", "2"), result("1"), b, result("2"), assistant("B"), c];
  assert.deepEqual(await trimTo(7, apart), [c]);
  const last = [a, assistant("A"), b, calls("1"), c, result("1")];
  assert.deepEqual(await trimTo(2, last), [b, calls("1"), c, result("1")]);
  const unanswered = [a, calls("1"), b, assistant("B"), c];
  assert.deepEqual(await trimTo(4, unanswered), [b, assistant("B"), c]);
  assert.deepEqual(await trimTo(4, [system, ...apart]), [system, c]);
});
