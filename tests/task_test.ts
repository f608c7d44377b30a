/** Work with model files across the border: the fixtures of tests/fixtures/checkpoints through the real core. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { EngineError, libraryPath, runTask } from "../src/engine/mod.ts";
import { BUILT_IN_SAMPLING } from "../src/sessions/sampling.ts";
import { llamero } from "./support.ts";

const LIBRARY = libraryPath();

const FIXTURES = fileURLToPath(new URL("fixtures/checkpoints", import.meta.url));

Deno.test("a folder of the model card is described, converted and talked to", async () => {
  const dir = await Deno.makeTempDir();
  const path = join(FIXTURES, "paddle");
  const report = await runTask({ task: "inspect", source: { path } }, { core: LIBRARY });
  assertEquals([report.format, report.vocabulary], ["paddle", "sentencepiece bpe"]);
  let last = { done: 0, total: -1 };
  const out = join(dir, "out.gguf");
  const made = await runTask(
    { task: "convert", source: { path }, out, file_type: "q8_0", format: "gguf" },
    { core: LIBRARY, onProgress: (progress) => last = progress },
  );
  assertEquals(made.path, out);
  assertEquals([made.bytes, last.done], [(await Deno.stat(out)).size, last.total]);
  await Deno.remove(dir, { recursive: true });
});

Deno.test("errors of a task name the file and what was wanted", async () => {
  const inspect = (path: string) => runTask({ task: "inspect", source: { path } }, { core: LIBRARY });
  await assertRejects(() => inspect("/nowhere/at/all"), EngineError, "cannot read /nowhere/at/all");
  const dir = await Deno.makeTempDir();
  await assertRejects(() => inspect(dir), EngineError, "expected a model (*.gguf, model.safetensors");
  const attack = "\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.";
  await Deno.writeFile(join(dir, "model_state.pdparams"), Uint8Array.from(attack, (c) => c.charCodeAt(0)));
  await Deno.writeTextFile(join(dir, "config.json"), await Deno.readTextFile(join(FIXTURES, "paddle/config.json")));
  const error = await assertRejects(() => inspect(dir), EngineError);
  assertEquals(error.code, "unsupported");
  for (const word of ["model_state.pdparams", "os.system"]) assertStringIncludes(error.message, word);
  await Deno.remove(dir, { recursive: true });
});

Deno.test("an aborted task ends at once and goes on later", async () => {
  const dir = await Deno.makeTempDir();
  const abort = new AbortController();
  const task = {
    task: "convert",
    source: { path: join(FIXTURES, "hf-torch") },
    out: join(dir, "out.gguf"),
    file_type: "f16",
    format: "gguf",
  } as const;
  abort.abort();
  await assertRejects(() => runTask(task, { core: LIBRARY, signal: abort.signal }), DOMException);
  await runTask(task, { core: LIBRARY });
  assertEquals([...Deno.readDirSync(dir)].map(({ name }) => name), ["out.gguf"]);
  await Deno.remove(dir, { recursive: true });
});

Deno.test("llamero inspect shows the template and a prompt", async () => {
  const args = ["inspect", join(FIXTURES, "paddle"), "--chat-template", "vicuna-v1.1"];
  const { code, ...output } = await llamero(args).output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes)) as [
    string,
    string,
  ];
  assertEquals(code, 0, stderr);
  for (
    const words of [
      "format      paddle: model_state.pdparams",
      "layout      [in, out]",
      "USER: Hello! ASSISTANT: Hi!</s>",
    ]
  ) {
    assertStringIncludes(stdout, words);
  }
});

Deno.test("what is shown as built in is what the core does", async () => {
  const source = await Deno.readTextFile(new URL("../core-rs/src/sampling/params.rs", import.meta.url));
  const [, fields] = /fn default\(\) -> Self \{\s*Self \{([^}]*)\}/.exec(source)!;
  const inCore = Object.fromEntries(fields!.split(",").map((field) => field.trim().split(": ")));
  const { temperature, topK, topP, minP, repeatPenalty } = BUILT_IN_SAMPLING;
  const shown = { temperature, top_k: topK, top_p: topP, min_p: minP, repeat_penalty: repeatPenalty };
  assertEquals(Object.entries(shown).map(([name, value]) => [name, Number(inCore[name]) === value]), [
    ["temperature", true],
    ["top_k", true],
    ["top_p", true],
    ["min_p", true],
    ["repeat_penalty", true],
  ]);
});

Deno.test("the machine's limits are measured, and progress counts the passes", async () => {
  const seen: number[] = [];
  const onProgress = ({ done, total }: { done: number; total: number }) => seen.push(done / total);
  const limits = await runTask({ task: "machine" }, { core: LIBRARY, onProgress });
  assertEquals(seen.length > 0 && seen.every((share) => share < 1), true);
  for (const name of ["threads", "read_bytes_s", "multiply_adds_s"]) {
    assertEquals(limits[name] as number > 0, true, name);
  }
  assertEquals(typeof limits.instruction_set, "string");
});
