import assert from "node:assert/strict";
import { merged } from "./merge.ts";

/** A source whose values a test gives, and what happened to it. */
function source() {
  const values: PromiseWithResolvers<string | undefined>[] = [];
  const value = (index: number) => values[index] ??= Promise.withResolvers<string | undefined>();
  const seen = { asked: 0, ended: false };
  async function* run(): AsyncGenerator<string> {
    try {
      for (;;) {
        const next = await value(seen.asked++).promise;
        if (next === undefined) return;
        yield next;
      }
    } finally {
      seen.ended = true;
    }
  }
  return { values: run(), seen, give: (index: number, next?: string) => value(index).resolve(next), value };
}

Deno.test("values come in the order of their arrival, the first when every source has one", async () => {
  const [a, b] = [source(), source()];
  const all = merged([a.values, b.values], () => {});
  b.give(0, "b0");
  const first = all.next();
  let early = true;
  first.then(() => early = false);
  await new Promise((resolve) => setTimeout(resolve, 2));
  assert(early);
  a.give(0, "a0");
  assert.deepEqual((await first).value, [0, "a0"]);
  assert.deepEqual((await all.next()).value, [1, "b0"]);
  b.give(1, "b1");
  assert.deepEqual((await all.next()).value, [1, "b1"]);
  b.give(2);
  a.give(1, "a1");
  assert.deepEqual((await all.next()).value, [0, "a1"]);
  a.give(2);
  assert.equal((await all.next()).done, true);
  assert.deepEqual([a.seen, b.seen], [{ asked: 3, ended: true }, { asked: 3, ended: true }]);
});

Deno.test("a source is asked again only when its value was taken, and leaving ends all", async () => {
  const [a, b] = [source(), source()];
  let stopped = 0;
  const all = merged([a.values, b.values], () => {
    stopped++;
    // What a source waits for ends with it, as a cancelled reply does.
    a.give(1);
    b.give(1);
  });
  a.give(0, "a0");
  b.give(0, "b0");
  assert.deepEqual((await all.next()).value, [0, "a0"]);
  assert.deepEqual([a.seen.asked, b.seen.asked, stopped], [1, 1, 0]);
  await all.return(undefined);
  assert.deepEqual([a.seen.ended, b.seen.ended, stopped], [true, true, 1]);
});

Deno.test("a failure ends all, at the start and later", async () => {
  for (const late of [0, 1]) {
    const [a, b] = [source(), source()];
    const all = merged([a.values, b.values], () => a.give(1));
    a.give(0, "a0");
    if (late) b.give(0, "b0");
    b.value(late).reject(new Error("broken"));
    const taken: string[] = [];
    await assert.rejects(async () => {
      for await (const [, value] of all) taken.push(value);
    }, /^Error: broken$/);
    assert.deepEqual([taken, a.seen.ended], [late ? ["a0", "b0"] : [], true]);
  }
  assert.equal((await merged([], () => {}).next()).done, true);
});
