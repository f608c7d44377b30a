import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  CONVERSATION_TTL_MS,
  Conversations,
  type ConversationsOptions,
  MAX_CONVERSATION_ITEMS,
  MAX_ITEM_BYTES,
} from "./conversations.ts";
import { MAX_VALUE_BYTES, StoreError } from "./entry.ts";
import { SessionError, type SessionErrorCode } from "./error.ts";
import { KvStore } from "./kv_store.ts";
import { MemoryStore } from "./memory_store.ts";
import type { Store, StoreKey } from "./store.ts";

interface Item {
  id: string;
  text: string;
}

function item(id: string, text = ""): Item {
  return { id, text };
}

function opened(store: Store, options: Partial<ConversationsOptions> = {}): Conversations<Item> {
  let ids = 0;
  return new Conversations(store, { clock: () => 1_700_000_000_500, newId: () => `${++ids}`, ...options });
}

async function checkRefused(promise: Promise<unknown>, code: SessionErrorCode, message: string): Promise<void> {
  const error = await assertRejects(() => promise, SessionError);
  assertEquals([error.code, error.message], [code, message]);
}

const ALL = { order: "asc", limit: 100 } as const;

async function idsOf(conversations: Conversations<Item>, caller: string, id: string): Promise<string[]> {
  return (await conversations.begin(caller, id)).items.map(({ id }) => id);
}

Deno.test("a conversation from its beginning to its end", async () => {
  const conversations = opened(new MemoryStore());
  const empty = await conversations.create("me");
  assertEquals(empty, { id: "conv_1", createdAt: 1_700_000_000, metadata: {} });
  const { id } = await conversations.create("me", { a: "b" }, [item("1", "hi")]);
  assertEquals(await conversations.get("me", id), { id: "conv_2", createdAt: 1_700_000_000, metadata: { a: "b" } });
  assertEquals(await conversations.update("me", id, { c: "d" }), { ...empty, id, metadata: { c: "d" } });
  await conversations.add("me", id, [item("2"), item("3")]);
  assertEquals(await conversations.item("me", id, "2"), item("2"));
  assertEquals(await conversations.deleteItem("me", id, "2"), { ...empty, id, metadata: { c: "d" } });
  assertEquals(await conversations.items("me", id, ALL), { items: [item("1", "hi"), item("3")], hasMore: false });
  assertEquals(await conversations.items("me", empty.id, ALL), { items: [], hasMore: false });
  await conversations.delete("me", id);
  await checkRefused(conversations.get("me", id), "not_found", 'conversation: expected one that is kept, got "conv_2"');
});

Deno.test("pages in both orders, and behind an item", async () => {
  const conversations = opened(new MemoryStore());
  const { id } = await conversations.create("me", {}, ["1", "2", "3", "4"].map((id) => item(id)));
  const page = async (order: "asc" | "desc", limit: number, after?: string) => {
    const { items, hasMore } = await conversations.items("me", id, { order, limit, after });
    return [items.map(({ id }) => id).join(""), hasMore];
  };
  assertEquals(await page("asc", 4), ["1234", false]);
  assertEquals(await page("asc", 3), ["123", true]);
  assertEquals(await page("desc", 3), ["432", true]);
  assertEquals(await page("desc", 3, "2"), ["1", false]);
  assertEquals(await page("asc", 1, "2"), ["3", true]);
  assertEquals(await page("asc", 1, "4"), ["", false]);
  const missing = conversations.items("me", id, { ...ALL, after: "5" });
  await checkRefused(missing, "not_found", 'after: expected the id of an item here, got "5"');
});

/** A store that counts what is asked of it. */
function counting(store: Store, asked: string[]): Store {
  return {
    get: (key) => (asked.push(`get of ${key.length}`), store.get(key)),
    commit: (write) => (asked.push("commit"), store.commit(write)),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

Deno.test("another caller's conversation is not found as one that never was, by the same work", async () => {
  const asked: string[] = [];
  const conversations = opened(counting(new MemoryStore(), asked));
  const { id } = await conversations.create("me", {}, [item("1")]);
  const every: ((id: string) => Promise<unknown>)[] = [
    (id) => conversations.get("you", id),
    (id) => conversations.update("you", id, {}),
    (id) => conversations.delete("you", id),
    (id) => conversations.items("you", id, ALL),
    (id) => conversations.item("you", id, "1"),
    (id) => conversations.add("you", id, [item("2")]),
    (id) => conversations.deleteItem("you", id, "1"),
    (id) => conversations.begin("you", id),
    (id) => conversations.append("you", id, "1", [item("2")]),
  ];
  for (const call of every) {
    const works = [];
    for (const other of [id, "conv_unknown"]) {
      asked.length = 0;
      const message = `conversation: expected one that is kept, got "${other}"`;
      await checkRefused(call(other), "not_found", message);
      works.push([...asked]);
    }
    assertEquals(works[0], works[1]);
  }
  assertEquals(await idsOf(conversations, "me", id), ["1"]);
});

Deno.test("what can be no id is not found either", async () => {
  const conversations = opened(new MemoryStore());
  for (const id of ["", "\ud800", "x".repeat(101), "x".repeat(10_000), "../conv_1", "conv_1\0"]) {
    const message = `conversation: expected one that is kept, got ${JSON.stringify(id.slice(0, 100))}`;
    await checkRefused(conversations.get("me", id), "not_found", message);
  }
});

Deno.test("a conversation ends with its time, which every change renews", async () => {
  let now = 0;
  const clock = () => now;
  const conversations = opened(new MemoryStore({ clock }), { clock });
  const { id } = await conversations.create("me", {}, [item("1")]);
  const changes: (() => Promise<unknown>)[] = [
    () => conversations.update("me", id, {}),
    () => conversations.add("me", id, [item("2")]),
    () => conversations.deleteItem("me", id, "2"),
    async () => conversations.append("me", id, (await conversations.begin("me", id)).version, [item("3")]),
  ];
  for (const change of changes) {
    now += CONVERSATION_TTL_MS - 1;
    await change();
  }
  now += CONVERSATION_TTL_MS - 1;
  assertEquals(await idsOf(conversations, "me", id), ["1", "3"]);
  now += 1;
  await assertRejects(() => conversations.get("me", id), SessionError, "expected one that is kept");
});

Deno.test("limits: items of a conversation, bytes of an item, bytes of all", async () => {
  const conversations = opened(new MemoryStore());
  const many = Array.from({ length: MAX_CONVERSATION_ITEMS - 1 }, (_, i) => item(`${i}`));
  const { id } = await conversations.create("me", {}, many);
  const two = conversations.add("me", id, [item("x"), item("y")]);
  await checkRefused(two, "too_large", "conversation conv_1: expected at most 4096 items, got 4097");
  await conversations.add("me", id, [item("x")]);
  assertEquals((await conversations.begin("me", id)).items.length, MAX_CONVERSATION_ITEMS);

  const bytes = MAX_ITEM_BYTES - JSON.stringify(item("1")).length;
  const large = await conversations.create("me", {}, [item("1", "é".repeat(bytes / 2))]);
  const larger = conversations.add("me", large.id, [item("2", `${"é".repeat(bytes / 2)}x`)]);
  await checkRefused(larger, "too_large", `item: expected at most 1048576 bytes of JSON, got 1048577`);
  const fitting = Math.floor(MAX_VALUE_BYTES / MAX_ITEM_BYTES) - 1;
  for (let i = 1; i < fitting; i++) await conversations.add("me", large.id, [item(`${i}`, "x".repeat(bytes))]);
  await conversations.add("me", large.id, [item("x", "x".repeat(bytes - 1000))]);
  const { code } = await assertRejects(
    () => conversations.add("me", large.id, [item("", "x".repeat(2000))]),
    StoreError,
  );
  assertEquals([code, (await conversations.begin("me", large.id)).items.length], ["too_large", fitting + 1]);
});

Deno.test("of two turns at once one appends; metadata may change meanwhile, items may not", async () => {
  const conversations = opened(new MemoryStore());
  const { id } = await conversations.create("me", {}, [item("1")]);
  const [one, two] = [await conversations.begin("me", id), await conversations.begin("me", id)];
  await conversations.update("me", id, { a: "b" });
  const version = await conversations.append("me", id, one.version, [item("2"), item("3")]);
  const message = 'conversation "conv_1": expected no other change meanwhile, got one';
  await checkRefused(conversations.append("me", id, two.version, [item("x")]), "conflict", message);
  assertEquals(await idsOf(conversations, "me", id), ["1", "2", "3"]);
  await conversations.append("me", id, version, [item("4")]);
  for (const change of ["add", "delete"] as const) {
    const { version } = await conversations.begin("me", id);
    if (change === "add") await conversations.add("me", id, [item("5")]);
    else await conversations.deleteItem("me", id, "5");
    await checkRefused(conversations.append("me", id, version, [item("x")]), "conflict", message);
  }
  assertEquals(await conversations.get("me", id), { id, createdAt: 1_700_000_000, metadata: { a: "b" } });
  const last = await conversations.begin("me", id);
  await conversations.delete("me", id);
  const append = conversations.append("me", id, last.version, [item("x")]);
  await checkRefused(append, "not_found", 'conversation: expected one that is kept, got "conv_1"');
  await assertRejects(() => conversations.get("me", id), SessionError);
});

Deno.test("an id that is taken already is never given a second time", async () => {
  const conversations = opened(new MemoryStore(), { newId: () => "same" });
  await conversations.create("me");
  await assertRejects(() => conversations.create("me"), SessionError, "expected no other change");
});

/** Numbers from 0 up to 1 that are the same each time (mulberry32). */
function randomFrom(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t ^= t + Math.imul(t ^ (t >>> 7), 61 | t);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A store whose calls begin and end when chance has it. */
function shuffled(store: Store, random: () => number): Store {
  const turns = async () => {
    for (let left = Math.floor(random() * 5); left > 0; left--) await Promise.resolve();
  };
  const around = async <T>(call: () => Promise<T>): Promise<T> => {
    await turns();
    const result = await call();
    await turns();
    return result;
  };
  return {
    get: <T>(key: StoreKey) => around(() => store.get<T>(key)),
    commit: (write) => around(() => store.commit(write)),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

interface Tally {
  appended: number;
  refused: number;
  removed: number;
}

/**
 * Many turns, additions and other changes on one conversation, in an order that `random` decides; then what is there must
 * be what succeeded: each time all of it, once, together, and in an order that every one saw.
 */
async function checkInterleaving(store: Store, random: () => number, tally: Tally): Promise<void> {
  const conversations = opened(shuffled(store, random), { newId: () => crypto.randomUUID() });
  const { id } = await conversations.create("me");
  const expected = new Map<string, string[]>();
  let removed = false;
  const turn = async (name: string) => {
    for (let round = 0; round < 3; round++) {
      const { items, version } = await conversations.begin("me", id);
      const mine = [1, 2].map((part) => item(`${name}.${round}.${part}`, items.at(-1)?.id ?? "nothing"));
      await conversations.append("me", id, version, mine);
      expected.set(`${name}.${round}`, mine.map(({ id }) => id));
      tally.appended++;
    }
  };
  const add = async (name: string) => {
    await conversations.add("me", id, [item(`${name}.0.1`), item(`${name}.0.2`)]);
    expected.set(`${name}.0`, [`${name}.0.1`, `${name}.0.2`]);
  };
  const remove = async () => {
    if (random() < 0.2) await conversations.delete("me", id).then(() => removed = true);
  };
  const work = [
    turn("a"),
    turn("b"),
    turn("c"),
    add("d"),
    add("e"),
    conversations.update("me", id, { x: "y" }),
    remove(),
  ];
  for (const result of await Promise.allSettled(work)) {
    if (result.status === "fulfilled") continue;
    assert(result.reason instanceof SessionError, String(result.reason));
    assert(result.reason.code === "conflict" || (removed && result.reason.code === "not_found"));
    tally.refused++;
  }
  if (removed) {
    tally.removed++;
    await assertRejects(() => conversations.begin("me", id), SessionError, "expected one that is kept");
    return;
  }
  const { items } = await conversations.begin("me", id);
  const groups = Map.groupBy(items, ({ id }) => id.slice(0, -2));
  const found = [...groups].map(([name, items]) => [name, items.map(({ id }) => id)]);
  assertEquals(new Map(found as [string, string[]][]), expected);
  for (const [index, { id, text }] of items.entries()) {
    if (id.endsWith(".2")) assertEquals(items[index - 1]!.id, id.replace(/2$/, "1"));
    else if (/^[abc]/.test(id)) assertEquals(text, items[index - 1]?.id ?? "nothing");
  }
}

const STORES: Record<string, { open: () => Promise<Store>; rounds: number }> = {
  memory: { open: () => Promise.resolve(new MemoryStore()), rounds: 1000 },
  KV: { open: async () => new KvStore(await Deno.openKv(":memory:")), rounds: 100 },
};

for (const [name, { open, rounds }] of Object.entries(STORES)) {
  Deno.test(`turns at once lose, double and mix nothing, in many orders: ${name}`, async () => {
    const tally: Tally = { appended: 0, refused: 0, removed: 0 };
    await using store = await open();
    for (let seed = 0; seed < rounds; seed++) await checkInterleaving(store, randomFrom(seed), tally);
    // Each of these was seen, so the test says something about each.
    for (const count of Object.values(tally)) assert(count > rounds / 20, JSON.stringify(tally));
  });
}
