/**
 * `/v1/conversations` as requests see it, and behind a real listener driven by OpenAI's own client.
 *
 * @module
 */

import assert from "node:assert/strict";
import OpenAI, { APIError, BadRequestError, ConflictError, NotFoundError } from "openai";
import { Conversations, MAX_CONVERSATION_ITEMS } from "../sessions/conversations.ts";
import { MemoryStore } from "../sessions/memory_store.ts";
import { type AppOptions, createApp } from "./app.ts";
import { ANYBODY } from "./caller.ts";
import { KeyRing, newKey, parseKeys } from "./keys.ts";
import { done, events, plainTemplate, postRequest, said, ScriptedEngine, testApp } from "./test_support.ts";

const BASE = "/v1/conversations";
const hi = { role: "user", content: "hi" } as const;
const heard = { type: "message", role: "user", status: "completed", content: [{ type: "input_text", text: "hi" }] };

function counting(options: Partial<AppOptions> = {}) {
  let ids = 0;
  const { app } = testApp(events(done()), { newId: () => `${++ids}`, ...options });
  const ask = async (path: string, value?: unknown, init: RequestInit = {}) => {
    const url = `http://localhost${BASE}${path}`;
    const request = value === undefined ? new Request(url, init) : postRequest(`${BASE}${path}`, value, init);
    const response = await app.request(request);
    return { status: response.status, body: await response.json() };
  };
  return { app, ask };
}

Deno.test("a conversation from its beginning to its end", async () => {
  const { ask } = counting();
  const made = await ask("", { items: [hi], metadata: { topic: "x" } });
  const conversation = { id: "conv_2", object: "conversation", created_at: 1_700_000_000, metadata: { topic: "x" } };
  assert.deepEqual(made, { status: 200, body: conversation });
  assert.deepEqual((await ask("/conv_2")).body, conversation);
  assert.deepEqual((await ask("/conv_2", { metadata: null })).body, { ...conversation, metadata: {} });
  const call = { type: "function_call", call_id: "c", name: "f", arguments: "{}" };
  const added = await ask("/conv_2/items", { items: [call, hi] });
  const items = [{ id: "fc_3", ...call, status: "completed" }, { id: "msg_4", ...heard }];
  assert.deepEqual(added.body, { object: "list", data: items, first_id: "fc_3", last_id: "msg_4", has_more: false });
  assert.deepEqual((await ask("/conv_2/items/fc_3")).body, items[0]);
  assert.deepEqual((await ask("/conv_2/items/fc_3", undefined, { method: "DELETE" })).body.id, "conv_2");
  const page = (await ask("/conv_2/items?order=asc&limit=1&include[]=message.output_text.logprobs")).body;
  const first = { id: "msg_1", ...heard };
  assert.deepEqual(page, { object: "list", data: [first], first_id: "msg_1", last_id: "msg_1", has_more: true });
  const latest = (await ask("/conv_2/items?after=msg_4")).body;
  assert.deepEqual([latest.data, latest.has_more], [[first], false]);
  const nothing = { object: "list", data: [], first_id: null, last_id: null, has_more: false };
  assert.deepEqual((await ask("/conv_2/items?after=msg_1")).body, nothing);
  const gone = await ask("/conv_2", undefined, { method: "DELETE" });
  assert.deepEqual(gone.body, { id: "conv_2", object: "conversation.deleted", deleted: true });
  assert.equal((await ask("/conv_2")).status, 404);
});

Deno.test("a conversation of nothing: without a body, with an empty one, with an empty object", async () => {
  const { app } = counting({ maxBodyBytes: 10 });
  const json = { "content-type": "application/json" };
  const bytes = new TextEncoder();
  const streamed = (text: string) => new Blob([bytes.encode(text)]).stream();
  const asks: [RequestInit, number][] = [
    [{}, 200],
    [{ body: bytes.encode("") }, 200],
    [{ body: streamed("") }, 200],
    [{ body: "{}", headers: json }, 200],
    [{ body: bytes.encode("{}") }, 415],
    [{ body: streamed("{}") }, 415],
    [{ body: streamed("{           }") }, 413],
    [{ body: "", headers: json }, 400],
  ];
  for (const [init, status] of asks) {
    const response = await app.request(new Request(`http://localhost${BASE}`, { method: "POST", ...init }));
    const { metadata } = await response.json();
    assert.deepEqual([response.status, metadata], [status, status === 200 ? {} : undefined]);
  }
});

Deno.test("what is not there is 404 in the envelope, whatever is asked of it", async () => {
  const { ask } = counting();
  const { id } = (await ask("", {})).body;
  const conversation = 'conversation: expected one that is kept, got "conv_x"';
  const item = 'item: expected one that is kept, got "msg_x"';
  const asks: [string, unknown, RequestInit, string][] = [
    ["/conv_x", undefined, {}, conversation],
    ["/conv_x", { metadata: {} }, {}, conversation],
    ["/conv_x", undefined, { method: "DELETE" }, conversation],
    ["/conv_x/items", undefined, {}, conversation],
    ["/conv_x/items", { items: [] }, {}, conversation],
    ["/conv_x/items/msg_x", undefined, {}, conversation],
    [`/${id}/items/msg_x`, undefined, {}, item],
    [`/${id}/items/msg_x`, undefined, { method: "DELETE" }, item],
    [`/${id}/items?after=msg_x`, undefined, {}, 'after: expected the id of an item here, got "msg_x"'],
    ["/%F0%9F%A6%99%00", undefined, {}, 'conversation: expected one that is kept, got "🦙\\u0000"'],
  ];
  for (const [path, value, init, message] of asks) {
    const param = message.startsWith("after") ? "after" : null;
    const error = { message, type: "invalid_request_error", param, code: "not_found" };
    assert.deepEqual(await ask(path, value, init), { status: 404, body: { error } });
  }
});

Deno.test("another key sees what it would see if the conversation had never been", async () => {
  const made = await Promise.all(["alice", "bob"].map((name) => newKey({ name })));
  const keys = new KeyRing(parseKeys(made.map(({ line }) => line).join("\n")));
  const { ask } = counting({ keys });
  const [alice, bob] = made.map(({ key }) => ({ authorization: `Bearer ${key}` }));
  const { id } = (await ask("", { items: [hi] }, { headers: alice })).body;
  const asks: [string, unknown?, string?][] = [
    ["", undefined],
    ["", { metadata: {} }],
    ["", undefined, "DELETE"],
    ["/items", undefined],
    ["/items", { items: [hi] }],
    ["/items/msg_1", undefined],
    ["/items/msg_1", undefined, "DELETE"],
  ];
  for (const [path, value, method] of asks) {
    const [foreign, unknown] = await Promise.all([id, "conv_0"].map((id) => {
      return ask(`/${id}${path}`, value, { headers: bob, ...(method ? { method } : {}) });
    }));
    const inOtherWords = JSON.stringify(foreign).replaceAll(id, "conv_0");
    assert.deepEqual([foreign!.status, inOtherWords], [404, JSON.stringify(unknown)]);
  }
  assert.equal((await ask(`/${id}/items`, undefined, { headers: alice })).body.data.length, 1);
  assert.equal((await ask(`/${id}`)).status, 401);
});

Deno.test("what breaks the protocol is refused in the envelope", async () => {
  const { ask } = counting();
  const { id } = (await ask("", {})).body;
  const refused = async (path: string, value: unknown, expected: unknown[], init?: RequestInit) => {
    const { status, body: { error } } = await ask(path, value, init);
    assert.deepEqual([status, error.code, error.param], expected);
  };
  await refused("", { items: "hi" }, [400, "invalid_value", "items"]);
  await refused("", { metadata: 1 }, [400, "invalid_value", "metadata"]);
  await refused("", { items: [{ type: "web_search_call" }] }, [400, "unsupported_value", "items[0].type"]);
  await refused(`/${id}`, {}, [400, "invalid_value", "metadata"]);
  await refused(`/${id}/items`, {}, [400, "invalid_value", "items"]);
  await refused(`/${id}/items?limit=101`, undefined, [400, "invalid_value", "limit"]);
  await refused(`/${id}/items?order=up`, undefined, [400, "invalid_value", "order"]);
  const plain = { headers: { "content-type": "text/plain" } };
  for (const path of ["", `/${id}`, `/${id}/items`]) {
    await refused(path, {}, [415, "unsupported_media_type", null], plain);
    await refused(path, undefined, [405, "method_not_allowed", null], { method: "PUT" });
  }
});

Deno.test("limits: bodies, items of a conversation, room in the store", async () => {
  const small = counting({ maxBodyBytes: 100 });
  const { id } = (await small.ask("", {})).body;
  for (const path of ["", `/${id}`, `/${id}/items`]) {
    const { status, body } = await small.ask(path, { metadata: { x: "x".repeat(100) } });
    assert.deepEqual([status, body.error.code], [413, "request_too_large"]);
  }
  const store = new MemoryStore();
  const { ask } = counting({ store });
  const conversations = new Conversations(store, { clock: Date.now, newId: () => "full" });
  const items = Array.from({ length: MAX_CONVERSATION_ITEMS - 19 }, (_, i) => ({ id: `${i}` }));
  const full = (await conversations.create(ANYBODY.id, {}, items)).id;
  const { status, body: { error } } = await ask(`/${full}/items`, { items: Array(20).fill(hi) });
  assert.deepEqual([status, error.code, error.param], [413, "too_large", null]);
  assert.match(error.message, /expected at most 4096 items, got 4097$/);
  const none = await counting({ store: new MemoryStore({ maxEntries: 0 }) }).ask("", {});
  assert.deepEqual([none.status, none.body.error.code, none.body.error.type], [503, "store_full", "server_error"]);
});

/** The application behind a listener, and OpenAI's client in front of it. */
async function withClient(
  body: (client: OpenAI) => Promise<void>,
  script = events(said("said"), done()),
): Promise<void> {
  await using engine = new ScriptedEngine(script);
  const app = createApp({ engine, template: plainTemplate, modelId: "fake" });
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, app.fetch);
  const baseURL = `http://127.0.0.1:${server.addr.port}/v1`;
  await body(new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 }));
  await server.shutdown();
}

Deno.test("OpenAI's client: conversations", async () => {
  await withClient(async ({ conversations }) => {
    assert.deepEqual((await conversations.create()).metadata, {});
    const { id, object, created_at } = await conversations.create({ metadata: { a: "b" }, items: [hi] });
    assert.match(id, /^conv_[0-9a-f]{32}$/);
    assert.deepEqual([object, Math.abs(created_at - Date.now() / 1000) < 60], ["conversation", true]);
    assert.deepEqual((await conversations.retrieve(id)).metadata, { a: "b" });
    assert.deepEqual((await conversations.update(id, { metadata: { c: "d" } })).metadata, { c: "d" });
    assert.deepEqual(await conversations.delete(id), { id, object: "conversation.deleted", deleted: true });
    await assert.rejects(
      conversations.retrieve(id),
      (error) => error instanceof NotFoundError && error.code === "not_found",
    );
    const metadata = { x: "x".repeat(513) };
    await assert.rejects(conversations.create({ metadata }), (error) => {
      return error instanceof BadRequestError && error.param === "metadata.x";
    });
  });
});

Deno.test("OpenAI's client: items, page by page", async () => {
  await withClient(async ({ conversations }) => {
    const { id } = await conversations.create();
    const texts = Array.from({ length: 7 }, (_, i) => `${i}`);
    const added = await conversations.items.create(id, {
      items: texts.map((content) => ({ role: "user" as const, content })),
      include: ["message.output_text.logprobs"],
    });
    assert.deepEqual([added.data.length, added.first_id, added.has_more], [7, added.data[0]!.id, false]);
    const listed = async (order: "asc" | "desc") => {
      const items = await Array.fromAsync(conversations.items.list(id, { order, limit: 3 }));
      return items.map((item) =>
        item.type === "message" && item.content[0]!.type === "input_text" && item.content[0]!.text
      );
    };
    assert.deepEqual([await listed("asc"), await listed("desc")], [texts, texts.toReversed()]);
    const first = added.data[0]!.id!;
    assert.deepEqual(await conversations.items.retrieve(first, { conversation_id: id }), added.data[0]);
    assert.equal((await conversations.items.delete(first, { conversation_id: id })).id, id);
    assert.deepEqual(await listed("asc"), texts.slice(1));
    const missing = conversations.items.retrieve(first, { conversation_id: id });
    await assert.rejects(missing, (error) => error instanceof APIError && error.status === 404);
  });
});

Deno.test("OpenAI's client: of two responses at once in one conversation one is refused, and it goes on", async () => {
  let begun = 0;
  const both = Promise.withResolvers<void>();
  async function* whenBothBegan() {
    if (++begun === 2) both.resolve();
    await both.promise;
    yield* [said("said"), done()];
  }
  await withClient(async ({ conversations, responses }) => {
    const conversation = (await conversations.create()).id;
    const say = (input: string) => responses.create({ model: "fake", conversation, input });
    const [one, two] = await Promise.allSettled([say("one"), say("two")]);
    const [won, lost] = one!.status === "fulfilled" ? [one!, two!] : [two!, one!];
    assert.equal(won.status, "fulfilled");
    assert(lost.status === "rejected" && lost.reason instanceof ConflictError);
    assert.equal(lost.reason.code, "conversation_conflict");
    await say("three");
    const items = await Array.fromAsync(conversations.items.list(conversation, { order: "asc" }));
    const texts = items.map((item) =>
      item.type === "message" && item.content[0]!.type === "input_text" && item.content[0]!.text
    );
    assert.deepEqual(texts, [won === one ? "one" : "two", false, "three", false]);
  }, whenBothBegan);
});
