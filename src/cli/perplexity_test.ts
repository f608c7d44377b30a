import { assertEquals, assertMatch } from "@std/assert";
import { stage } from "./test_support.ts";

async function withFile(text: string | Uint8Array<ArrayBuffer>, body: (file: string) => Promise<void>): Promise<void> {
  const file = await Deno.makeTempFile();
  try {
    await (typeof text === "string" ? Deno.writeTextFile(file, text) : Deno.writeFile(file, text));
    await body(file);
  } finally {
    await Deno.remove(file);
  }
}

Deno.test("it says how well a text was predicted, and how far it is", async () => {
  await withFile("a".repeat(80), async (file) => {
    const on = stage();
    assertEquals(await on.run("perplexity", file, "--model", "m.gguf", "--window", "16"), 0);
    // The fake engine gives each token the probability 1/2.
    assertEquals(on.terminal.output, "perplexity 2.0000 ± 0.0000 over 35 tokens (m.gguf, none, fake)\n");
    assertMatch(on.terminal.errors, /window 5 of 5: perplexity 2\.0000 ± 0\.0000\n$/);
    assertEquals(on.opened[0]?.contextLength, 17);
  });
});

Deno.test("--json gives an object, --windows fewer of them, --quiet no progress", async () => {
  await withFile("a".repeat(80), async (file) => {
    const on = stage();
    const flags = ["--window", "16", "--windows", "2", "--json", "--quiet", "--model", "m.gguf"];
    assertEquals(await on.run("perplexity", file, ...flags), 0);
    const { perplexity, scored, windows } = JSON.parse(on.terminal.output);
    assertEquals([perplexity, scored, windows], [2, 14, 2]);
    assertEquals(on.terminal.errors, "");
  });
});

Deno.test("what cannot be read or measured is a sentence", async () => {
  const on = stage();
  assertEquals(await on.run("perplexity", "--model", "m.gguf"), 2);
  assertEquals(await on.run("perplexity", "no/such/file", "--model", "m.gguf"), 1);
  await withFile(new Uint8Array([0xff]), async (file) => assertEquals(await on.run("perplexity", file), 1));
  await withFile("short", async (file) => assertEquals(await on.run("perplexity", file, "--model", "m.gguf"), 1));
  assertMatch(
    on.terminal.errors,
    /one text file, got none\n.*reading no\/such\/file: .*\n.*expected UTF-8.*\n.*at least 1024 tokens, got 6\n$/,
  );
});
