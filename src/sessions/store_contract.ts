/**
 * The contract of `Store`: one suite that every implementation passes, so that what holds in memory holds in a file.
 *
 * Used from test files only.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { MAX_KEY_BYTES, MAX_VALUE_BYTES, MAX_WRITES, StoreError } from "./entry.ts";
import type { ListOptions, Store, StoreKey } from "./store.ts";

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
  lists(test);
  times(test);
  refusals(test);
  crowds(test);
}

/** Sizes around the borders of KV: inline, one chunk, two, more than one operation takes. */
const SIZES = [0, 61_438, 61_439, 65_534, 65_535, 131_070, 131_071, 800_000] as const;

function values(test: Register): void {
  test("what is kept is what was given, and a copy", async ({ store }) => {
    const value = { text: "🦙\0\ud800", list: [1, null, { deep: true }], empty: {} };
    await store.commit([{ key: ["a", 1], value }]);
    value.list.push(2);
    const found = await store.get<typeof value>(["a", 1]);
    assertEquals([found!.key, found!.value], [["a", 1], { ...value, list: [1, null, { deep: true }] }]);
    found!.value.list.push(3);
    assertEquals((await store.get<typeof value>(["a", 1]))!.value.list.length, 3);
    for (const plain of [null, false, 0, ""]) {
      await store.commit([{ key: ["plain"], value: plain }]);
      assertEquals((await store.get(["plain"]))!.value, plain);
    }
  });

  test("keys differ by each part and its type", async ({ store }) => {
    const keys: StoreKey[] = [["a"], ["a", ""], ["a", "b"], ["a", 1], ["a", "1"], ["ab"], [1], ["a\0b"], ["", "a"]];
    for (const [value, key] of keys.entries()) await store.commit([{ key, value }]);
    for (const [value, key] of keys.entries()) assertEquals((await store.get(key))?.value, value);
    assertEquals(await store.get(["b"]), undefined);
  });

  test("values of any size, replaced by others of any size", async ({ store }) => {
    for (const before of SIZES) {
      for (const after of [10, 70_000, 900_000]) {
        await store.commit([{ key: ["x"], value: "a".repeat(before) }]);
        assertEquals((await store.get(["x"]))!.value, "a".repeat(before));
        await store.commit([{ key: ["x"], value: "é".repeat(after / 2) }]);
        assertEquals((await store.get(["x"]))!.value, "é".repeat(after / 2));
      }
    }
  });

  test("deleted is gone", async ({ store }) => {
    for (const value of ["small", "large".repeat(50_000)]) {
      await store.commit([{ key: ["x"], value }]);
      assert(await store.commit([{ key: ["x"] }]));
      assertEquals(await store.get(["x"]), undefined);
      assert(await store.commit([{ key: ["x"] }]));
    }
  });
}

function versions(test: Register): void {
  test("a version is that of the commit, and no other commit has it", async ({ store }) => {
    const first = await store.commit([{ key: ["a"], value: 1 }, { key: ["b"], value: 1 }]);
    assertEquals([(await store.get(["a"]))!.version, (await store.get(["b"]))!.version], [first, first]);
    const second = await store.commit([{ key: ["a"], value: 1 }]);
    assertNotEquals(first, second);
    assertEquals([(await store.get(["a"]))!.version, (await store.get(["b"]))!.version], [second, first]);
    await store.commit([{ key: ["a"] }]);
    const again = await store.commit([{ key: ["a"], value: 1 }]);
    assert(again !== first && again !== second);
  });

  test("all changes are made when every expectation holds, else none", async ({ store }) => {
    for (const value of ["v", "v".repeat(100_000)]) {
      const [a, b] = [["a", value.length], ["b", value.length]];
      const version = (await store.commit([{ key: a, value: 0, expect: null }]))!;
      assertEquals(await store.commit([{ key: b, value }, { key: a, value, expect: null }]), undefined);
      assertEquals(await store.commit([{ key: b, value }, { key: a, value, expect: `${version}0` }]), undefined);
      assertEquals(await store.commit([{ key: b, value, expect: version }]), undefined);
      assertEquals(await store.commit([{ key: a }, { key: b, expect: version }]), undefined);
      assertEquals([(await store.get(a))!.value, await store.get(b)], [0, undefined]);
      assert(await store.commit([{ key: b, value, expect: null }, { key: a, value, expect: version }]));
      assertEquals([(await store.get(a))!.value, (await store.get(b))!.value], [value, value]);
      assertEquals(await store.commit([{ key: a, expect: version }]), undefined);
      assert(await store.commit([{ key: a, expect: (await store.get(a))!.version }]));
      assert(await store.commit([{ key: a, expect: null }]));
    }
  });
}

function lists(test: Register): void {
  test("a family in order, without its descendants and others", async ({ store }) => {
    // Texts before numbers, by code points and not by code units.
    const parts = ["", "a", "a\0", "a!", "ab", "b", "\uffff", "🦙", 0, 2, 10, 2 ** 40];
    for (const part of [...parts].reverse()) await store.commit([{ key: ["f", part], value: part }]);
    for (const key of [["f"], ["f", "a", "x"], ["g", "a"], ["fa"]]) await store.commit([{ key, value: "other" }]);
    const listed = async (options?: ListOptions) => (await store.list(["f"], options)).map(({ value }) => value);
    assertEquals(await listed(), parts);
    assertEquals(await listed({ reverse: true }), [...parts].reverse());
    for (const [index, part] of parts.entries()) {
      assertEquals(await listed({ after: part }), parts.slice(index + 1));
      assertEquals(await listed({ after: part, reverse: true }), parts.slice(0, index).reverse());
    }
    assertEquals(await listed({ after: "aa" }), parts.slice(4));
    assertEquals(await listed({ after: 3, reverse: true }), parts.slice(0, 10).reverse());
    assertEquals(await listed({ limit: 2, after: "b" }), parts.slice(6, 8));
    assertEquals(await listed({ limit: 1, reverse: true }), parts.slice(-1));
    assertEquals(await listed({ limit: 0 }), []);
    assertEquals((await store.list([])).map(({ key }) => key), [["f"], ["fa"]]);
    assertEquals((await store.list(["f", "a"])).map(({ key }) => key), [["f", "a", "x"]]);
    assertEquals(await store.list(["nothing"]), []);
  });

  test("entries of a list are those that get finds", async ({ store }) => {
    const values = ["small", "large".repeat(40_000), { json: true }];
    for (const [part, value] of values.entries()) await store.commit([{ key: ["f", part], value }]);
    const listed = await store.list(["f"]);
    assertEquals(listed, await Promise.all(values.map(async (_, part) => (await store.get(["f", part]))!)));
  });
}

function times(test: Register): void {
  test("a value ends with its time, and a write sets a new one", async ({ store, pass }) => {
    const large = "large".repeat(40_000);
    // Long enough for a store with a clock of its own besides the one handed in.
    const ttlMs = 1_000_000;
    await store.commit([{ key: ["f", 0], value: "x", ttlMs }, { key: ["f", 1], value: large, ttlMs }]);
    await store.commit([{ key: ["f", 2], value: "y" }]);
    const there = async () => (await store.list(["f"])).map(({ key }) => key[1]);
    pass(ttlMs - 1);
    assertEquals([await there(), (await store.get(["f", 1]))!.value], [[0, 1, 2], large]);
    await store.commit([{ key: ["f", 1], value: large, ttlMs }]);
    pass(1);
    assertEquals([await there(), await store.get(["f", 0])], [[1, 2], undefined]);
    assertEquals((await store.list(["f"], { limit: 1 })).map(({ key }) => key[1]), [1]);
    await store.commit([{ key: ["f", 1], value: "for ever" }]);
    pass(10 ** 9);
    assertEquals(await there(), [1, 2]);
  });

  test("where a value has ended, none is expected", async ({ store, pass }) => {
    const version = (await store.commit([{ key: ["x"], value: "large".repeat(40_000), ttlMs: 5 }]))!;
    pass(5);
    assertEquals(await store.commit([{ key: ["x"], value: 1, expect: version }]), undefined);
    assert(await store.commit([{ key: ["x"], value: 1, expect: null }]));
    assertEquals((await store.get(["x"]))!.value, 1);
  });
}

function refusals(test: Register): void {
  test("a value that is too large is refused, and nothing is changed", async ({ store }) => {
    const largest = "x".repeat(MAX_VALUE_BYTES - 2);
    await store.commit([{ key: ["x"], value: largest }]);
    assertEquals((await store.get(["x"]))!.value, largest);
    const commit = () => store.commit([{ key: ["y"], value: 1 }, { key: ["x"], value: `${largest}x` }]);
    const { code, message } = await assertRejects(commit, StoreError);
    assertEquals([code, /at most 6291456 bytes of JSON, got 6291457$/.test(message)], ["too_large", true]);
    assertEquals([await store.get(["y"]), (await store.get(["x"]))!.value === largest], [undefined, true]);
  });

  test("what is no key, no value or no commit is a mistake", async ({ store }) => {
    const long = "k".repeat(MAX_KEY_BYTES);
    for (const key of [[], [-1], [1.5], [NaN], [-0], [2 ** 53], ["\ud800"], [long], Array(99).fill(1)]) {
      await assertRejects(() => store.get(key), RangeError, "expected a key of");
      await assertRejects(() => store.commit([{ key, value: 1 }]), RangeError, "expected a key of");
    }
    const longest = "\0".repeat(MAX_KEY_BYTES - 10);
    await store.commit([{ key: [longest], value: 1 }]);
    assertEquals((await store.get([longest]))!.value, 1);
    for (const ttlMs of [0, -1, NaN, Infinity, 0.5, 2 ** 53]) {
      await assertRejects(() => store.commit([{ key: ["x"], value: 1, ttlMs }]), RangeError, "ttlMs");
    }
    const many = Array.from({ length: MAX_WRITES + 1 }, (_, part) => ({ key: ["m", part], value: 1 }));
    await assertRejects(() => store.commit(many), RangeError, "expected 1 to 9 writes, got 10");
    await assertRejects(() => store.commit([]), RangeError, "got 0");
    await assertRejects(() => store.commit([{ key: ["x"], value: 1 }, { key: ["x"] }]), RangeError, "twice");
    await assertRejects(() => store.commit([{ key: ["x"], value: () => 1 }]), TypeError, "JSON can carry");
    assertEquals(await store.get(["x"]), undefined);
  });

  test("a commit of the most and largest values", async ({ store }) => {
    const value = "x".repeat(MAX_VALUE_BYTES - 2);
    for (const first of ["a", "b"]) {
      const all = Array.from(
        { length: MAX_WRITES },
        (_, part) => ({ key: ["all", part], value: first + value.slice(1) }),
      );
      assert(await store.commit(all));
    }
    const last = await store.get<string>(["all", MAX_WRITES - 1]);
    assertEquals([last!.value[0], last!.value.length], ["b", value.length]);
    assert(await store.commit(Array.from({ length: MAX_WRITES }, (_, part) => ({ key: ["all", part] }))));
    assertEquals(await store.list(["all"]), []);
  });
}

function crowds(test: Register): void {
  test("of many at once with one expectation, one succeeds", async ({ store }) => {
    for (const size of [1, 70_000]) {
      const key = ["x", size];
      const texts = Array.from({ length: 10 }, (_, i) => `${i}`.repeat(size));
      const versions = await Promise.all(texts.map((value) => store.commit([{ key, value, expect: null }])));
      const winners = texts.filter((_, i) => versions[i] !== undefined);
      assertEquals([(await store.get(key))!.value], winners);
    }
  });

  test("increments by many at once are all counted, and readers see whole values", async ({ store }) => {
    const padding = "p".repeat(70_000);
    const key = ["count"];
    await store.commit([{ key, value: { count: 0, padding } }]);
    const increment = async () => {
      for (;;) {
        const { value: { count }, version } = (await store.get<{ count: number }>(key))!;
        if (await store.commit([{ key, value: { count: count + 1, padding }, expect: version }])) return;
      }
    };
    await Promise.all(Array.from({ length: 8 }, increment));
    assertEquals((await store.get(key))!.value, { count: 8, padding });
    const blind = Array.from({ length: 8 }, (_, i) => store.commit([{ key, value: `${i}`.repeat(70_000) }]));
    assert((await Promise.all(blind)).every((version) => version !== undefined));
    const { value } = (await store.get<string>(key))!;
    assertEquals(value, value[0]!.repeat(70_000));
  });
}
