/**
 * The contract of `Store`: one suite that every implementation passes, so that what holds in memory holds in a file.
 *
 * Used from test files only.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { MAX_KEY_BYTES, MAX_VALUE_BYTES, StoreError } from "./entry.ts";
import type { Store, StoreKey } from "./store.ts";

/** What a test has: an empty store, and the time that the store sees. */
export interface ContractCase {
  store: Store;
  /** Let milliseconds pass. */
  pass(ms: number): void;
}

/** Opens an empty store whose clock is handed in. */
export type OpenStore = (clock: () => number) => Promise<Store>;

/** Registers one test, as `Deno.test` does. */
export type RegisterTest = (name: string, body: () => Promise<void>) => void;

type Register = (what: string, body: (given: ContractCase) => Promise<void>) => void;

/** Register the tests that `open`'s stores must pass. */
export function storeContract(name: string, open: OpenStore, register: RegisterTest): void {
  function test(what: string, body: (given: ContractCase) => Promise<void>): void {
    register(`${name}: ${what}`, async () => {
      let now = 1_700_000_000_000;
      await using store = await open(() => now);
      await body({ store, pass: (ms) => now += ms });
    });
  }
  values(test);
  versions(test);
  times(test);
  refusals(test);
  crowds(test);
}

/** Sizes around the borders of KV: inline, one chunk, two, more than one operation takes. */
const SIZES = [0, 61_438, 61_439, 65_534, 65_535, 131_070, 131_071, 800_000] as const;

function values(test: Register): void {
  test("what is kept is what was given, and a copy", async ({ store }) => {
    const value = { text: "🦙\0\ud800", list: [1, null, { deep: true }], empty: {} };
    await store.commit({ key: ["a", "1"], value });
    value.list.push(2);
    const found = await store.get<typeof value>(["a", "1"]);
    assertEquals(found!.value, { ...value, list: [1, null, { deep: true }] });
    found!.value.list.push(3);
    assertEquals((await store.get<typeof value>(["a", "1"]))!.value.list.length, 3);
    for (const plain of [null, false, 0, ""]) {
      await store.commit({ key: ["plain"], value: plain });
      assertEquals((await store.get(["plain"]))!.value, plain);
    }
  });

  test("keys differ by each part", async ({ store }) => {
    const keys: StoreKey[] = [["a"], ["a", ""], ["a", "b"], ["a,b"], ["ab"], ["a\0b"], ["", "a"], ['a","b']];
    for (const [value, key] of keys.entries()) await store.commit({ key, value });
    for (const [value, key] of keys.entries()) assertEquals((await store.get(key))?.value, value);
    assertEquals(await store.get(["b"]), undefined);
  });

  test("values of any size, replaced by others of any size", async ({ store }) => {
    for (const before of SIZES) {
      for (const after of [10, 70_000, 900_000]) {
        await store.commit({ key: ["x"], value: "a".repeat(before) });
        assertEquals((await store.get(["x"]))!.value, "a".repeat(before));
        await store.commit({ key: ["x"], value: "é".repeat(after / 2) });
        assertEquals((await store.get(["x"]))!.value, "é".repeat(after / 2));
      }
    }
  });

  test("what is disposable is kept where there is room", async ({ store }) => {
    for (const value of ["small", "large".repeat(50_000)]) {
      const version = await store.commit({ key: ["x"], value, disposable: true });
      await store.commit({ key: ["y"], value });
      assertEquals(await store.get(["x"]), { value, version: version! });
    }
  });

  test("deleted is gone", async ({ store }) => {
    for (const value of ["small", "large".repeat(50_000)]) {
      await store.commit({ key: ["x"], value });
      assert(await store.commit({ key: ["x"] }));
      assertEquals(await store.get(["x"]), undefined);
      assert(await store.commit({ key: ["x"] }));
    }
  });
}

function versions(test: Register): void {
  test("a version is that of the commit, and no other commit of the key has it", async ({ store }) => {
    const seen = new Set<string>();
    for (const value of [1, 1, undefined, 1, 2]) {
      const version = (await store.commit({ key: ["a"], value }))!;
      assertEquals([(await store.get(["a"]))?.version, seen.has(version)], [value && version, false]);
      seen.add(version);
      await store.commit({ key: ["b"], value: 1 });
    }
  });

  test("a change is made when its expectation holds", async ({ store }) => {
    for (const value of ["v", "v".repeat(100_000)]) {
      const key = ["a", `${value.length}`];
      const { version: other } = (await store.commit({ key: ["b"], value: 0 }), (await store.get(["b"]))!);
      assertEquals(await store.commit({ key, value, expect: other }), undefined);
      assertEquals(await store.commit({ key, expect: other }), undefined);
      const version = (await store.commit({ key, value: 0, expect: null }))!;
      for (const expect of [null, other, `${version}0`]) {
        assertEquals(await store.commit({ key, value, expect }), undefined);
        assertEquals(await store.commit({ key, expect }), undefined);
      }
      assertEquals(await store.get(key), { value: 0, version });
      const next = await store.commit({ key, value, expect: version });
      assertEquals(await store.get(key), { value, version: next! });
      assertEquals(await store.commit({ key, expect: version }), undefined);
      assert(await store.commit({ key, expect: next }));
      assert(await store.commit({ key, expect: null }));
      assertEquals(await store.get(key), undefined);
    }
  });
}

function times(test: Register): void {
  test("a value ends with its time, and a write sets a new one", async ({ store, pass }) => {
    const large = "large".repeat(40_000);
    // Long enough for a store with a clock of its own besides the one handed in.
    const ttlMs = 1_000_000;
    const values = async () => await Promise.all(["0", "1", "2"].map(async (part) => (await store.get([part]))?.value));
    await store.commit({ key: ["0"], value: "x", ttlMs });
    await store.commit({ key: ["1"], value: large, ttlMs });
    await store.commit({ key: ["2"], value: "y" });
    pass(ttlMs - 1);
    assertEquals(await values(), ["x", large, "y"]);
    await store.commit({ key: ["1"], value: large, ttlMs });
    pass(1);
    assertEquals(await values(), [undefined, large, "y"]);
    await store.commit({ key: ["1"], value: "for ever" });
    pass(10 ** 9);
    assertEquals(await values(), [undefined, "for ever", "y"]);
  });

  test("where a value has ended, none is expected", async ({ store, pass }) => {
    const version = (await store.commit({ key: ["x"], value: "large".repeat(40_000), ttlMs: 5 }))!;
    pass(5);
    assertEquals(await store.commit({ key: ["x"], value: 1, expect: version }), undefined);
    assert(await store.commit({ key: ["x"], value: 1, expect: null }));
    assertEquals((await store.get(["x"]))!.value, 1);
  });
}

function refusals(test: Register): void {
  test("a value that is too large is refused, and nothing is changed", async ({ store }) => {
    const largest = "x".repeat(MAX_VALUE_BYTES - 2);
    await store.commit({ key: ["x"], value: "y".repeat(MAX_VALUE_BYTES - 2) });
    const version = await store.commit({ key: ["x"], value: largest });
    const { code, message } = await assertRejects(() => store.commit({ key: ["x"], value: `${largest}x` }), StoreError);
    assertEquals([code, /at most 6291456 bytes of JSON, got 6291457$/.test(message)], ["too_large", true]);
    const found = (await store.get(["x"]))!;
    assertEquals([found.value === largest, found.version], [true, version]);
  });

  test("what is no key, no value or no time is a mistake", async ({ store }) => {
    const long = "k".repeat(MAX_KEY_BYTES);
    for (const key of [[], ["\ud800"], [long], Array(99).fill("a")]) {
      await assertRejects(() => store.get(key), RangeError, "expected a key of");
      await assertRejects(() => store.commit({ key, value: 1 }), RangeError, "expected a key of");
    }
    const longest = "\0".repeat(MAX_KEY_BYTES - 10);
    await store.commit({ key: [longest], value: 1 });
    assertEquals((await store.get([longest]))!.value, 1);
    for (const ttlMs of [0, -1, NaN, Infinity, 0.5, 2 ** 53]) {
      await assertRejects(() => store.commit({ key: ["x"], value: 1, ttlMs }), RangeError, "ttlMs");
    }
    await assertRejects(() => store.commit({ key: ["x"], value: () => 1 }), TypeError, "JSON can carry");
    assertEquals(await store.get(["x"]), undefined);
  });
}

function crowds(test: Register): void {
  test("of many at once with one expectation, one succeeds", async ({ store }) => {
    for (const size of [1, 70_000]) {
      const key = ["x", `${size}`];
      const texts = Array.from({ length: 10 }, (_, i) => `${i}`.repeat(size));
      const versions = await Promise.all(texts.map((value) => store.commit({ key, value, expect: null })));
      const winners = texts.filter((_, i) => versions[i] !== undefined);
      assertEquals([(await store.get(key))!.value], winners);
    }
  });

  test("increments by many at once are all counted, and readers see whole values", async ({ store }) => {
    const padding = "p".repeat(70_000);
    const key = ["count"];
    await store.commit({ key, value: { count: 0, padding } });
    const increment = async () => {
      for (;;) {
        const { value: { count }, version } = (await store.get<{ count: number }>(key))!;
        if (await store.commit({ key, value: { count: count + 1, padding }, expect: version })) return;
      }
    };
    await Promise.all(Array.from({ length: 8 }, increment));
    assertEquals((await store.get(key))!.value, { count: 8, padding });
    const blind = Array.from({ length: 8 }, (_, i) => store.commit({ key, value: `${i}`.repeat(70_000) }));
    assert((await Promise.all(blind)).every((version) => version !== undefined));
    const { value } = (await store.get<string>(key))!;
    assertEquals(value, value[0]!.repeat(70_000));
  });
}
