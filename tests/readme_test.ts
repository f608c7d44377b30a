/** The README's client examples, run as they stand there against a served SmolLM2, and its table of clients. */
import assert from "node:assert/strict";
import config from "../deno.json" with { type: "json" };
import { NO_REAL_MODEL, REAL_MODEL, type Served, served } from "./support.ts";

const README = await Deno.readTextFile(new URL("../README.md", import.meta.url));
const SERVED_AT = "http://127.0.0.1:8000";
const MODEL = "smollm2-135m-instruct";

/** The only code block of this language that holds `words`, pointed at `server`. */
function example(language: string, words: string, server: Served): string {
  const blocks = [...README.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))].map(([, code]) => code!);
  const found = blocks.filter((code) => code.includes(words) && code.includes(SERVED_AT));
  assert.equal(found.length, 1, `${language} examples with ${words}`);
  return found[0]!.replaceAll(SERVED_AT, server.url);
}

async function output(command: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args, stdin: "null" }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

Deno.test(`readme: the curl and openai examples run${NO_REAL_MODEL ? ` (skipped: ${NO_REAL_MODEL})` : ""}`, {
  ignore: REAL_MODEL === undefined,
}, async (t) => {
  await using server = await served(MODEL);
  await t.step("curl", async () => {
    const said = await output("sh", ["-c", example("sh", "curl", server)]);
    assert.match(said, /^data: \{"id":"chatcmpl-/);
    assert.match(said, /"content":"[^"]+"/);
    assert.ok(said.endsWith("data: [DONE]\n\n"));
  });
  await t.step("openai", async () => {
    // In the checkout, so that the import map applies.
    const file = await Deno.makeTempFile({ dir: import.meta.dirname!, prefix: ".readme-", suffix: ".ts" });
    try {
      await Deno.writeTextFile(file, example("ts", "openai", server));
      const said = await output(Deno.execPath(), ["run", "--quiet", "-A", file]);
      assert.ok(said.replaceAll(/\s/g, "").length > 0, said);
    } finally {
      await Deno.remove(file);
    }
  });
});

Deno.test("readme: the table of clients names the versions that the tests run", async () => {
  const requirements = await Deno.readTextFile(new URL("../scripts/requirements-clients.txt", import.meta.url));
  const rows = [...README.matchAll(/^\| .*?\b(npm|PyPI) `([^`]+)` +\| (\S+) +\|/gm)];
  assert.ok(rows.length >= 6, `${rows.length} rows`);
  for (const [, registry, name, version] of rows) {
    const pins: string[] = registry === "npm" ? Object.values(config.imports) : requirements.split("\n");
    const pin = registry === "npm" ? `npm:${name}@${version}` : `${name}==${version}`;
    assert.ok(pins.includes(pin), pin);
  }
});
