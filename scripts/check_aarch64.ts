/**
 * Compiles the core and its tests for aarch64, whose kernels have NEON and dot products, and runs the tests of the
 * kernels under qemu: each fast form against the scalar one.
 *
 *     deno task check:aarch64
 *
 * The standard library for that target comes by rustup, once; it is linked by Rust's own linker, against musl, so that no
 * C compiler and no files of that system are needed. Without `qemu-aarch64` it is compiled and not run, and says so. It
 * takes some eight minutes on two cores; what was compiled stays in `target`. A machine that is aarch64 runs everything
 * by `deno task test`.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { lastLine, must, programRunner, type RunProgram, show } from "./programs.ts";

const ROOT = join(import.meta.dirname!, "..");
const TARGET = "aarch64-unknown-linux-musl";
const EMULATOR = "qemu-aarch64";
/** Every extension that the emulator knows, dot products and f16 among them. */
const RUNNER = `${EMULATOR} -cpu max`;
/** The room of the kernels, by the names of its tests. */
const TESTS = "kernels::";

/** The environment in which cargo links for the target, and runs what it built. */
export const ENVIRONMENT: Record<string, string> = {
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER: "rust-lld",
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER: RUNNER,
};

/** Compiles and, where there is an emulator, runs; what came of it in a sentence. */
export async function check(run: RunProgram, there = existsSync): Promise<string> {
  const folder = must(await run(["rustc", "--print", "target-libdir", "--target", TARGET], () => {}), "rustc failed");
  if (!there(lastLine(folder))) {
    must(await run(["rustup", "target", "add", TARGET], show), `rustup could not install ${TARGET}`);
  }
  const test = ["cargo", "test", "--locked", "--package", "llamero-core", "--lib", "--target", TARGET] as const;
  must(await run([...test, "--no-run"], show), "compiling for aarch64 failed");
  const { code } = await run([EMULATOR, "--version"], () => {});
  if (code !== 0) return `compiled for aarch64, and not run: ${EMULATOR} is not on PATH`;
  const output = must(await run([...test, "--", TESTS], show), "the kernels' tests failed on aarch64");
  const passed = Number(/^test result: ok\. (\d+) passed/m.exec(output)?.[1] ?? 0);
  if (passed === 0) throw new Error(`expected tests of ${TESTS}, found none`);
  return `compiled for aarch64; ${passed} tests of the kernels passed under ${EMULATOR}`;
}

if (import.meta.main) {
  try {
    console.log(await check(programRunner(ROOT, () => ENVIRONMENT)));
  } catch (error) {
    console.error(`check:aarch64: ${(error as Error).message}`);
    Deno.exit(1);
  }
}
