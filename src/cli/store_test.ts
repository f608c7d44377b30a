import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { MemoryStore } from "../sessions/memory_store.ts";
import type { HandlerParts } from "./deps.ts";
import { STORE_FILE } from "./store.ts";
import { stage } from "./test_support.ts";

/** Serves until a signal, and tells where stores were opened and what became of them. */
async function serve(cache: string, ...flags: string[]) {
  const opened: string[] = [];
  const parts: HandlerParts[] = [];
  let closed = 0;
  const on = stage({}, {
    openStore: (place) => {
      opened.push(place);
      const store = new MemoryStore();
      return Promise.resolve(Object.assign(store, { [Symbol.asyncDispose]: () => Promise.resolve(void closed++) }));
    },
    createHandler: (given) => {
      parts.push(given);
      return () => new Response();
    },
  });
  on.terminal.environment.LLAMERO_CACHE = cache;
  const running = on.run("serve", "--model", "toy.gguf", "--port", "0", ...flags);
  await on.terminal.until(() => on.terminal.output.includes("http://"));
  assertEquals(closed, 0);
  on.terminal.signal("SIGTERM");
  assertEquals(await running, 0);
  return { opened, closed, store: parts[0]!.store };
}

Deno.test("what is kept is in the cache folder, or where --store says, and the store is closed at the end", async () => {
  const dir = await Deno.makeTempDir();
  const cache = join(dir, "not", "there yet");
  const inCache = await serve(cache);
  assertEquals([inCache.opened, inCache.closed], [[join(cache, STORE_FILE)], 1]);
  assert((await Deno.stat(cache)).isDirectory);
  for (const place of ["./here.sqlite", "https://kv.example/connect"]) {
    assertEquals((await serve(cache, "--store", place)).opened, [place]);
  }
  const { opened, store } = await serve(join(dir, "unused"), "--store", "memory");
  assertEquals([opened, store instanceof MemoryStore], [[], true]);
  await Deno.remove(dir, { recursive: true });
});

Deno.test("a store that cannot be opened is a sentence, before a model is loaded", async () => {
  const dir = await Deno.makeTempDir();
  await Deno.writeTextFile(join(dir, "text"), "this is no database, however long one looks at it");
  for (const [place, reason] of [["text", "file is not a database"], ["nowhere/x", "unable to open database file"]]) {
    const { terminal, opened, run } = stage({}, { openStore: async (place) => await Deno.openKv(place) as never });
    const path = join(dir, place!);
    assertEquals(await run("serve", "--model", "toy.gguf", "--port", "0", "--store", path), 1);
    assertEquals(opened, []);
    assertMatch(
      terminal.errors,
      new RegExp(`^llamero: opening the store ${path} failed: ${reason}.*; choose another with --store\n$`),
    );
  }
  await Deno.writeTextFile(join(dir, "file"), "");
  const { terminal, run } = stage();
  terminal.environment.LLAMERO_CACHE = join(dir, "file", "below");
  assertEquals(await run("serve", "--model", "toy.gguf", "--port", "0"), 1);
  assertMatch(terminal.errors, /^llamero: making the folder .*below failed: a part of the path is not a folder\n$/);
  await Deno.remove(dir, { recursive: true });
});
