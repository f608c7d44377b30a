import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { selectTemplate } from "../chat/mod.ts";
import { stage } from "./test_support.ts";

const MODEL = ["--model", "dir/vicuna-7b-v1.5.gguf"];

/** The prompt that `llamero chat` sends, what it says beside it, and its exit code. */
async function ask(flags: string[], chatTemplate?: string, model = MODEL) {
  const specialTokens = ["<s>", "</s>"];
  const { engine, terminal, opened, run } = stage({ model: { chatTemplate, specialTokens } }, { selectTemplate });
  const code = await run("chat", ...model, ...flags, "hi");
  return { prompt: engine.requests[0]?.prompt.join(""), errors: terminal.errors, code, opened: opened.length };
}

Deno.test("a template that the model's name has chosen is said, and not with --quiet", async () => {
  const { prompt, errors } = await ask([]);
  assertEquals(prompt?.endsWith(" USER: hi ASSISTANT:"), true);
  assertEquals(
    errors,
    'llamero: using the chat template vicuna-v1.1, because the model has none and it is called "vicuna-7b-v1.5"\n',
  );
  assertEquals((await ask(["--quiet"])).errors, "");
});

Deno.test("--chat-template goes before the model's own, which goes before the name", async () => {
  const own = "{% for m in messages %}own {{ m.content }}{% endfor %}";
  assertEquals([await ask([], own)].map(({ prompt, errors }) => [prompt, errors]), [["own hi", ""]]);
  const named = await ask(["--chat-template", "koala"], own);
  assertEquals([named.prompt, named.errors], ["BEGINNING OF CONVERSATION: USER: hi GPT:", ""]);
});

Deno.test("--chat-template takes a file of Jinja, or JSON with a chat_template", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const [jinja, json] = [join(dir, "mine.jinja"), join(dir, "tokenizer_config.json")];
    const source = "<{{ messages[0].content }}>";
    await Deno.writeTextFile(jinja, source);
    await Deno.writeTextFile(json, JSON.stringify({ chat_template: source }));
    for (const file of [jinja, json]) assertEquals((await ask(["--chat-template", file])).prompt, "<hi>");
    await Deno.truncate(jinja, 2 ** 24 + 1);
    for (const [path, got] of [[dir, "a folder"], [jinja, "a file of 16777217 bytes, above 16777216"]] as const) {
      const { code, errors, opened } = await ask(["--chat-template", path]);
      assertEquals([code, opened], [2, 0]);
      assertStringIncludes(errors, `or a file with Jinja, got ${got}: ${path}\n`);
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("a name that is none, found before the model is loaded, and a model without a template list the choices", async () => {
  const typo = await ask(["--chat-template", "vicunna"]);
  assertEquals([typo.code, typo.opened], [2, 0]);
  assertStringIncludes(
    typo.errors,
    "llamero: --chat-template: expected one of model, vicuna-v1.1, vicuna-v0, llama-2,",
  );
  assertStringIncludes(typo.errors, "raw, or a file with Jinja, got nothing of that name: vicunna\n");
  const unknown = await ask([], undefined, ["--model", "base.gguf"]);
  assertEquals(unknown.code, 1);
  assertStringIncludes(unknown.errors, "fake has none of its own, and its name tells none; name one of vicuna-v1.1,");
  assertStringIncludes(unknown.errors, "(--chat-template)\n");
});
