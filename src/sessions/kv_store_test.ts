import { assert, assertEquals, assertRejects } from "@std/assert";
import { ABANDONED_MS, CHUNK_BYTES, KvStore } from "./kv_store.ts";
import { storeContract } from "./store_contract.ts";
import { hookedKv } from "./test_support.ts";

storeContract("KV store", async (clock) => new KvStore(await Deno.openKv(":memory:"), { clock }), Deno.test);

/** Two operations of chunks. */
const LARGE = 20 * CHUNK_BYTES;
/** The calls of a commit of so much: read, abandoned notes, chunks, chunks, swap. */
const SWAP = 5;

async function chunksIn(kv: Deno.Kv): Promise<number> {
  return (await Array.fromAsync(kv.list({ prefix: ["llamero", "chunk"] }))).length;
}

async function notesIn(kv: Deno.Kv): Promise<number> {
  return (await Array.fromAsync(kv.list({ prefix: ["llamero", "pending"] }))).length;
}

Deno.test("an end at any call leaves the old value or the new one, and what is left over goes", async () => {
  for (const [before, after] of [[10, LARGE], [LARGE, LARGE], [LARGE, 10], [LARGE, undefined]] as const) {
    const [old, fresh] = ["a".repeat(before), after && "b".repeat(after)];
    for (let last = 1, ended = true; ended; last++) {
      for (const done of [false, true]) {
        using kv = await Deno.openKv(":memory:");
        let now = 0;
        await new KvStore(kv, { clock: () => now }).commit({ key: ["x"], value: old });
        const dying = hookedKv(kv, (call, isDone) => {
          if (call >= last && isDone === done) throw new Error("the end");
        });
        ended = await new KvStore(dying, { clock: () => now }).commit({ key: ["x"], value: fresh })
          .then(() => false, () => true);
        const store = new KvStore(kv, { clock: () => now });
        const found = (await store.get(["x"]))?.value;
        assert(found === old || found === fresh, `${before} to ${after}, call ${last}`);
        if (!ended) assert(found === fresh);
        now += ABANDONED_MS;
        await store.commit({ key: ["y"], value: old.padEnd(LARGE) });
        for (const part of ["x", "y"]) await store.commit({ key: [part] });
        assertEquals([await chunksIn(kv), await notesIn(kv)], [0, 0], `${before} to ${after}, call ${last}`);
      }
    }
  }
});

Deno.test("chunks that are still on their way are left alone, and those given up are never committed", async () => {
  using kv = await Deno.openKv(":memory:");
  let now = 0;
  const clock = () => now;
  const other = new KvStore(kv, { clock });
  for (const wait of [ABANDONED_MS - 1, ABANDONED_MS]) {
    const reached = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    const slow = hookedKv(kv, async (call, done) => {
      if (call !== SWAP || done) return;
      reached.resolve();
      await goOn.promise;
    });
    const committed = new KvStore(slow, { clock }).commit({ key: ["x"], value: "x".repeat(LARGE) });
    committed.catch(() => {});
    await reached.promise;
    now += wait;
    await other.commit({ key: ["y"], value: "y".repeat(LARGE) });
    goOn.resolve();
    if (wait < ABANDONED_MS) {
      assert(await committed);
      assertEquals((await other.get<string>(["x"]))!.value.length, LARGE);
    } else {
      await assertRejects(() => committed, Error, "expected an end of changes");
    }
    for (const part of ["x", "y"]) await other.commit({ key: [part] });
    assertEquals([await chunksIn(kv), await notesIn(kv)], [0, 0]);
  }
});

Deno.test("a refused commit leaves nothing behind, also when it is refused late", async () => {
  using kv = await Deno.openKv(":memory:");
  const store = new KvStore(kv);
  const value = "x".repeat(LARGE);
  await store.commit({ key: ["x"], value: 1 });
  assertEquals(await store.commit({ key: ["x"], value, expect: null }), undefined);
  const { version } = (await store.get(["x"]))!;
  const late = hookedKv(kv, async (call, done) => {
    if (call === SWAP && !done) await store.commit({ key: ["x"], value: 2 });
  });
  assertEquals(await new KvStore(late).commit({ key: ["x"], value, expect: version }), undefined);
  assertEquals((await store.get(["x"]))!.value, 2);
  assertEquals([await chunksIn(kv), await notesIn(kv)], [0, 0]);
});

Deno.test("a reader whose chunks are replaced under it looks again", async () => {
  for (const value of ["b".repeat(LARGE), 10, undefined]) {
    using kv = await Deno.openKv(":memory:");
    const store = new KvStore(kv);
    await store.commit({ key: ["x"], value: "a".repeat(LARGE) });
    let raced = false;
    const racing = hookedKv(kv, async (call, done) => {
      if (call !== 1 || !done) return;
      raced = true;
      await store.commit({ key: ["x"], value });
    });
    assertEquals((await new KvStore(racing).get(["x"]))?.value, value);
    assert(raced);
  }
});

Deno.test("chunks that are missing for good are an error, and no part of a value", async () => {
  using kv = await Deno.openKv(":memory:");
  const store = new KvStore(kv);
  await store.commit({ key: ["x"], value: "x".repeat(LARGE) });
  for await (const { key } of kv.list({ prefix: ["llamero", "chunk"] }, { limit: 1 })) await kv.delete(key);
  await assertRejects(() => store.get(["x"]), Error, 'reading ["x"]: expected all chunks, got some');
  await store.commit({ key: ["x"], value: 1 });
  assertEquals((await store.get(["x"]))!.value, 1);
  assertEquals(await chunksIn(kv), 0);
});

Deno.test("stores of two namespaces do not see each other", async () => {
  using kv = await Deno.openKv(":memory:");
  const [one, two] = ["one", "two"].map((name) => new KvStore(kv, { namespace: [name] }));
  await one!.commit({ key: ["x"], value: 1 });
  assertEquals(await two!.get(["x"]), undefined);
  await two!.commit({ key: ["x"], value: 2 });
  assertEquals((await one!.get(["x"]))!.value, 1);
});

Deno.test("while another process has the file, calls are made again, but not for ever", async () => {
  for (const refusals of [3, 99, 100]) {
    using kv = await Deno.openKv(":memory:");
    let refused = 0;
    const pauses: number[] = [];
    const busy = hookedKv(kv, (call) => {
      // The read succeeds, and each call of the swap has its own number.
      if (call > 1 && refused++ < refusals) throw new TypeError("database is locked");
    });
    const pause = (ms: number) => Promise.resolve(void pauses.push(ms));
    const commit = new KvStore(busy, { pause }).commit({ key: ["x"], value: 1 });
    if (refusals === 100) await assertRejects(() => commit, TypeError, "database is locked");
    else assert(await commit);
    assertEquals(pauses, Array.from({ length: Math.min(refusals, 99) }, (_, i) => Math.min(2 ** (i + 1), 100)));
  }
});
