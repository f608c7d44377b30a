import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { EngineError } from "../engine/engine.ts";
import { ModelError } from "../models/error.ts";
import { COMMANDS, FLAGS } from "./flags.ts";
import { stage } from "./test_support.ts";

Deno.test("help shows every command, and for each every flag", async () => {
  for (const args of [[], ["help"], ["--help"], ["-h"]]) {
    const { terminal, run } = stage();
    assertEquals(await run(...args), 0);
    for (const [name, { summary }] of Object.entries(COMMANDS)) {
      assertStringIncludes(terminal.output.replaceAll(/\s+/g, " "), `${name} ${summary}`);
    }
  }
  for (const [name, { flags }] of Object.entries(COMMANDS)) {
    const { terminal, run } = stage();
    assertEquals(await run("help", name), 0);
    for (const flag of flags) {
      assertStringIncludes(terminal.output, `--${flag}`);
      assertStringIncludes(terminal.output.replaceAll(/\s+/g, " "), FLAGS[flag].help);
    }
    assertEquals(terminal.output.split("\n").every((line) => line.length <= 100), true, name);
  }
  const { terminal, run } = stage();
  assertEquals(await run("chat", "--help"), 0);
  assertMatch(terminal.output, /^llamero chat: .*\n\nusage: llamero chat \[PROMPT\.\.\.\] \[FLAGS\]\n/);
  assertMatch(terminal.output.replaceAll(/\s+/g, " "), /\(a number from 0 to 100; default: the model's, or 0\.7\)/);
});

Deno.test("version", async () => {
  for (const name of ["version", "--version", "-V"]) {
    const { terminal, run } = stage();
    assertEquals([await run(name), terminal.output], [0, "llamero 1.2.3\n"]);
  }
});

Deno.test("usage errors end with 2, failures with 1, each as one sentence", async () => {
  const check = async (args: string[], code: number, errors: string, openError?: Error) => {
    const { terminal, run } = stage({}, openError ? { openEngine: () => Promise.reject(openError) } : {});
    assertEquals([await run(...args), terminal.errors, terminal.output], [code, `llamero: ${errors}\n`, ""]);
  };
  await check(["caht"], 2, 'unknown command "caht"; did you mean chat?; llamero help shows what there is');
  await check(["help", "a", "b"], 2, "llamero help: expected one command, got a b");
  const io = new EngineError("io", "opening x.gguf: no such file");
  await check(["chat", "-m", "x.gguf", "hi"], 1, "opening x.gguf: no such file", io);
  await check(["chat", "-m", "x.gguf", "hi"], 1, "the disk is full", new ModelError("the disk is full"));
  const denied = new Deno.errors.NotCapable('Requires net access to "a.b:80", run again with the --allow-net flag');
  const sentence = 'missing Deno permission: expected net access to "a.b:80"; run deno with --allow-net';
  await check(["chat", "-m", "x.gguf", "hi"], 1, sentence, denied);
});

Deno.test("our own mistakes keep their stack, a reader that left is no failure", async () => {
  const broken = stage({}, { openEngine: () => Promise.reject(new TypeError("oops")) });
  assertEquals(await broken.run("chat", "-m", "x.gguf", "hi"), 1);
  assertMatch(broken.terminal.errors, /^llamero: unexpected failure, please report it: TypeError: oops\n +at /);
  const left = stage({}, { openEngine: () => Promise.reject(new Deno.errors.BrokenPipe("pipe")) });
  assertEquals([await left.run("chat", "-m", "x.gguf", "hi"), left.terminal.errors], [0, ""]);
});

Deno.test("pull prints the path and nothing else", async () => {
  const { terminal, run } = stage();
  terminal.environment.LLAMERO_CACHE = "/c";
  assertEquals(await run("pull"), 0);
  assertEquals(await run("pull", "SmolLM2-135M-instruct"), 0);
  assertEquals(terminal.output, "/c/models/SmolLM2-135M-Instruct.Q4_1.gguf\n".repeat(2));
  assertEquals(await run("pull", "llama-9"), 2);
  assertMatch(terminal.errors, /^llamero: llamero pull: expected one of: smollm2-135m-instruct .*; got llama-9\n$/);
});

Deno.test("test hands its words to the test script", async () => {
  const seen: (readonly string[])[] = [];
  const { run } = stage({}, {
    runTests: (args) => {
      seen.push(args);
      return Promise.resolve(1);
    },
  });
  assertEquals([await run("test", "--only", "rooms"), seen], [1, [["--only", "rooms"]]]);
});
