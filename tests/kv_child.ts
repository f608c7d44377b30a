/**
 * Processes of their own for the tests of kv_test.ts, on the database of the second argument.
 *
 *     replace PATH LETTERS CALL begun|done   replaces the value of `x` by that many letters, and kills itself at that call
 *                                            of the database: as soon as it is under way, or when it is done
 *     count PATH LETTERS TIMES               counts `n` up so often, beside that many letters
 *
 * @module
 */
import { KvStore } from "../src/sessions/kv_store.ts";
import type { Store } from "../src/sessions/store.ts";
import { hookedKv } from "../src/sessions/test_support.ts";

async function replace(path: string, letters: number, last: number, when: string): Promise<void> {
  const die = () => Deno.kill(Deno.pid, "SIGKILL");
  const kv = hookedKv(await Deno.openKv(path), (call, done) => {
    if (call !== last) return;
    if (when === "done" && done) die();
    // The call begins before the next timer.
    if (when === "begun" && !done) setTimeout(die, 0);
  });
  await new KvStore(kv).commit({ key: ["x"], value: "b".repeat(letters) });
}

async function count(path: string, letters: number, times: number): Promise<void> {
  await using store = new KvStore(await Deno.openKv(path));
  for (let done = 0; done < times;) if (await countUp(store, letters)) done++;
}

async function countUp(store: Store, letters: number): Promise<string | undefined> {
  const found = await store.get<{ n: number }>(["n"]);
  const value = { n: (found?.value.n ?? 0) + 1, letters: "a".repeat(letters) };
  return await store.commit({ key: ["n"], value, expect: found?.version ?? null });
}

if (import.meta.main) {
  const [what, path = "", letters, number, when = ""] = Deno.args;
  if (what === "replace") await replace(path, Number(letters), Number(number), when);
  else await count(path, Number(letters), Number(number));
  console.log("done");
  Deno.exit(0);
}
