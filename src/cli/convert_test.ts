import { assertEquals, assertStringIncludes } from "@std/assert";
import { resolve } from "node:path";
import { EngineError, type Task, type TaskOptions } from "../engine/mod.ts";
import { stage } from "./test_support.ts";

/** A stage whose tasks are kept, and answered by `answer`. */
function tasks(answer: (task: Task, options: Omit<TaskOptions, "core">) => unknown) {
  const seen: Task[] = [];
  const made = stage({}, {
    runTask: async (task, options) => {
      seen.push(task);
      return await answer(task, options) as Record<string, unknown>;
    },
  });
  return { ...made, seen };
}

const MADE = { path: "/there/out.gguf", bytes: 1_500_000, reused: false };

Deno.test("the output's name says what is made", async () => {
  const { run, seen, terminal } = tasks(() => MADE);
  assertEquals(await run("convert", "./v", "out.gguf"), 0);
  assertEquals(await run("convert", "./v", "./out", "--type", "bf16", "--lora", "a,b", "--force"), 0);
  assertEquals(await run("quantize", "./vicuna-7b/model_state.pdparams"), 0);
  assertEquals(await run("apply-delta", "./base", "./delta", "./sum", "--json"), 0);
  const convert = { task: "convert", file_type: "f16", overwrite: false } as const;
  assertEquals(seen, [
    { ...convert, source: { path: "./v", lora: [] }, out: resolve("out.gguf"), format: "gguf" },
    {
      ...convert,
      source: { path: "./v", lora: [resolve("a"), resolve("b")] },
      out: resolve("out"),
      file_type: "bf16",
      format: "safetensors",
      overwrite: true,
    },
    {
      ...convert,
      source: { path: "./vicuna-7b/model_state.pdparams", lora: [] },
      out: resolve("vicuna-7b-q4_k_m.gguf"),
      file_type: "q4_k_m",
      format: "gguf",
    },
    {
      ...convert,
      source: { path: resolve("delta"), base: resolve("base") },
      out: resolve("sum"),
      format: "safetensors",
    },
  ]);
  assertEquals(terminal.output.split("\n"), [
    ...Array(3).fill("/there/out.gguf (1.5 MB)"),
    JSON.stringify(MADE),
    "",
  ]);
});

Deno.test("what is missing is said", async () => {
  const { run, terminal, seen } = tasks(() => MADE);
  for (const args of [["convert", "./v"], ["quantize"], ["apply-delta", "./a", "./b"], ["convert", "a/", "b", "c"]]) {
    assertEquals(await run(...args), 2, args.join(" "));
  }
  assertEquals(await run("quantize", "./v", "./folder"), 2);
  assertStringIncludes(terminal.errors, "expected an output that ends with .gguf, got ./folder");
  assertEquals(await run("quantize", "./v", "--type", "q9"), 2);
  assertStringIncludes(terminal.errors, "--type: expected one of f32, f16, bf16");
  assertEquals(seen, []);
});

Deno.test("Ctrl-C ends the work and says how it goes on", async () => {
  const { run, terminal } = tasks((_, { signal }) => {
    terminal.signal("SIGINT");
    signal!.throwIfAborted();
  });
  assertEquals(await run("convert", "./v", "out.gguf"), 130);
  assertStringIncludes(terminal.errors, "the same command goes on where this one ended");
});

Deno.test("--quantize uses the cache's file, with adapters merged into it", async () => {
  const { run, seen, opened } = tasks(() => ({ ...MADE, reused: true }));
  const model = ["--model", "./v", "--quantize", "q4_k_m", "--lora", "a"];
  assertEquals(await run("chat", ...model, "hi"), 0);
  assertEquals(seen.map(({ task }) => task), ["cache"]);
  assertEquals("source" in seen[0]! && seen[0].source, { path: "./v", lora: [resolve("a")] });
  assertEquals(opened.map(({ model, lora }) => ({ model, lora })), [{ model: MADE.path, lora: [] }]);
});

Deno.test("failures of the core are one sentence", async () => {
  const { run, terminal } = tasks(() => {
    throw new EngineError("insufficient_resources", "cannot write out.gguf: expected 7 bytes of free space, got 1");
  });
  assertEquals(await run("convert", "./v", "out.gguf"), 1);
  assertStringIncludes(terminal.errors, "llamero: cannot write out.gguf: expected 7 bytes of free space, got 1\n");
});
