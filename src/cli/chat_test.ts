import { assertEquals, assertStringIncludes } from "@std/assert";
import { delay } from "@std/async/delay";
import { EngineError } from "../engine/engine.ts";
import type { FakeEngine } from "../engine/fake.ts";
import { stage } from "./test_support.ts";

const MODEL = ["--model", "dir/toy.gguf"];

Deno.test("one prompt, one reply, one newline", async () => {
  const { terminal, engine, opened, run } = stage();
  const sampling = ["--temperature", "0", "--top-k", "3", "--top-p", "0.9", "--min-p", "0.1", "--seed", "5"];
  const more = [
    "--repeat-penalty",
    "1.5",
    "--max-tokens",
    "9",
    "--context",
    "99",
    "--system",
    "Be brief.",
    "--device",
    "cuda:1",
  ];
  assertEquals(await run("chat", ...MODEL, ...sampling, ...more, "Hello", "there"), 0);
  assertEquals([terminal.output, terminal.errors], ["Hello, you!\n", ""]);
  assertEquals(opened.map(({ model, contextLength, engine, device }) => [model, contextLength, engine, device]), [[
    "dir/toy.gguf",
    99,
    "auto",
    "cuda:1",
  ]]);
  const [request] = engine.requests;
  assertEquals(request?.prompt, ["system: Be brief.\n", "user: Hello there\n"]);
  assertEquals(request?.maxTokens, 9);
  assertEquals(request?.sampling, { temperature: 0, topP: 0.9, topK: 3, minP: 0.1, repeatPenalty: 1.5, seed: 5 });
});

Deno.test("falling back to the slower engine is said once, and not with --quiet", async () => {
  for (const [flags, expected] of [[[], "llamero: no library here\n"], [["--quiet"], ""]] as const) {
    const made = stage();
    const { openEngine } = made.deps;
    made.deps.openEngine = (options) => {
      options.onFallback?.("no library here");
      return openEngine(options);
    };
    assertEquals([await made.run("chat", ...MODEL, ...flags, "hi"), made.terminal.errors], [0, expected]);
  }
});

Deno.test("packed weights are kept in the cache folder, where there is one, or in memory", async () => {
  const kept = "/home/nobody/.cache/llamero/packed";
  for (const [flags, home, expected] of [[[], true, kept], [["--packed", "memory"], true], [[], false]] as const) {
    const { terminal, opened, run } = stage();
    if (!home) delete terminal.environment.HOME;
    assertEquals([await run("chat", ...MODEL, ...flags, "hi"), terminal.errors], [0, ""]);
    assertEquals(opened[0]?.packed, expected);
  }

  const full = stage({ model: { notMapped: "the disk is full" } });
  assertEquals(await full.run("chat", ...MODEL, "hi"), 0);
  assertEquals(
    full.terminal.errors,
    "llamero: weights are packed at each start, which takes longer: the disk is full\n",
  );
});

Deno.test("a known model is fetched first", async () => {
  const { opened, run } = stage();
  assertEquals(await run("chat", "hi"), 0);
  assertEquals(opened[0]?.model, "/home/nobody/.cache/llamero/models/SmolLM2-135M-Instruct.Q4_1.gguf");
});

Deno.test("piped text is the prompt, or stands where the hyphen is", async () => {
  const check = async (words: string[], expected: string) => {
    const { terminal, engine, run } = stage();
    terminal.inIsTerminal = false;
    terminal.type("line one", "line two").end();
    assertEquals(await run("chat", ...MODEL, ...words), 0);
    assertEquals(engine.requests[0]?.prompt, [`user: ${expected}\n`]);
  };
  await check([], "line one\nline two");
  await check(["Summarise:", "-"], "Summarise:\nline one\nline two");
  await check(["Before", "-", "after"], "Before\nline one\nline two\nafter");
  await check(["only words"], "only words");
});

Deno.test("an empty prompt is a usage error and loads nothing", async () => {
  const { terminal, opened, run } = stage();
  terminal.inIsTerminal = false;
  terminal.type("  ").end();
  assertEquals([await run("chat", ...MODEL), opened.length], [2, 0]);
  assertEquals(terminal.errors, "llamero: llamero chat: expected a prompt, got an empty text\n");
});

Deno.test("--json: a line for each piece, then one with everything", async () => {
  const { terminal, run } = stage({ now: () => 0 });
  assertEquals(await run("chat", ...MODEL, "--json", "hi"), 0);
  const lines = terminal.output.trimEnd().split("\n").map((line) => JSON.parse(line));
  const done = lines.pop();
  assertEquals(lines.every(({ type }) => type === "text"), true);
  assertEquals(lines.map(({ text }) => text).join(""), "Hello, you!");
  assertEquals(typeof done.usage.prompt_tokens, "number");
  const timings = { queue_ms: 0, prefill_ms: 0, decode_ms: 0 };
  const usage = { prompt_tokens: done.usage.prompt_tokens, completion_tokens: lines.length };
  assertEquals(done, { type: "done", text: "Hello, you!", reason: "stop", usage, timings, model: "toy" });
});

Deno.test("Ctrl-C ends a single reply: what was said stays, the code says why", async () => {
  const { terminal, run } = stage({ reply: "one two three four five six seven", tokenMs: 20 });
  const running = run("chat", ...MODEL, "hi");
  await terminal.until(() => terminal.output.includes("two"));
  assertEquals(terminal.signal("SIGINT"), true);
  assertEquals(await running, 130);
  assertStringIncludes(terminal.output, "one two");
  assertEquals([terminal.output.includes("seven"), terminal.output.endsWith("\n")], [false, true]);
  assertEquals(terminal.signal("SIGINT"), false);
});

Deno.test("a failure in the middle ends the line and then says what happened", async () => {
  const failure = { tokens: 2, error: new EngineError("internal", "a worker died") };
  const { terminal, run } = stage({ reply: "one two three", failure });
  assertEquals(await run("chat", ...MODEL, "hi"), 1);
  assertEquals(terminal.output.endsWith("\n"), true);
  assertEquals(terminal.errors, "llamero: a worker died\n");
});

Deno.test("a conversation keeps what was said, and knows a few commands", async () => {
  const { terminal, engine, run } = stage({ reply: "Hi." });
  terminal.type("Hello", "", "/system Be brief.", "And \\", "now?", "/reset", " /not a command", "/nonsense", "/help");
  terminal.type("/exit");
  assertEquals(await run("chat", ...MODEL), 0);
  assertEquals(terminal.output, "Hi.\n".repeat(3));
  assertEquals(engine.requests.map(({ prompt }) => prompt), [
    ["user: Hello\n"],
    ["system: Be brief.\n", "user: Hello\n", "assistant: Hi.\n", "user: And \nnow?\n"],
    ["system: Be brief.\n", "user: /not a command\n"],
  ]);
  for (const text of ["fake (none, fake), 2048 tokens", "unknown command /nonsense", "/reset         forget"]) {
    assertStringIncludes(terminal.errors, text);
  }
});

Deno.test("Ctrl-C stops a reply, which stays in the conversation; with nothing to stop it leaves", async () => {
  const reply = "one two three four five six seven";
  const { terminal, engine, run } = stage({ reply, tokenMs: 20 });
  const running = run("chat", ...MODEL);
  terminal.type("Hello");
  await terminal.until(() => terminal.output.includes("two"));
  terminal.signal("SIGINT");
  await terminal.until(() => terminal.errors.includes("(stopped)"));
  const said = terminal.output.trimEnd();
  assertEquals(reply.startsWith(said) && said.length < reply.length, true, said);
  terminal.type("Go on");
  await terminal.until(() => terminal.output.split("two").length > 2);
  assertEquals(engine.requests[1]?.prompt, [
    "user: Hello\n",
    `assistant: ${terminal.output.split("\n")[0]}\n`,
    "user: Go on\n",
  ]);
  terminal.signal("SIGINT");
  await terminal.until(() => terminal.errors.split("(stopped)").length > 2);
  terminal.signal("SIGINT");
  assertEquals(await running, 0);
});

/** Waits until the engine has been asked for so many replies. */
async function asked(engine: FakeEngine, times: number): Promise<void> {
  while (engine.requests.length < times) await delay(2);
}

Deno.test("a reply stopped before its first word leaves no trace", async () => {
  const { terminal, engine, run } = stage({ tokenMs: 60_000 });
  const running = run("chat", ...MODEL);
  terminal.type("Hello");
  await asked(engine, 1);
  terminal.signal("SIGINT");
  await terminal.until(() => terminal.errors.includes("(stopped)"));
  terminal.type("Hello again");
  await asked(engine, 2);
  assertEquals(engine.requests[1]?.prompt, ["user: Hello again\n"]);
  terminal.signal("SIGINT");
  terminal.end();
  assertEquals(await running, 0);
});

Deno.test("a second Ctrl-C leaves although the reply does not stop", async () => {
  const { terminal, engine, run } = stage({ tokenMs: 1, delay: () => new Promise(() => {}) });
  const running = run("chat", ...MODEL);
  terminal.type("Hello");
  await asked(engine, 1);
  terminal.signal("SIGINT");
  await delay(5);
  assertEquals(terminal.errors.endsWith("> "), true);
  terminal.signal("SIGINT");
  assertEquals(await running, 0);
});

Deno.test("the end of the input leaves a conversation", async () => {
  const { terminal, run } = stage();
  terminal.end();
  assertEquals(await run("chat", ...MODEL), 0);
  assertEquals(terminal.errors.endsWith("> \n"), true);
});

Deno.test("a refused turn does not end the conversation and is not kept", async () => {
  const { terminal, engine, run } = stage({ model: { contextLength: 60 } });
  terminal.type("x".repeat(100), "short", "/exit");
  assertEquals(await run("chat", ...MODEL), 0);
  assertStringIncludes(terminal.errors, "; /reset makes room\n");
  assertEquals(engine.requests.map(({ prompt }) => prompt), [["user: short\n"]]);
  assertEquals(terminal.output, "Hello, you!\n");
});

Deno.test("--quiet says nothing but questions and replies", async () => {
  const { terminal, run } = stage();
  terminal.type("Hello", "/reset", "/exit");
  assertEquals(await run("chat", ...MODEL, "--quiet"), 0);
  assertEquals([terminal.errors, terminal.output], ["\n> \n> \n> ", "Hello, you!\n"]);
});
