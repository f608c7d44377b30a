/**
 * A Rust toolchain that compiles for WebAssembly, on a machine that may have none.
 *
 * First choice: the toolchain on PATH, whose standard library for wasm32-unknown-unknown rustup adds if it can.
 * Where rustup cannot (no network for it, or no rustup), Debian's `rustc-web` serves: it conflicts with Debian's own
 * `rustc`, so its packages are unpacked into a folder of the cache and never installed. It brings the sources of the
 * standard library instead of a compiled one, which is then built along.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { modelsDir } from "../src/models/cache.ts";

/** What cargo calls the machine that we build for. */
export const TARGET = "wasm32-unknown-unknown";

/** Debian's packages that are asked for; what they depend on is Debian's to say. */
const DEBIAN_PACKAGES = ["rustc-web", "cargo-web", "rust-web-src"] as const;
/** The linker of the same LLVM, for a machine whose Rust brings none. */
const DEBIAN_LLD = "lld-22";
const DEBIAN_WASM_LD = "wasm-ld-22";

/** How to run cargo for WebAssembly. */
export interface Toolchain {
  /** A few words for people. */
  label: string;
  cargo: string;
  /** Arguments behind `cargo build`. */
  args: string[];
  env: Record<string, string>;
}

/** A program that has ended. */
export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a program and collects its output; code 127 when there is no such program. */
export async function run(program: string, args: string[], cwd?: string): Promise<Ended> {
  try {
    const env = { LC_ALL: "C" };
    const output = await new Deno.Command(program, { args, env, cwd, stdin: "null" }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
    return { code: output.code, stdout: text(output.stdout), stderr: text(output.stderr) };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { code: 127, stdout: "", stderr: `${program} is not on PATH` };
  }
}

/** Finds or fetches a toolchain; `only` skips the other kind. */
export async function findToolchain(say: (line: string) => void, only?: "path" | "debian"): Promise<Toolchain> {
  const reasons: string[] = [];
  if (only !== "debian") {
    const missing = await missingStd(say);
    if (!missing) return { label: "the toolchain on PATH", cargo: "cargo", args: [], env: {} };
    reasons.push(missing);
  }
  if (only !== "path") {
    const debian = await debianToolchain(say);
    if (typeof debian !== "string") return debian;
    reasons.push(debian);
  }
  throw new Error(`building for WebAssembly needs a Rust toolchain for ${TARGET}: ${reasons.join("; ")}`);
}

/** Why the toolchain on PATH cannot compile for WebAssembly; nothing when it can. */
async function missingStd(say: (line: string) => void): Promise<string | undefined> {
  const folder = await run("rustc", ["--print", "target-libdir", "--target", TARGET]);
  if (folder.code !== 0) return `rustc does not know it (${lastLine(folder.stderr)})`;
  if (existsSync(folder.stdout)) return undefined;
  say(`adding ${TARGET} with rustup`);
  const added = await run("rustup", ["target", "add", TARGET]);
  if (added.code === 0 && existsSync(folder.stdout)) return undefined;
  return `"rustup target add ${TARGET}" failed (${lastLine(added.stderr)})`;
}

/** Debian's toolchain out of the cache, fetched on first use; a sentence when that cannot be. */
async function debianToolchain(say: (line: string) => void): Promise<Toolchain | string> {
  const bundled = await bundledLinker();
  const packages = [...DEBIAN_PACKAGES, ...(bundled ? [] : [DEBIAN_LLD])];
  const plan = await planDebian(packages, say);
  if (typeof plan === "string") return plan;
  const root = join(dirname(modelsDir((name) => Deno.env.get(name))), `rust-web-${plan.version}`);
  if (!existsSync(root)) {
    say(`fetching Debian's rustc-web ${plan.version} into ${root} (once)`);
    const failed = await unpack(plan.packages, root);
    if (failed) return failed;
  }
  return {
    label: `Debian's rustc-web ${plan.version}`,
    cargo: join(root, "usr/bin/cargo"),
    // The standard library comes as sources; building it is still called unstable.
    args: ["-Zbuild-std=std,panic_abort"],
    env: {
      RUSTC: join(root, "usr/bin/rustc"),
      RUSTC_BOOTSTRAP: "1",
      LD_LIBRARY_PATH: (await libraryFolders(root)).join(":"),
      CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER: bundled ?? join(root, "usr/bin", DEBIAN_WASM_LD),
    },
  };
}

/** The `rust-lld` that rustup's toolchains bring. */
async function bundledLinker(): Promise<string | undefined> {
  const sysroot = await run("rustc", ["--print", "sysroot"]);
  const host = /^host: (.*)$/m.exec((await run("rustc", ["-vV"])).stdout)?.[1];
  const path = join(sysroot.stdout, "lib/rustlib", host ?? "", "bin/rust-lld");
  return sysroot.code === 0 && existsSync(path) ? path : undefined;
}

/** What to fetch: packages that are not installed, by Debian's own solver, and the version that names the folder. */
async function planDebian(packages: string[], say: (line: string) => void): Promise<DebianPlan | string> {
  const simulate = () => run("apt-get", ["install", "--simulate", "--no-install-recommends", ...packages]);
  let solved = await simulate();
  if (solved.code === 127) return "Debian's rustc-web needs apt-get, which is not on PATH";
  if (solved.code !== 0) {
    say("asking Debian for its packages (apt-get update)");
    const updated = await run("apt-get", ["update"]);
    if (updated.code !== 0) return `"apt-get update" failed (${lastLine(updated.stderr)})`;
    solved = await simulate();
  }
  const plan = parsePlan(solved.stdout);
  return plan ?? `apt-get finds no way to have ${packages.join(", ")} (${lastLine(solved.stderr || solved.stdout)})`;
}

/** What Debian would install. */
export interface DebianPlan {
  /** The version of rustc-web. */
  version: string;
  packages: string[];
}

/** Reads `apt-get install --simulate`: lines such as `Inst rustc-web (1.96.0+dfsg1-1 Debian:12 [amd64])`. */
export function parsePlan(output: string): DebianPlan | undefined {
  const found = [...output.matchAll(/^Inst (\S+) (?:\[\S*\] )?\((\S+) /gm)];
  const version = found.find(([, name]) => name === "rustc-web")?.[2];
  return version ? { version, packages: found.map(([, name]) => name!) } : undefined;
}

/** Fetches packages and unpacks them into `root`, which is there with all of them or not at all. */
async function unpack(packages: string[], root: string): Promise<string | undefined> {
  await Deno.mkdir(dirname(root), { recursive: true });
  const work = await Deno.makeTempDir({ dir: dirname(root), prefix: "rust-web." });
  try {
    const fetched = await run("apt-get", ["download", ...packages], work);
    if (fetched.code !== 0) return `"apt-get download" failed (${lastLine(fetched.stderr)})`;
    const tree = join(work, "root");
    for (const { name } of Deno.readDirSync(work)) {
      if (!name.endsWith(".deb")) continue;
      const unpacked = await run("dpkg-deb", ["-x", join(work, name), tree]);
      if (unpacked.code !== 0) return `unpacking ${name} failed (${lastLine(unpacked.stderr)})`;
    }
    // Another process may have been faster: its folder is as good.
    await Deno.rename(tree, root).catch((error) => {
      if (!existsSync(root)) throw error;
    });
  } finally {
    await Deno.remove(work, { recursive: true });
  }
}

/** Where Debian keeps libraries, such as `usr/lib/x86_64-linux-gnu`. */
async function libraryFolders(root: string): Promise<string[]> {
  const lib = join(root, "usr/lib");
  const names = await Array.fromAsync(Deno.readDir(lib), ({ name }) => name);
  return names.filter((name) => /-linux-gnu\w*$/.test(name)).map((name) => join(lib, name));
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) || "it says nothing";
}
