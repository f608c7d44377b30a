import { assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import type { PipSource } from "./catalogue.ts";
import { SourceError } from "./error.ts";
import { pipDownload, type RunProgram } from "./pip.ts";

const SOURCE: PipSource = { kind: "pip", label: "pip", package: "toy", version: "1.2", member: "m", wheelBytes: 3 };

async function inFolder<T>(body: (dir: string) => Promise<T>): Promise<T> {
  const dir = await Deno.makeTempDir();
  try {
    return await body(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("pip is asked for exactly one wheel, without an index", () =>
  inFolder(async (dir) => {
    const calls: string[][] = [];
    const run: RunProgram = async (program, args, { env }) => {
      calls.push([program, ...args]);
      assertEquals(env, { TMPDIR: dir });
      await Deno.writeTextFile(join(dir, "toy-1.2-py3-none-any.whl"), "zip");
      return { code: 0, stderr: "" };
    };
    assertEquals(await pipDownload(SOURCE, { dir, run }), join(dir, "toy-1.2-py3-none-any.whl"));
    const line = calls.map((each) => each.join(" ")).join("\n");
    assertEquals(
      line,
      "python3 -m pip --quiet --no-input --disable-pip-version-check download --progress-bar off " +
        `--no-deps --only-binary :all: --dest ${dir} toy==1.2`,
    );
  }));

Deno.test("python is tried when python3 is missing", () =>
  inFolder(async (dir) => {
    const run: RunProgram = async (program) => {
      if (program === "python3") throw new Deno.errors.NotFound("python3");
      await Deno.writeTextFile(join(dir, "toy.whl"), "zip");
      return { code: 0, stderr: "" };
    };
    assertEquals(await pipDownload(SOURCE, { dir, run }), join(dir, "toy.whl"));
  }));

Deno.test("failures of pip are sentences", async () => {
  const check = (run: RunProgram, expected: string) =>
    inFolder(async (dir) => {
      const error = await assertRejects(() => pipDownload(SOURCE, { dir, run }), SourceError);
      assertEquals(error.message, `fetching toy 1.2 with pip failed: ${expected}`);
    });
  const stderr = "WARNING: Retrying\nERROR: No matching distribution found for toy==1.2.\n";
  await check(() => Promise.resolve({ code: 1, stderr }), "No matching distribution found for toy==1.2");
  await check(() => Promise.resolve({ code: 7, stderr: "" }), "pip ended with status 7");
  await check(() => Promise.resolve({ code: 0, stderr: "" }), "pip delivered no wheel");
  await check(
    () => Promise.reject(new Deno.errors.NotFound("no")),
    "expected python3 or python with pip on PATH, found neither",
  );
});

Deno.test("the growing download is measured, temporary folders included", () =>
  inFolder(async (dir) => {
    const seen: number[] = [];
    const run: RunProgram = async () => {
      await Deno.mkdir(join(dir, "pip-unpack-1"));
      await Deno.writeTextFile(join(dir, "pip-unpack-1", "toy.whl"), "12345");
      await new Promise((resolve) => setTimeout(resolve, 600));
      await Deno.rename(join(dir, "pip-unpack-1", "toy.whl"), join(dir, "toy.whl"));
      return { code: 0, stderr: "" };
    };
    await pipDownload(SOURCE, { dir, run, onProgress: (done) => seen.push(done) });
    assertEquals(seen.length > 0 && seen.every((each) => each === 5), true, String(seen));
  }));
