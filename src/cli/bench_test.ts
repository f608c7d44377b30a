import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { FakeEngine } from "../engine/fake.ts";
import type { Finished } from "./deps.ts";
import { median, promptOf } from "./bench.ts";
import { stage } from "./test_support.ts";

const MODEL = ["--model", "toy.gguf", "--prompt-tokens", "50", "--decode-tokens", "5"];
const LONG = { reply: "one two three four five six seven", tokenMs: 1 };

function peer(figures: object): Finished {
  return { code: 0, stdout: `noise\n${JSON.stringify(figures)}\n`, stderr: "" };
}

Deno.test("our own figures, as JSON and as a table", async () => {
  const json = stage(LONG);
  assertEquals(await json.run("bench", ...MODEL, "--rounds", "1", "--json", "--quiet"), 0);
  const report = JSON.parse(json.terminal.output);
  assertEquals([report.model, report.rounds, report.peer, report.ratios], ["toy.gguf", 1, null, null]);
  assertEquals([report.wasm, report.wasm_ratios], [null, null]);
  assertEquals([report.decode_tokens, report.llamero.rss_gb], [5, 1]);
  assertEquals(json.terminal.errors, "");
  const plain = stage(LONG);
  assertEquals(await plain.run("bench", ...MODEL, "--rounds", "1"), 0);
  assertMatch(plain.terminal.output, /^toy\.gguf \(none\), fake, \d+ threads\n/);
  assertMatch(plain.terminal.output, /\ndecode +[\d.]+ tokens\/s\n/);
  assertStringIncludes(plain.terminal.errors, "round 1 of 1: llamero\n");
  assertStringIncludes(plain.terminal.errors, "set LLAMERO_PEER_PYTHON");
});

Deno.test("the peer takes turns with us, and medians are compared", async () => {
  const calls: string[] = [];
  const loads = [3, 1, 2];
  const { terminal, deps, run } = stage(LONG, {
    runPeer: (python, args) => {
      calls.push(`${python} ${args.slice(0, 3).join(" ")}`);
      const figures = { engine: "llama.cpp 9", load_s: loads.shift(), prefill_tok_s: 100, decode_tok_s: 10, rss_gb: 2 };
      return Promise.resolve(peer(figures));
    },
  });
  const { openEngine } = deps;
  deps.openEngine = async (options) => {
    calls.push("open");
    await openEngine(options);
    return new FakeEngine(LONG);
  };
  terminal.environment.LLAMERO_PEER_PYTHON = "/venv/python";
  assertEquals(await run("bench", ...MODEL, "--json", "--quiet"), 0);
  const report = JSON.parse(terminal.output);
  const asked = `/venv/python toy.gguf ${report.prompt_tokens} 5`;
  assertEquals(calls, ["open", asked, "open", asked, "open", asked]);
  assertEquals(report.peer, { engine: "llama.cpp 9", load_s: 2, prefill_tok_s: 100, decode_tok_s: 10, rss_gb: 2 });
  assertEquals(report.ratios.rss_gb, 0.5);
});

Deno.test("WebAssembly takes turns with native, and memory is what each added to the process", async () => {
  const opened: unknown[] = [];
  // Each engine adds to what was held when it was opened, and leaves some of it behind.
  let held = 1e9;
  const { terminal, deps, run } = stage(LONG, { residentBytes: () => held });
  deps.openEngine = ({ engine }) => {
    opened.push(engine);
    held += engine === "wasm" ? 5e8 : 1e9;
    const made = new FakeEngine(LONG);
    const close = made.close.bind(made);
    made.close = () => {
      held -= 4e8;
      return close();
    };
    return Promise.resolve(made);
  };
  assertEquals(await run("bench", ...MODEL, "--rounds", "2", "--wasm", "--json", "--quiet"), 0);
  const report = JSON.parse(terminal.output);
  assertEquals(opened, ["native", "wasm", "native", "wasm"]);
  assertEquals([report.llamero.rss_gb, report.wasm.rss_gb, report.wasm_ratios.rss_gb], [2, 1.5, 0.75]);
  assertEquals([report.wasm.device, report.device], ["fake", "fake"]);
  const table = stage(LONG, { openEngine: () => Promise.resolve(new FakeEngine(LONG)) });
  assertEquals(await table.run("bench", ...MODEL, "--rounds", "1", "--wasm"), 0);
  assertMatch(table.terminal.output, /\n +llamero +in wasm +ratio\n/);
  assertStringIncludes(table.terminal.errors, "round 1 of 1: llamero in WebAssembly\n");
});

Deno.test("trouble with the peer is a sentence", async () => {
  const check = async (finished: Finished | Error, expected: string) => {
    const runPeer = () => finished instanceof Error ? Promise.reject(finished) : Promise.resolve(finished);
    const { terminal, run } = stage(LONG, { runPeer });
    assertEquals(await run("bench", ...MODEL, "--rounds", "1", "--peer", "--quiet"), 1);
    assertEquals(terminal.errors, `llamero: ${expected}\n`);
  };
  const sentence = "measuring llama.cpp with python3 failed: ";
  const stderr = "Traceback\nModuleNotFoundError: No module named 'llama_cpp'\n";
  await check({ code: 1, stdout: "", stderr }, `${sentence}ModuleNotFoundError: No module named 'llama_cpp'`);
  await check({ code: 3, stdout: "", stderr: "" }, `${sentence}status 3`);
  await check(peer({ load_s: "fast" }), `${sentence}expected a number load_s, got "fast"`);
  await check(new Deno.errors.NotFound("x"), "measuring llama.cpp failed: expected a program python3, found none");
});

Deno.test("more tokens than the context are refused", async () => {
  const { terminal, run } = stage({ model: { contextLength: 54 } });
  assertEquals(await run("bench", ...MODEL, "--quiet"), 1);
  assertEquals(
    terminal.errors,
    "llamero: measuring failed: expected at most 54 tokens of prompt and reply, got 55\n",
  );
});

Deno.test("the prompt has as many tokens as repeating a word allows", async () => {
  await using engine = new FakeEngine();
  // The fake engine has one token per character and one for the beginning.
  for (const [wanted, got] of [[1, 5], [5, 5], [8, 5], [9, 9], [50, 49], [401, 401]] as const) {
    assertEquals((await engine.tokenize([await promptOf(engine, wanted)])).length, got, String(wanted));
  }
});

Deno.test("medians", () => {
  assertEquals([median([3]), median([5, 1, 3]), median([4, 1, 3, 2])], [3, 3, 2.5]);
});
