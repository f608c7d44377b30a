import { assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { FakeEngine, type FakeOptions } from "../engine/fake.ts";
import { timeLeft } from "./bench.ts";
import { randomIds, repeatedShare } from "./bench_turn.ts";
import type { Deps, Finished } from "./deps.ts";
import { type Stage, stage } from "./test_support.ts";

const LONG: FakeOptions = { reply: "one two three four five six seven eight", tokenMs: 1, maxRunning: 8 };
const LIMITS = { threads: 2, instruction_set: "avx2", read_bytes_s: 2e10, multiply_adds_s: 4e11 };
const GROUPS = [
  { name: "embedding", parameters: 1000, bytes: 600 },
  { name: "attention", parameters: 4000, bytes: 2000 },
  { name: "feed-forward", parameters: 8000, bytes: 4000 },
  { name: "norms", parameters: 10, bytes: 40 },
  { name: "output", parameters: 1000, bytes: 800 },
];

function inspected(contextLength: number, groups = GROUPS) {
  return {
    model: { context_length: contextLength, quantization: "q4_0" },
    files: [{ name: "toy.gguf", bytes: 8000 }],
    groups,
    memory: { cache: { context: 100, f16: 400, q8_0: 200 } },
  };
}

interface Played {
  on: Stage;
  /** Who took which turn, in order. */
  turns: string[];
  run(...args: string[]): Promise<number>;
}

/** A bench whose processes are calls: llamero's turns run here with the playing engine, the peer's are `peer`. */
function played(peer?: (args: readonly string[]) => Finished, contextLength = 8192): Played {
  const turns: string[] = [];
  const parts = (now: () => number): Partial<Deps> => ({
    runTask: ({ task }) => Promise.resolve(task === "machine" ? LIMITS : inspected(contextLength)),
    now,
    openEngine: () => Promise.resolve(new FakeEngine({ ...LONG, model: { contextLength } })),
  });
  const on = stage(LONG, {
    ...parts(() => performance.timeOrigin + performance.now()),
    runSelf: async (args) => {
      turns.push(`${args[2]}${args.includes("--wasm") ? " in wasm" : ""}`);
      const inner = stage(LONG, parts(on.deps.now));
      const code = await inner.run(...args);
      return { code, stdout: inner.terminal.output, stderr: inner.terminal.errors };
    },
    runPeer: (python, args) => {
      turns.push(`${python} ${args.slice(1, 5).join(" ")}`);
      return Promise.resolve(peer!(args));
    },
    keepBusy: () => {
      turns.push("busy begins");
      return { [Symbol.asyncDispose]: () => Promise.resolve(void turns.push("busy ends")) };
    },
  });
  return { on, turns, run: (...args) => on.run("bench", "--model", "toy.gguf", "--decode-tokens", "6", ...args) };
}

function line(fields: object): Finished {
  return { code: 0, stdout: `noise\n${JSON.stringify(fields)}\n`, stderr: "" };
}

Deno.test("every scenario is measured, as JSON", async () => {
  const { on, turns, run } = played();
  assertEquals(await run("--rounds", "1", "--json", "--quiet"), 0);
  assertEquals(on.terminal.errors, "");
  // The first one reads the file and packs it.
  const neighbour = ["busy begins", "busy", "busy ends"];
  const rest = ["batch", "near", "far", "memory", "plain", "quote"];
  assertEquals(turns, ["load", "load", "prefill", "decode", "guess", ...neighbour, ...rest]);
  const report = JSON.parse(on.terminal.output);
  assertEquals([report.model, report.quantization, report.rounds, report.kv], ["toy.gguf", "q4_0", 1, "f16"]);
  assertEquals(report.engines, { llamero: "llamero 1.2.3, fake", wasm: null, peer: null });
  assertEquals(report.limits, LIMITS);
  assertEquals(report.file, { fileBytes: 8000, bytesPerToken: 6840, layerParameters: 12000 });
  const figures = Object.fromEntries(
    // deno-lint-ignore no-explicit-any
    report.scenarios.flatMap((scenario: any) =>
      // deno-lint-ignore no-explicit-any
      scenario.figures.map((figure: any) => [`${scenario.name}.${figure.name}`, figure.median.llamero])
    ),
  );
  const rate = figures["decode.tok_s"];
  assertAlmostEquals(figures["decode.share_of_bandwidth"] / (rate * 6840 / 2e10), 1, 0.01);
  assertAlmostEquals(figures["batch.times_single"] / (figures["batch.tok_s"] / rate), 1, 0.01);
  assertEquals(figures["memory.peak_bytes"], 1e9);
  assertAlmostEquals(figures["memory.times_file_and_cache"], 1e9 / (8000 + 4 * (512 + 6)), 1e3);
  assertEquals([figures["quote.tok_s"] > 0, figures["quote.times_plain"] > 0], [true, true]);
  // The playing engine takes no time for prompts.
  assertEquals(figures["prefill.tok_s"], null);
  assertEquals(figures["quote.repeated"] >= 0, true);
});

Deno.test("the peer takes turns with us, medians are compared, and a table shows them", async () => {
  const rates = [30, 10, 20];
  const { on, turns, run } = played(() =>
    line({ engine: "llama.cpp 9", first_token_at: 0, load_s: 1, peak_bytes: 2e9, decode_tok_s: rates.shift() })
  );
  on.terminal.environment.LLAMERO_PEER_PYTHON = "/venv/python";
  assertEquals(await run("--only", "decode"), 0);
  const asked = "/venv/python --prompt 32 --reply 6";
  assertEquals(turns, ["load", "decode", asked, "decode", asked, "decode", asked]);
  const { output, errors } = on.terminal;
  assertMatch(
    output,
    /^toy\.gguf \(q4_0\), 8\.0 kB, \d+ threads, keys and values in f16; medians of 3\nllamero 1\.2\.3, fake\nllama\.cpp 9\n/,
  );
  assertStringIncludes(output, "\nthe machine: reads 20.0 GB/s, 400 G int8 multiply-adds/s (avx2), 2 threads\n\n");
  assertMatch(output, /\n +llamero +llama\.cpp +ratio\n/);
  assertMatch(output, /\ndecode +writing a reply +[\d.]+ tokens\/s +20\.0 tokens\/s +[\d.]+\n/);
  // The limits that we have measured are the peer's as well.
  assertMatch(output, /\n +weights read to the bandwidth +[\d.]+ % +0\.0 % +[\d.]+\n$/);
  assertMatch(
    errors,
    /^loading once, .*\nround 1 of 3: decode, llamero\nround 1 of 3: decode, llama\.cpp \([\d.]+ s left\)\n/,
  );
  assertMatch(errors, /\nround 3 of 3: decode, llama\.cpp \([\d.]+ s left\)\n$/);
});

Deno.test("WebAssembly takes the turns that it can", async () => {
  const { on, turns, run } = played();
  assertEquals(await run("--rounds", "2", "--wasm", "--only", "memory,neighbour"), 0);
  const round = ["decode", "decode in wasm", "busy begins", "busy", "busy ends", "memory", "memory in wasm"];
  assertEquals(turns, ["load", ...round, ...round]);
  assertMatch(on.terminal.output, /\nin wasm: llamero 1\.2\.3, fake\n/);
  assertMatch(on.terminal.output, /\nneighbour +busy machine +[\d.]+ tokens\/s +- +-\n/);
  assertStringIncludes(on.terminal.errors, "round 1 of 2: decode, llamero in WebAssembly (");
  assertStringIncludes(on.terminal.errors, "set LLAMERO_PEER_PYTHON");
});

Deno.test("counts, types of the cache and new flags go to the turns", async () => {
  const asked: string[] = [];
  const { on, run } = played((args) => {
    asked.push(args.slice(1).join(" "));
    return line({ engine: "llama.cpp 9", first_token_at: 0, load_s: 1, peak_bytes: 1 });
  });
  const selves: string[] = [];
  const { runSelf } = on.deps;
  on.deps.runSelf = (args) => {
    selves.push(args.slice(3).join(" "));
    return runSelf(args);
  };
  const flags = ["--peer", "--quiet", "--rounds", "1", "--only", "depth"];
  const threads = `--conversations 1 --threads ${navigator.hardwareConcurrency}`;
  assertEquals(await run(...flags, "--quick"), 0);
  const counts = (prompt: number, kv: string) => `--prompt ${prompt} --reply 6 ${threads} --kv ${kv}`;
  assertEquals(asked.splice(0), [counts(100, "q8_0"), counts(1000, "q8_0")]);
  assertEquals(selves[0], "--model toy.gguf --packed cache --decode-tokens 6 --quick --speculate off --quiet");
  assertEquals(await run(...flags, "--kv", "f16", "--prompt-tokens", "50"), 0);
  assertEquals(asked, [counts(50, "f16"), counts(50, "f16")]);
});

Deno.test("what does not fit the context is left out, and a single turn says so", async () => {
  const { on, turns, run } = played(undefined, 600);
  assertEquals(await run("--rounds", "1", "--only", "depth,decode"), 0);
  assertEquals(turns, ["load", "decode"]);
  assertStringIncludes(
    on.terminal.errors,
    "depth is left out: expected at most 600 tokens of prompt and reply, got 3506\n",
  );
  const nothing = played(undefined, 600);
  assertEquals(await nothing.run("--only", "depth", "--quiet"), 1);
  assertEquals(
    nothing.on.terminal.errors,
    "llamero: measuring failed: a context of 600 tokens is too short; --quick takes less\n",
  );
  const small = stage({ model: { contextLength: 60 } });
  assertEquals(await small.run("bench", "--turn", "decode", "--decode-tokens", "29"), 1);
  assertEquals(
    small.terminal.errors,
    "llamero: measuring failed: expected at most 60 tokens of prompt and reply, got 61\n",
  );
});

Deno.test("conversations that did not write together are no figure", async () => {
  const { terminal, run } = stage({ ...LONG, maxRunning: 1 }, { runTask: () => Promise.resolve({}) });
  assertEquals(await run("bench", "--turn", "batch", "--decode-tokens", "3"), 1);
  assertStringIncludes(terminal.errors, "expected 8 conversations to write together");
});

Deno.test("trouble with the peer is a sentence", async () => {
  const check = async (finished: Finished | Error, expected: string) => {
    const { on, run } = played(() => {
      if (finished instanceof Error) throw finished;
      return finished;
    });
    const { runPeer } = on.deps;
    // deno-lint-ignore require-await -- throws become rejections
    on.deps.runPeer = async (...args) => runPeer(...args);
    assertEquals(await run("--rounds", "1", "--peer", "--quiet", "--only", "memory"), 1);
    assertEquals(on.terminal.errors, `llamero: ${expected}\n`);
  };
  const sentence = "measuring llama.cpp with python3 failed: ";
  const stderr = "Traceback\nModuleNotFoundError: No module named 'llama_cpp'\n";
  await check({ code: 1, stdout: "", stderr }, `${sentence}ModuleNotFoundError: No module named 'llama_cpp'`);
  await check({ code: 3, stdout: "", stderr: "" }, `${sentence}status 3`);
  await check(line({ load_s: 1 }), `${sentence}expected a number first_token_at, got undefined`);
  await check(
    line({ first_token_at: 1, load_s: 1, peak_bytes: 1, decode_tok_s: "fast" }),
    `${sentence}expected a number decode_tok_s, got "fast"`,
  );
  await check(new Deno.errors.NotFound("x"), "measuring llama.cpp failed: expected a program python3, found none");
  const { on, run } = played();
  on.deps.runSelf = () => Promise.resolve({ code: 1, stdout: "", stderr: "llamero: it broke\n" });
  assertEquals(await run("--rounds", "1", "--quiet", "--only", "memory"), 1);
  assertEquals(on.terminal.errors, "llamero: measuring llamero failed: it broke\n");
});

Deno.test("a turn that fails after the first round is left out", async () => {
  const ends = [line({ engine: "x", first_token_at: 0, load_s: 1, peak_bytes: 5 }), {
    code: 3,
    stdout: "",
    stderr: "",
  }];
  const { on, run } = played(() => ends.shift()!);
  assertEquals(await run("--rounds", "2", "--peer", "--json", "--only", "memory"), 0);
  assertStringIncludes(on.terminal.errors, "left out: measuring llama.cpp with python3 failed: status 3\n");
  const [{ figures: [peak] }] = JSON.parse(on.terminal.output).scenarios;
  assertEquals([peak.rounds, peak.median.peer], [{ llamero: [1e9, 1e9], wasm: [], peer: [5] }, 5]);
});

Deno.test("unknown scenarios are refused", async () => {
  const { on, run } = played();
  assertEquals(await run("--only", "decode,speed"), 2);
  assertMatch(on.terminal.errors, /--only: expected some of load,prefill,.*, got "speed"/);
});

Deno.test("tied weights are read for each token", async () => {
  const { on, run } = played();
  const { runTask } = on.deps;
  const tied = inspected(8192, GROUPS.filter(({ name }) => name !== "output"));
  on.deps.runTask = (task, options) => task.task === "inspect" ? Promise.resolve(tied) : runTask(task, options);
  assertEquals(await run("--rounds", "1", "--only", "decode", "--json", "--quiet"), 0);
  assertEquals(JSON.parse(on.terminal.output).file.bytesPerToken, 6640);
});

Deno.test("token ids are those of the peer's script", () => {
  // scripts/llama_cpp_bench.py: random_ids(4, 32000, 1)
  assertEquals(randomIds(4, 32000, 1), [7568, 11818, 16137, 22557]);
});

Deno.test("what a lookup would have known", () => {
  assertEquals(repeatedShare([1, 2, 3, 4, 1, 2, 3, 4, 1, 9], 4), 2 / 6);
  assertEquals([repeatedShare([1, 2, 3], 3), repeatedShare([], 0)], [0, 0]);
});

Deno.test("the time left is that of the last time", () => {
  const took = new Map([["a", 2], ["b", 4]]);
  assertEquals([timeLeft(["a", "b", "a"], took), timeLeft(["c", "a"], took)], ["8.0 s", "5.0 s"]);
  assertEquals(timeLeft(["a"], new Map()), undefined);
});
