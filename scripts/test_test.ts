import { assertEquals, assertThrows } from "@std/assert";
import { type RunProgram } from "./programs.ts";
import { choose, countCargo, countDeno, judge, runSteps, type Step, STEPS } from "./test.ts";

Deno.test("cargo's result lines are summed", () => {
  const output = `
running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
`;
  assertEquals(countCargo(output), { passed: 7, failed: 2, ignored: 1 });
  assertEquals(countCargo("error: could not compile"), { passed: 0, failed: 0, ignored: 0 });
});

Deno.test("deno's last line is read in all its forms", () => {
  const check = (line: string, passed: number, failed: number, ignored: number) =>
    assertEquals(countDeno(`a ... ok (1ms)\n\n${line}\n`), { passed, failed, ignored });
  check("ok | 40 passed | 0 failed (7s)", 40, 0, 0);
  check("FAILED | 12 passed (3 steps) | 2 failed (1 step) | 5 ignored (1m2s)", 12, 2, 5);
  check("ok | 0 passed | 0 failed (0ms)", 0, 0, 0);
});

const PLAIN: Step = { name: "plain", command: ["x"] };
const TESTS: Step = { name: "tests", command: ["y"], count: countDeno };

Deno.test("a step without counts is one; a runner that broke or ran nothing has failed", () => {
  assertEquals(judge(PLAIN, { code: 0, output: "" }), { passed: 1, failed: 0, ignored: 0 });
  assertEquals(judge(PLAIN, { code: 3, output: "" }), { passed: 0, failed: 1, ignored: 0 });
  assertEquals(judge(TESTS, { code: 0, output: "ok | 2 passed | 0 failed (1s)" }).failed, 0);
  assertEquals(judge(TESTS, { code: 1, output: "FAILED | 2 passed | 3 failed (1s)" }).failed, 3);
  assertEquals(judge(TESTS, { code: 1, output: "ok | 2 passed | 0 failed (1s)" }).failed, 1);
  assertEquals(judge(TESTS, { code: 0, output: "ok | 0 passed | 0 failed (1s)" }).failed, 1);
});

Deno.test("steps go on after a failure, its output is shown, the last line counts", async () => {
  const said: string[] = [];
  const run: RunProgram = ([program], onLine) => {
    onLine("working");
    if (program === "x") return Promise.resolve({ code: 1, output: "what is wrong\n" });
    return Promise.resolve({ code: 0, output: "kept back\nok | 5 passed | 0 failed | 1 ignored (1s)\n" });
  };
  const total = await runSteps([PLAIN, TESTS], { run, say: (line) => said.push(line), now: () => 0 });
  assertEquals(total, { passed: 5, failed: 1, ignored: 1 });
  assertEquals(said, [
    "what is wrong\n",
    "FAIL  plain (0.0 s)",
    "ok    tests (0.0 s, 5 passed, 1 ignored)",
    "5 passed, 1 failed",
  ]);
});

Deno.test("--only chooses steps in their order and refuses unknown ones", () => {
  assertEquals(choose(["rooms", "deno-fmt"]).map(({ name }) => name), ["deno-fmt", "rooms"]);
  assertEquals(choose([]), STEPS);
  assertThrows(() => choose(["room"]), RangeError, "--only: expected one of deno-fmt, ");
});
