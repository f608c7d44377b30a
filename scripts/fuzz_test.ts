import { assert, assertEquals, assertThrows } from "@std/assert";
import { judge, parseSeconds, seeds, targets } from "./fuzz.ts";

Deno.test("every target is known to cargo and has something to start from", async () => {
  const manifest = await Deno.readTextFile(new URL("../core-rs/fuzz/Cargo.toml", import.meta.url));
  const names = await targets();
  assert(names.includes("gguf") && names.includes("pdparams"));
  assertEquals([...manifest.matchAll(/^path = "fuzz_targets\/(.*)\.rs"$/gm)].map((match) => match[1]).sort(), names);
  for (const name of names) assert(seeds(name).length > 0, name);
});

Deno.test("a run that tried nothing or ended early is a finding", () => {
  const stats = "stat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     617\n";
  assertEquals(judge({ code: 0, output: stats }), { tried: 1234 });
  assertEquals(judge({ code: 0, output: "" }), { tried: 0, finding: "the fuzzer ended with code 0" });
  const crash = `panicked at src/lib.rs\nTest unit written to target/fuzz/artifacts/gguf/crash-0a\n${stats}`;
  assertEquals(judge({ code: 77, output: crash }), { tried: 1234, finding: "target/fuzz/artifacts/gguf/crash-0a" });
});

Deno.test("seconds are a whole number", () => {
  assertEquals(parseSeconds("90"), 90);
  for (const text of ["0", "-1", "1.5", "x", "", "1000000"]) assertThrows(() => parseSeconds(text), RangeError, "got");
});
