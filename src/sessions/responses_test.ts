import assert from "node:assert/strict";
import type { DoneEvent } from "../engine/engine.ts";
import { type Item, parseResponseRequest } from "../protocol/mod.ts";
import { Conversations } from "./conversations.ts";
import { MemoryStore, type MemoryStoreOptions } from "./memory_store.ts";
import { BoundedMemory } from "./response_memory.ts";
import { type CreateOptions, MAX_CHAIN, Responses } from "./responses.ts";

const PAGE = { order: "asc", limit: 10 } as const;

const done: DoneEvent = {
  type: "done",
  reason: "stop",
  usage: { promptTokens: 3, completionTokens: 2 },
  timings: { queueMs: 1, prefillMs: 2, decodeMs: 3 },
};

function setUp(options: MemoryStoreOptions = {}) {
  let id = 0;
  const [clock, newId] = [() => 5000, () => String(++id)];
  const store = new MemoryStore({ clock, ...options });
  const conversations = new Conversations<Item>(store, { clock, newId });
  const responses = new Responses({ store, conversations, modelId: "m", newId, clock });
  const asked: string[] = [];
  const gates: (() => void)[] = [];
  const create = (fields: Record<string, unknown> = {}, options: Partial<CreateOptions> & { wait?: boolean } = {}) =>
    responses.create(parseResponseRequest({ input: "hi", ...fields }), {
      caller: "alice",
      async *generate(messages) {
        asked.push(messages.map(({ role, content }) => `${role}:${content}`).join(" "));
        yield { type: "started", promptTokens: 3 };
        if (options.wait) await new Promise<void>((resolve) => gates.push(resolve));
        yield { type: "text", text: "yes", completionTokens: 2 };
        yield done;
      },
      failure: (error) => ({ code: (error as { code: string }).code, message: (error as Error).message }),
      ...options,
    });
  return { responses, conversations, store, create, asked, go: () => gates.splice(0).forEach((go) => go()) };
}

Deno.test("a conversation grows by the input and the output of each response", async () => {
  const { create, conversations, asked } = setUp();
  const { id } = await conversations.create("alice");
  for (const input of ["one", "two"]) await (await create({ conversation: id, input, store: false })).finished;
  assert.equal(asked[1], "user:one assistant:yes user:two");
  const { items } = await conversations.begin("alice", id);
  assert.equal(items.length, 4);
  assert.equal(new Set(items.map(({ id }) => id)).size, 4);
});

Deno.test("of two turns at once in one conversation one fails, and no message is lost or doubled", async () => {
  const { create, conversations, go } = setUp();
  const { id } = await conversations.create("alice");
  const both = [
    await create({ conversation: id, input: "a" }, { wait: true }),
    await create({ conversation: id, input: "b" }, { wait: true }),
  ];
  await Promise.all(both.map(({ begun }) => begun));
  go();
  const [first, second] = await Promise.all(both.map(({ finished }) => finished));
  assert.deepEqual([first!.status, second!.status, second!.error!.code], ["completed", "failed", "conflict"]);
  const { items } = await conversations.begin("alice", id);
  assert.deepEqual(items.map(({ id }) => id), [`msg_${first!.id.slice(5)}0000`, `msg_${first!.id.slice(5)}0001`]);
});

Deno.test("a conversation of another caller is not there", async () => {
  const { create, conversations } = setUp();
  const { id } = await conversations.create("bob");
  for (const conversation of [id, "conv_99"]) await assert.rejects(create({ conversation }), { code: "not_found" });
});

Deno.test("a chain is read as far as it goes, and no further than its limit", async () => {
  const { create } = setUp();
  const memory = new BoundedMemory(2 * MAX_CHAIN);
  let previous_response_id: string | undefined;
  for (let length = 0; length <= MAX_CHAIN; length++) {
    const { response, finished } = await create({ previous_response_id, store: false }, { memory });
    previous_response_id = response.id;
    await finished;
  }
  await assert.rejects(create({ previous_response_id }, { memory }), { code: "too_large" });
});

Deno.test("a chain with a missing link cannot be continued", async () => {
  const { create, responses } = setUp();
  const first = await (await create()).finished;
  const second = await (await create({ previous_response_id: first.id })).finished;
  await responses.delete("alice", first.id);
  await assert.rejects(create({ previous_response_id: second.id }), { code: "not_found" });
});

Deno.test("where room is short a new response is kept for the oldest, and conversations stay", async () => {
  const { create, conversations, responses } = setUp({ maxEntries: 3 });
  const { id } = await conversations.create("alice");
  const ids: string[] = [];
  for (let count = 0; count < 5; count++) {
    const { status, id } = await (await create()).finished;
    assert.equal(status, "completed");
    ids.push(id);
  }
  for (const gone of ids.slice(0, 3)) {
    await assert.rejects(responses.inputItems("alice", gone, PAGE), { code: "not_found" });
  }
  for (const kept of ids.slice(3)) assert.equal((await responses.inputItems("alice", kept, PAGE)).items.length, 1);
  await conversations.begin("alice", id);
  for (let count = 0; count < 2; count++) await conversations.create("alice");
  assert.equal((await (await create()).finished).status, "failed");
  await assert.rejects(conversations.create("alice"), { code: "full" });
});

Deno.test("memory: the oldest go where there are too many, or too much of them", () => {
  const kept = (text: string) => ({ response: { id: text } as never, input: [] });
  const few = new BoundedMemory(2, 1000);
  for (const id of ["a", "b", "c"]) few.set(id, kept(id));
  assert.deepEqual(["a", "b", "c"].map((id) => few.get(id) !== undefined), [false, true, true]);
  const short = new BoundedMemory(10, 100);
  for (const id of ["a", "b", "c"]) short.set(id, kept("x".repeat(30)));
  assert.deepEqual(["a", "b", "c"].map((id) => short.get(id) !== undefined), [false, false, true]);
});
