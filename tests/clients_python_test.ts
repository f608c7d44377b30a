/**
 * OpenAI's client for Python, as it is: `clients_python.py` runs against the application behind a real listener. Its
 * packages are fetched once (`scripts/oracle.sh clients`), into the user's cache.
 *
 * @module
 */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import type { GenerateRequest } from "../src/engine/engine.ts";
import { serveFake, until } from "./served.ts";

const SCRIPT = "clients_python.py";
/** What the packages need, and what makes a place for them. */
const NEEDS = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
const ignore = !await hasPython();

async function hasPython(): Promise<boolean> {
  try {
    return (await run(pythonName(), "-c", NEEDS)).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function pythonName(): string {
  return Deno.env.get("PYTHON") ?? "python3";
}

async function run(program: string, ...args: string[]) {
  const { success, stdout, stderr } = await new Deno.Command(program, { args }).output();
  const decoder = new TextDecoder();
  return { success, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

/** The path of a Python that has the client. */
async function python(): Promise<string> {
  const { success, out, err } = await run(
    "sh",
    fileURLToPath(new URL("../scripts/oracle.sh", import.meta.url)),
    "clients",
  );
  assert(success, err);
  return out.trim();
}

/** Long enough that a client which leaves can be told from one that stays. */
const STORY = Array(1000).fill("word ");

/** What stands behind the last role of a prompt; or a call of the tool that it tells of, or what came of one. */
function echo({ prompt }: GenerateRequest): string | string[] {
  const text = prompt.join("");
  const result = text.match(/<tool_response>\n(.*)\n<\/tool_response>/)?.[1];
  if (result !== undefined) return `It is ${result}.`;
  if (text.includes('"weather"')) {
    return `<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>`;
  }
  const said = text.split("user:").at(-1)!.trimEnd();
  return said === "a long story" ? STORY : said;
}

Deno.test({
  name: `OpenAI's client for Python${ignore ? ", skipped: it needs Python 3.11 or newer with venv" : ""}`,
  ignore,
  async fn(t) {
    await using served = serveFake({ reply: echo, tokenMs: 2 });
    const script = fileURLToPath(new URL(SCRIPT, import.meta.url));
    const { out, err } = await run(await python(), script, `http://${served.host}/v1`);
    const outcomes: { name: string; error: string | null }[] = out.trim().split("\n").map((line) => JSON.parse(line));
    assert(outcomes.length > 1, err);
    for (const { name, error } of outcomes) await t.step(name, () => assert.equal(error, null, error ?? ""));
    await t.step("what was left is not generated", async () => {
      await until(() => served.engine.stats().running === 0);
      assert(served.engine.stats().generatedTokens < STORY.length);
    });
  },
});
