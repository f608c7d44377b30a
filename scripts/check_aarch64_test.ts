import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { check, ENVIRONMENT } from "./check_aarch64.ts";
import { answers } from "./programs_testing.ts";
import { STEPS } from "./test.ts";

const RAN = "running 33 tests\ntest result: ok. 33 passed; 0 failed; 1 ignored\n";

/** With the standard library of the target there, so that rustup is not asked. */
function checked(...outputs: (string | number)[]): Promise<string> {
  return check(answers("/lib\n", ...outputs).run, (path) => path === "/lib");
}

Deno.test("what was compiled is run where there is an emulator, else it is said that it was not", async () => {
  const whole = answers("/lib\n", "", "", "qemu-aarch64 version 7.2\n", RAN);
  const sentence = await check(whole.run, () => false);
  assertEquals(sentence, "compiled for aarch64; 33 tests of the kernels passed under qemu-aarch64");
  assertEquals(whole.commands[1], "rustup target add aarch64-unknown-linux-musl");
  assertMatch(whole.commands[2]!, /--target aarch64-unknown-linux-musl --no-run$/);
  assertMatch(whole.commands[4]!, /-- kernels::$/);
  assertMatch(await checked("", 127), /^compiled for aarch64, and not run: /);
});

Deno.test("what fails, or finds nothing to run, is an error", async () => {
  await assertRejects(() => check(answers("/lib", 1).run, () => false), Error, "rustup could not install");
  await assertRejects(() => checked(101), Error, "compiling for aarch64 failed (code 101):\nwhy");
  await assertRejects(() => checked("", "", 101), Error, "tests failed on aarch64");
  await assertRejects(() => checked("", "", "test result: ok. 0 passed;"), Error, "found none");
});

Deno.test("cargo's variables are those of the target, and the check is not among the usual ones", () => {
  for (const name of Object.keys(ENVIRONMENT)) assertMatch(name, /^CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_/);
  assertEquals(STEPS.filter(({ command }) => command.some((word) => word.includes("aarch64"))), []);
});
