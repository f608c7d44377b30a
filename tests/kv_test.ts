/** A database file, and processes that are killed while they write or that write at the same time: no value is lost or mixed. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ABANDONED_MS, CHUNK_BYTES, KvStore } from "../src/sessions/kv_store.ts";
import { program } from "./support.ts";

const LARGE = 20 * CHUNK_BYTES;

/** Whether the process came to its end before it was killed. */
async function replaceAndDie(path: string, letters: number, last: number, when: string): Promise<boolean> {
  const args = ["replace", path, `${letters}`, `${last}`, when];
  const { stdout, signal } = await program("kv_child.ts", args).output();
  const done = new TextDecoder().decode(stdout) === "done\n";
  assert.ok(done || signal === "SIGKILL", `call ${last}: ended with ${signal}`);
  return done;
}

Deno.test("kill -9 at any call of a commit: the old value or the new one, and nothing is left over", async () => {
  for (const before of [10, LARGE]) {
    const ends = new Set<string>();
    for (let last = 1, done = false; !done; last++) {
      for (const when of ["begun", "done"]) {
        const dir = await Deno.makeTempDir();
        const path = join(dir, "kv.sqlite");
        const old = "a".repeat(before);
        await (async () => {
          await using store = new KvStore(await Deno.openKv(path));
          await store.commit({ key: ["x"], value: old });
        })();
        done = await replaceAndDie(path, LARGE, last, when);
        using kv = await Deno.openKv(path);
        const store = new KvStore(kv, { clock: () => Date.now() + ABANDONED_MS });
        const value = (await store.get<string>(["x"]))!.value;
        assert.ok(value === old || value === "b".repeat(LARGE), `${before}, call ${last}, ${when}`);
        if (done) assert.ok(value !== old);
        ends.add(value[0]!);
        await store.commit({ key: ["y"], value: "y".repeat(LARGE) });
        for (const part of ["x", "y"]) await store.commit({ key: [part] });
        assert.deepEqual(await Array.fromAsync(kv.list({ prefix: [] })), []);
        await Deno.remove(dir, { recursive: true });
      }
    }
    assert.deepEqual([...ends].sort(), ["a", "b"]);
  }
});

Deno.test("processes that share a file count each other's changes", async () => {
  const dir = await Deno.makeTempDir();
  for (const letters of [10, 2 * CHUNK_BYTES]) {
    const path = join(dir, `${letters}.sqlite`);
    const counters = Array.from(
      { length: 3 },
      () => program("kv_child.ts", ["count", path, `${letters}`, "20"]).output(),
    );
    for (const { code, stderr } of await Promise.all(counters)) assert.equal(code, 0, new TextDecoder().decode(stderr));
    await using store = new KvStore(await Deno.openKv(path));
    assert.equal((await store.get<{ n: number }>(["n"]))!.value.n, 60);
  }
  await Deno.remove(dir, { recursive: true });
});
