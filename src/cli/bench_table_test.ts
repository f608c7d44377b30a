import { assertEquals } from "@std/assert";
import { reportOf, type Round, table } from "./bench_report.ts";
import {
  contextOf,
  type Facts,
  median,
  SCENARIO_NAMES,
  SCENARIOS,
  type Seen,
  TURN_NAMES,
  turnNamed,
  TURNS,
} from "./bench_table.ts";

const FACTS: Facts = {
  contextLength: 4096,
  quantization: "q4_0",
  fileBytes: 4e9,
  bytesPerToken: 3.6e9,
  layerParameters: 6.5e9,
  cacheBytes: { f16: 524_288, q8_0: 278_528 },
};

function seen(over: Partial<Seen>): Seen {
  return { engine: "x", first_token_at: 0, load_s: 1, start_s: 2, peak_bytes: 1, ...over };
}

/** A round in which we are `speed` times as fast as the peer. */
function roundOf(speed: number): Round {
  const limits = { threads: 2, instruction_set: "avx512vnni", read_bytes_s: 27e9, multiply_adds_s: 377e9 };
  const all = (speed: number, limited: Partial<Seen>): Round["peer"] => ({
    load: seen({ start_s: 6 / speed, load_s: 5 / speed }),
    prefill: seen({ prefill_tok_s: 16 * speed, ...limited }),
    decode: seen({ decode_tok_s: 3 * speed, ...limited }),
    busy: seen({ decode_tok_s: 1.5 * speed }),
    batch: seen({ decode_tok_s: 12 * speed }),
    near: seen({ decode_tok_s: 3 * speed }),
    far: seen({ decode_tok_s: 2.4 * speed }),
    memory: seen({ peak_bytes: 8e9 / speed }),
  });
  return { llamero: all(speed, { limits }), wasm: {}, peer: all(1, {}) };
}

Deno.test("medians, ratios and shares of a report", () => {
  const rounds = [roundOf(2), roundOf(1), roundOf(4)];
  const report = reportOf({ model: "m", facts: FACTS, values: {}, rounds, scenarios: SCENARIO_NAMES, threads: 2 });
  const figures = report.scenarios.flatMap(({ name, figures }) =>
    figures.map(({ name: figure, median, ratio }) => [`${name}.${figure}`, median.llamero, median.peer, ratio.peer])
  );
  assertEquals(figures, [
    ["load.start_s", 3, 6, 0.5],
    ["load.load_s", 2.5, 5, 0.5],
    ["prefill.tok_s", 32, 16, 2],
    ["prefill.share_of_int8_peak", 0.5517, 0.2759, 2],
    ["decode.tok_s", 6, 3, 2],
    ["decode.share_of_bandwidth", 0.8, 0.4, 2],
    ["batch.tok_s", 24, 12, 2],
    ["batch.times_single", 4, 4, 1],
    ["depth.near_tok_s", 6, 3, 2],
    ["depth.far_tok_s", 4.8, 2.4, 2],
    ["depth.share_of_near", 0.8, 0.8, 1],
    ["memory.peak_bytes", 4e9, 8e9, 0.5],
    ["memory.times_file_and_cache", 0.9353, 1.871, 0.5],
    ["quote.tok_s", null, null, null],
    ["quote.plain_tok_s", null, null, null],
    ["quote.times_plain", null, null, null],
    ["quote.decode_times_plain", null, null, null],
    ["quote.repeated", null, null, null],
    ["neighbour.tok_s", 3, 1.5, 2],
    ["neighbour.share_of_quiet", 0.5, 0.5, 1],
  ]);
  assertEquals(report.limits?.read_bytes_s, 27e9);
  assertEquals(report.scenarios[0]!.figures[0]!.rounds.llamero, [3, 6, 1.5]);
  assertEquals(
    table(report).split("\n").filter((line) => /^(load|memory|quote|prefill| +multiply)/.test(line)),
    [
      "load       start to first token            3.00 s         6.00 s         0.50",
      "prefill    reading a prompt                32.0 tokens/s  16.0 tokens/s  2.00",
      "           multiply-adds to the int8 peak  55.2 %         27.6 %         2.00",
      "memory     peak                            4.0 GB         8.0 GB         0.50",
      "quote      quoting                         -              -              -",
    ],
  );
});

Deno.test("a scenario's turns are those that its figures read", () => {
  for (const name of SCENARIO_NAMES) {
    const read = new Set<string>();
    const turns = new Proxy({}, { get: (_, turn) => void read.add(String(turn)) });
    for (const figure of SCENARIOS[name].figures) figure.of({ turns, facts: FACTS, kv: "f16", flags: {} });
    assertEquals([...read].sort(), [...SCENARIOS[name].turns].sort(), name);
  }
  const used = new Set(SCENARIO_NAMES.flatMap((name) => [...SCENARIOS[name].turns]));
  assertEquals([...used].sort(), [...TURN_NAMES].sort());
});

Deno.test("counts come from the command line, from --quick, or from the table", () => {
  for (const name of TURN_NAMES.filter((name) => name !== "load")) {
    const turn = turnNamed(name);
    const { prompt, reply } = TURNS[name];
    assertEquals([turn.prompt, turn.reply], [prompt, reply]);
    const quick = turnNamed(name, { quick: true });
    assertEquals(quick.prompt <= turn.prompt && quick.reply <= turn.reply && quick.reply >= 2, true, name);
    const flags = { quick: true, "prompt-tokens": 7, "decode-tokens": 9 };
    assertEquals([turnNamed(name, flags).prompt, turnNamed(name, flags).reply], [7, 9]);
  }
  assertEquals(contextOf(turnNamed("load", { "prompt-tokens": 700 })), 17);
  assertEquals(contextOf(turnNamed("far")), 3532);
});

Deno.test("medians", () => {
  assertEquals([median([3]), median([5, 1, 3]), median([4, 1, 3, 2])], [3, 3, 2.5]);
  assertEquals(median([]), NaN);
});
