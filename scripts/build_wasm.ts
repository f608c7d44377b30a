/**
 * Builds the core as WebAssembly: cargo, then JavaScript glue (wasm-bindgen), then wasm-opt; says what each step took
 * and how large the result is, and fails when it is larger than promised.
 *
 *     deno task build:wasm [--toolchain path|debian]
 *
 * The result is in `target/wasm` (or `$CARGO_TARGET_DIR/wasm`): `llamero.js`, `llamero_bg.wasm` and their types, for
 * every host alike. Nothing is done when no source has changed since. wasm_toolchain.ts says where the compiler comes
 * from.
 *
 * Absent on purpose: anything installed for the whole machine. The wasm-bindgen step is a small crate of this
 * workspace and wasm-opt comes as the npm package binaryen, so the two lock files pin them.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { findToolchain, TARGET, type Toolchain } from "./wasm_toolchain.ts";

/** Largest module in bytes. */
export const MAX_BYTES = 1_500_000;
/** Largest module in bytes as it travels. */
export const MAX_GZIP_BYTES = 500_000;

const ROOT = join(import.meta.dirname!, "..");
const PROFILE = "wasm-release";
const MODULE = "llamero_bg.wasm";
/** Holds what the result was made of; there only with a whole result. */
const STAMP = "sources.sha256";
/** What the result depends on. */
const SOURCES = [
  "Cargo.toml",
  "Cargo.lock",
  "core-rs/Cargo.toml",
  "core-rs/src",
  "tools/wasm-bindgen",
  "scripts/build_wasm.ts",
];
/** Every engine since 2021 has them. */
const RUSTFLAGS = "-C target-feature=+simd128";

/** Sizes of a module in bytes. */
export interface Sizes {
  bytes: number;
  gzip: number;
}

/** A sentence for each limit that is broken. */
export function tooLarge({ bytes, gzip }: Sizes): string[] {
  const over = (what: string, got: number, max: number) =>
    got > max ? [`expected a module of at most ${max} bytes${what}, got ${got}`] : [];
  return [...over("", bytes, MAX_BYTES), ...over(" gzipped", gzip, MAX_GZIP_BYTES)];
}

/** One number for the content of all `paths` below `root`; folders count with all their files. */
export async function fingerprint(root: string, paths: readonly string[]): Promise<string> {
  const files = (await Promise.all(paths.map((path) => filesBelow(root, path)))).flat().sort();
  const digests = await Promise.all(
    files.map(async (file) => `${file} ${await sha256(await Deno.readFile(join(root, file)))}`),
  );
  return await sha256(new TextEncoder().encode(digests.join("\n")));
}

async function filesBelow(root: string, path: string): Promise<string[]> {
  if (!(await Deno.stat(join(root, path))).isDirectory) return [path];
  const entries = await Array.fromAsync(Deno.readDir(join(root, path)));
  return (await Promise.all(entries.map(({ name }) => filesBelow(root, `${path}/${name}`)))).flat();
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** Builds unless the result is there and new. */
async function build(target: string, only?: "path" | "debian"): Promise<void> {
  const output = join(target, "wasm");
  const stamp = join(output, STAMP);
  const sources = `${await fingerprint(ROOT, SOURCES)} ${import.meta.resolve("binaryen")}`;
  if (existsSync(stamp) && await Deno.readTextFile(stamp) === sources) {
    return console.log(`up to date: ${describe(await measure(join(output, MODULE)))}`);
  }
  const toolchain = await timed("toolchain", () => findToolchain(say, only));
  say(`compiling with ${toolchain.label}`);
  const compiled = await timed("cargo", () => compile(toolchain, target));
  const work = await Deno.makeTempDir({ dir: target, prefix: "wasm." });
  try {
    await timed("wasm-bindgen", () => bindgen(compiled, work, target));
    await timed("wasm-opt", () => optimize(join(work, MODULE)));
    const sizes = await measure(join(work, MODULE));
    console.log(describe(sizes));
    const broken = tooLarge(sizes);
    if (broken.length > 0) throw new Error(broken.join("; "));
    await Deno.writeTextFile(join(work, STAMP), sources);
    await replace(output, work);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
}

/** The compiled module. */
async function compile({ cargo, args, env }: Toolchain, target: string): Promise<string> {
  const build = ["build", "--locked", "--package", "llamero-core", "--lib", "--target", TARGET, "--profile", PROFILE];
  await inherit(cargo, [...build, ...args], {
    ...env,
    CARGO_TARGET_DIR: target,
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS: RUSTFLAGS,
  });
  return join(target, TARGET, PROFILE, "llamero.wasm");
}

async function bindgen(compiled: string, output: string, target: string): Promise<void> {
  const tool = ["run", "--quiet", "--locked", "--package", "llamero-wasm-bindgen", "--", compiled, output];
  await inherit("cargo", tool, { CARGO_TARGET_DIR: target });
}

/** `wasm-opt -O3 --shrink-level=1` in place. The package's own command line program does not run in Deno; its library does. */
async function optimize(path: string): Promise<void> {
  const { default: binaryen } = await import("binaryen");
  const { Features } = binaryen;
  const input = await Deno.readFile(path);
  // What rustc uses for this target, and no more: wasm-opt would be free to use newer instructions.
  const features = [
    Features.SIMD128,
    Features.MutableGlobals,
    Features.NontrappingFPToInt,
    Features.BulkMemory,
    Features.BulkMemoryOpt,
    Features.CallIndirectOverlong,
    Features.SignExt,
    Features.ReferenceTypes,
    Features.Multivalue,
  ];
  const module = binaryen.readBinary(input);
  module.setFeatures(features.reduce((all, one) => all | one));
  binaryen.setOptimizeLevel(3);
  binaryen.setShrinkLevel(1);
  module.optimize();
  if (!module.validate()) throw new Error("optimizing the module failed: binaryen made an invalid one");
  await Deno.writeFile(path, module.emitBinary());
  module.dispose();
}

/** Puts the files of `from` in place of those in `output`, one by one. */
async function replace(output: string, from: string): Promise<void> {
  await Deno.mkdir(output, { recursive: true });
  await Deno.remove(join(output, STAMP)).catch(() => {});
  const names = await Array.fromAsync(Deno.readDir(from), ({ name }) => name);
  for (const name of [...names.filter((name) => name !== STAMP), STAMP]) {
    await Deno.rename(join(from, name), join(output, name));
  }
}

async function measure(path: string): Promise<Sizes> {
  const module = await Deno.readFile(path);
  return { bytes: module.length, gzip: gzipSync(module, { level: 9 }).length };
}

function describe({ bytes, gzip }: Sizes): string {
  return `${MODULE}: ${bytes} bytes, ${gzip} gzipped`;
}

/** Runs a program that talks to the terminal itself. */
async function inherit(program: string, args: string[], env: Record<string, string>): Promise<void> {
  const command = new Deno.Command(program, {
    args,
    env,
    cwd: ROOT,
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  });
  const { code } = await command.spawn().status.catch((error) => {
    if (error instanceof Deno.errors.NotFound) {
      throw new Error(`building for WebAssembly needs ${program}, which is not on PATH`);
    }
    throw error;
  });
  if (code !== 0) throw new Error(`${program} ${args[0]} failed with code ${code} (see above)`);
}

async function timed<T>(name: string, work: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const result = await work();
  console.log(`ok    ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
  return result;
}

function say(line: string): void {
  console.error(`build:wasm: ${line}`);
}

async function main(args: string[]): Promise<number> {
  try {
    const { values: { toolchain } } = parseArgs({ args, options: { toolchain: { type: "string" } } });
    if (toolchain !== undefined && toolchain !== "path" && toolchain !== "debian") {
      throw new Error(`--toolchain: expected path or debian, got ${toolchain}`);
    }
    const target = resolve(Deno.env.get("CARGO_TARGET_DIR") || join(ROOT, "target"));
    await Deno.mkdir(target, { recursive: true });
    await build(target, toolchain);
    return 0;
  } catch (error) {
    say((error as Error).message);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
