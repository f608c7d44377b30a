import { assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { KeyRing, parseKeys } from "../api/keys.ts";
import type { HandlerParts } from "./deps.ts";
import { type Stage, stage, started } from "./test_support.ts";

const ARGS = ["serve", "--model", "toy.gguf", "--port", "0"];

/** `llamero key`, and what it says. */
async function made(...args: string[]) {
  const { terminal, run } = stage();
  const code = await run("key", ...args);
  return { code, line: terminal.output, errors: terminal.errors, key: /sk-llamero-\S+/.exec(terminal.errors)?.[0] };
}

/** A stage whose parts of the application are seen. */
function watched(): Stage & { parts: HandlerParts[] } {
  const parts: HandlerParts[] = [];
  const on = stage({}, {
    createHandler: (given) => {
      parts.push(given);
      return () => new Response();
    },
  });
  return { ...on, parts };
}

Deno.test("key: the line for the file goes to standard output, the key is shown once beside it", async () => {
  const flags = ["--models", "a,b", "--requests-per-minute", "60", "--tokens-per-minute", "1000"];
  const more = ["--max-running", "2", "--max-waiting", "0", "--expires", "2099-01-31"];
  const { code, line, key, errors } = await made("alice", ...flags, ...more);
  assertEquals(code, 0);
  assertMatch(errors, /^llamero: the key of alice, shown this once: sk-llamero-[\w-]{43}\n$/);
  const { sha256: _, ...fields } = JSON.parse(line);
  assertEquals(fields, {
    name: "alice",
    models: ["a", "b"],
    requests_per_minute: 60,
    tokens_per_minute: 1000,
    max_running: 2,
    max_waiting: 0,
    expires: "2099-01-31",
  });
  assertEquals((await new KeyRing(parseKeys(line)).authenticate(key!))?.name, "alice");
  assertNotEquals((await made("alice")).key, key);
});

Deno.test("key: --json has both in one object; wrong words are sentences", async () => {
  const { terminal, run } = stage();
  assertEquals(await run("key", "bob", "--json"), 0);
  const { key, line } = JSON.parse(terminal.output);
  assertEquals([(await new KeyRing(parseKeys(line)).authenticate(key))?.name, terminal.errors], ["bob", ""]);
  assertMatch((await made()).errors, /^llamero: llamero key: expected one name, got nothing\n$/);
  assertMatch((await made("a", "b")).errors, /expected one name, got a b\n$/);
  assertMatch((await made("a b")).errors, /name: expected 1 to 64 letters, digits or/);
  assertMatch((await made("a", "--expires", "soon")).errors, /expires: expected a date or time such as/);
});

Deno.test("serve: keys come from a file and the environment; without any, everybody may come in", async () => {
  const path = await Deno.makeTempFile();
  const { line, key } = await made("alice");
  await Deno.writeTextFile(path, line);
  const on = watched();
  on.terminal.environment.LLAMERO_API_KEY = "plain";
  const { running } = await started(on, ...ARGS, "--keys", path);
  on.terminal.signal("SIGTERM");
  await running;
  const { keys } = on.parts[0]!;
  assertEquals((await keys?.authenticate(key!))?.name, "alice");
  assertEquals((await keys?.authenticate("plain"))?.name, "LLAMERO_API_KEY");
  const open = watched();
  const { running: others } = await started(open, ...ARGS);
  assertEquals(open.terminal.signal("SIGHUP"), false, "without a file the signal keeps its meaning");
  open.terminal.signal("SIGTERM");
  await others;
  assertEquals(open.parts[0]!.keys, undefined);
  await Deno.remove(path);
});

Deno.test("serve: a file without keys, a broken one and a missing one are sentences", async () => {
  const path = await Deno.makeTempFile();
  const cases: [text: string, message: RegExp][] = [
    ["", /^llamero: reading keys: expected at least one key, got none\n$/],
    ["{", /^llamero: reading keys, line 1: expected an object\n$/],
  ];
  for (const [text, message] of cases) {
    await Deno.writeTextFile(path, text);
    const { terminal, opened, run } = stage();
    assertEquals([await run(...ARGS, "--keys", path), opened.length], [1, 0]);
    assertMatch(terminal.errors, message);
  }
  await Deno.remove(path);
  const { terminal, run } = stage();
  assertEquals(await run(...ARGS, "--keys", path), 2);
  assertMatch(terminal.errors, /^llamero: --keys: expected a file of keys, .* got nothing of that name/);
});

Deno.test("serve: SIGHUP puts the file's keys in force; a broken file changes nothing and says so", async () => {
  const path = await Deno.makeTempFile();
  const [alice, bob] = [await made("alice"), await made("bob")];
  await Deno.writeTextFile(path, alice.line);
  const on = watched();
  const { running } = await started(on, ...ARGS, "--keys", path);
  const { keys } = on.parts[0]!;
  const reload = async (text: string, said: string) => {
    await Deno.writeTextFile(path, text);
    on.terminal.signal("SIGHUP");
    await on.terminal.until(() => on.terminal.errors.includes(said));
  };
  await reload(`${alice.line}nonsense`, "the keys stay as they were: reading keys, line 2: expected an object");
  assertEquals((await keys?.authenticate(alice.key!))?.revoked?.aborted, false);
  await reload(bob.line, "keys in force: 1");
  assertEquals([await keys?.authenticate(alice.key!), (await keys?.authenticate(bob.key!))?.name], [undefined, "bob"]);
  await Deno.remove(path);
  on.terminal.signal("SIGHUP");
  await on.terminal.until(() => on.terminal.errors.includes("stay as they were: --keys: expected a file"));
  assertEquals((await keys?.authenticate(bob.key!))?.name, "bob");
  on.terminal.signal("SIGTERM");
  await running;
  assertStringIncludes(on.terminal.errors, "stopped");
});
