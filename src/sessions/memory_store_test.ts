import { assertEquals, assertRejects } from "@std/assert";
import { StoreError } from "./entry.ts";
import { MemoryStore } from "./memory_store.ts";
import type { Write } from "./store.ts";
import { storeContract } from "./store_contract.ts";

storeContract("memory store", (clock) => Promise.resolve(new MemoryStore({ clock })), Deno.test);

async function valuesIn(store: MemoryStore): Promise<unknown[]> {
  return await Promise.all(["1", "2", "3", "4"].map(async (part) => (await store.get(["k", part]))?.value));
}

async function checkFull(store: MemoryStore, write: Write, message: string): Promise<void> {
  const before = await valuesIn(store);
  const error = await assertRejects(() => store.commit(write), StoreError);
  assertEquals([error.code, error.message], ["full", message]);
  assertEquals(await valuesIn(store), before);
}

Deno.test("a full store refuses more with its limits, and takes what does not add to it", async () => {
  const store = new MemoryStore({ maxEntries: 2, maxBytes: 20 });
  const message = "keeping a value: expected room in memory, got a store with at most 2 entries of 20 bytes together";
  await store.commit({ key: ["k", "1"], value: "1234567" });
  await checkFull(store, { key: ["k", "2"], value: "1234567890" }, message);
  await store.commit({ key: ["k", "2"], value: "123456789" });
  await checkFull(store, { key: ["k", "3"], value: 1 }, message);
  await checkFull(store, { key: ["k", "1"], value: "x".repeat(8) }, message);
  await store.commit({ key: ["k", "1"], value: "7654321" });
  await store.commit({ key: ["k", "1"] });
  await store.commit({ key: ["k", "3"], value: "7654321" });
  assertEquals(await valuesIn(store), [undefined, "123456789", "7654321", undefined]);
});

Deno.test("what is over makes room", async () => {
  let now = 0;
  const store = new MemoryStore({ maxEntries: 2, clock: () => now });
  await store.commit({ key: ["k", "1"], value: 1, ttlMs: 10 });
  await store.commit({ key: ["k", "2"], value: 2, ttlMs: 20 });
  now = 10;
  await store.commit({ key: ["k", "3"], value: 3 });
  await assertRejects(() => store.commit({ key: ["k", "4"], value: 4 }), StoreError);
  assertEquals(await valuesIn(store), [undefined, 2, 3, undefined]);
});

Deno.test("a full store drops what is disposable, the one written longest ago first, and no more than it must", async () => {
  const store = new MemoryStore({ maxEntries: 3, maxBytes: 20 });
  const put = (part: string, value: unknown) => store.commit({ key: ["k", part], value, disposable: true });
  for (const part of ["1", "2", "3"]) await put(part, Number(part));
  await put("1", "again");
  await put("4", 4);
  assertEquals(await valuesIn(store), ["again", undefined, 3, 4]);
  await store.commit({ key: ["k", "2"], value: "x".repeat(10) });
  assertEquals(await valuesIn(store), ["again", "x".repeat(10), undefined, 4]);
  await put("1", "longer");
  assertEquals(await valuesIn(store), ["longer", "x".repeat(10), undefined, undefined]);
});

Deno.test("what is over goes before what is disposable", async () => {
  let now = 0;
  const store = new MemoryStore({ maxEntries: 2, clock: () => now });
  await store.commit({ key: ["k", "1"], value: 1, disposable: true });
  await store.commit({ key: ["k", "2"], value: 2, ttlMs: 10 });
  now = 10;
  await store.commit({ key: ["k", "3"], value: 3 });
  assertEquals(await valuesIn(store), [1, undefined, 3, undefined]);
});

Deno.test("what would not fit into what is left is refused, and nothing is dropped for it", async () => {
  const store = new MemoryStore({ maxEntries: 3, maxBytes: 20 });
  const message = "keeping a value: expected room in memory, got a store with at most 3 entries of 20 bytes together";
  await store.commit({ key: ["k", "1"], value: "kept" });
  await store.commit({ key: ["k", "2"], value: "drop", disposable: true });
  for (const disposable of [true, undefined] as const) {
    await checkFull(store, { key: ["k", "3"], value: "x".repeat(19), disposable }, message);
    await checkFull(store, { key: ["k", "3"], value: "x".repeat(13), disposable }, message);
    await checkFull(store, { key: ["k", "2"], value: "x".repeat(13), disposable }, message);
  }
  await store.commit({ key: ["k", "2"], value: "safe now" });
  await checkFull(store, { key: ["k", "3"], value: "123", disposable: true }, message);
});
