/**
 * The bootstrap on machines that lack things: the real script, stubs for everything it starts.
 *
 * @module
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";

const SCRIPT = join(import.meta.dirname!, "llamero");
/** What a clean machine has anyway. */
const TOOLS = [
  "sh",
  "sed",
  "find",
  "head",
  "date",
  "dirname",
  "readlink",
  "mkdir",
  "mv",
  "rm",
  "cat",
  "sleep",
  "uname",
  "chmod",
];

/** Says what it was started with, a line for each word. */
const DENO = (version: string) =>
  `#!/bin/sh
if [ "$1" = --version ]; then echo "deno ${version} (stable)"; exit 0; fi
echo "deno in $PWD"; echo "LIB $LLAMERO_LIB"; echo "CACHE $LLAMERO_CACHE"
for word; do echo "[$word]"; done
exit 7
`;

/** Plays the script that builds WebAssembly as well. */
const DENO_THAT_BUILDS = DENO("2.9.6").replace(
  'echo "deno in',
  `for word; do
  case $word in */scripts/build_wasm.ts)
    echo "deno builds WebAssembly in $CARGO_TARGET_DIR"
    [ -z "\${WASM_FAILS:-}" ] || exit 1
    mkdir -p "$CARGO_TARGET_DIR/wasm" && cd "$CARGO_TARGET_DIR/wasm" && : >llamero_bg.wasm && : >sources.sha256
    exit
  esac
done
echo "WASM $LLAMERO_WASM"
echo "deno in`,
);

const CARGO = `#!/bin/sh
echo "cargo $* in $PWD" >&2
[ -z "\${CARGO_FAILS:-}" ] || exit 101
mkdir -p "$CARGO_TARGET_DIR/release" && : >"$CARGO_TARGET_DIR/release/libllamero.so"
`;

const NPM = `#!/bin/sh
echo "npm $*" >&2
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/node_modules/@deno/linux-x64-glibc" && sleep 0.3 && cat >"$2/node_modules/@deno/linux-x64-glibc/deno" <<'END'
${DENO("2.9.6")}END
`;

/** A core that is ready, so that none is built. */
const LIB = { LLAMERO_LIB: "/lib.so" };

interface Ran {
  code: number;
  out: string;
  err: string;
}

/** A checkout in a folder with a space, and a PATH with nothing but tools and stubs. */
class Machine {
  readonly root: string;
  readonly checkout: string;
  readonly bin: string;

  constructor() {
    this.root = Deno.realPathSync(Deno.makeTempDirSync());
    this.checkout = join(this.root, "my checkout");
    this.bin = join(this.root, "bin");
    for (const dir of ["scripts", "src", "core-rs/src"]) {
      Deno.mkdirSync(join(this.checkout, dir), { recursive: true });
    }
    Deno.copyFileSync(SCRIPT, join(this.checkout, "scripts/llamero"));
    for (const file of ["Cargo.toml", "Cargo.lock", "core-rs/Cargo.toml", "core-rs/src/lib.rs"]) this.touch(file);
    Deno.mkdirSync(this.bin);
    for (const tool of TOOLS) {
      const path = ["/bin", "/usr/bin"].map((dir) => join(dir, tool)).find(exists);
      Deno.symlinkSync(path!, join(this.bin, tool));
    }
  }

  /** Install a stub on PATH. */
  stub(name: string, text: string): this {
    Deno.writeTextFileSync(join(this.bin, name), text, { mode: 0o755 });
    return this;
  }

  /** Make a file of the checkout, dated `ahead` seconds in the future. */
  touch(file: string, ahead = -10): void {
    const path = join(this.checkout, file);
    Deno.writeTextFileSync(path, "");
    const time = new Date(Date.now() + ahead * 1000);
    Deno.utimeSync(path, time, time);
  }

  async run(args: string[], { script = join(this.checkout, "scripts/llamero"), ...env }: Record<string, string> = {}) {
    const command = new Deno.Command("/bin/sh", {
      args: [script, ...args],
      cwd: this.root,
      clearEnv: true,
      env: { PATH: this.bin, HOME: "/home/x", ...env },
    });
    const { code, stdout, stderr } = await command.output();
    const text = new TextDecoder();
    return { code, out: text.decode(stdout), err: text.decode(stderr) } satisfies Ran;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

function machine(name: string, body: (machine: Machine) => Promise<void>): void {
  Deno.test({
    name,
    // Stubs put the core where Linux has it.
    ignore: Deno.build.os !== "linux",
    fn: async () => {
      using made = new Machine();
      await body(made);
    },
  });
}

machine("a fitting Deno is used with the caller's folder, words, exit code and few permissions", async (m) => {
  m.stub("deno", DENO("2.9.0"));
  const { code, out, err } = await m.run(["pull", "two words", "-x"]);
  assertEquals([code, err], [7, ""]);
  assertStringIncludes(out, `deno in ${m.root}\n`);
  assertStringIncludes(out, "[two words]\n[-x]\n");
  assertStringIncludes(out, `[--config]\n[${m.checkout}/deno.json]\n`);
  assertStringIncludes(out, `[--allow-read=${m.checkout},/home/x/.cache/llamero]\n`);
  assertStringIncludes(out, "[--allow-write=/home/x/.cache/llamero]\n");
  assertStringIncludes(out, `[--allow-ffi=${m.checkout}/target/release/libllamero.so]\n`);
  assertEquals(/\[(-A|--allow-all|--allow-[a-z]+)\]/.test(out), false);
});

machine("files that flags name may be read, wherever they are, and the one to score", async (m) => {
  m.stub("deno", DENO("2.9.6"));
  const read = async (...args: string[]) => /\[--allow-read=(.*)\]/.exec((await m.run(args, LIB)).out)?.[1];
  const own = `${m.checkout},/home/x/.cache/llamero`;
  assertEquals(await read("chat", "--chat-template", "mine.jinja", "hi"), `${own},${m.root}/mine.jinja`);
  assertEquals(await read("serve", "--chat-template=/a b/c=d.json"), `${own},/a b/c=d.json`);
  assertEquals(await read("pull", "--chat-template", "x"), own);
  const serve = ["serve", "--keys", "k", "--tls-cert=/c", "--tls-key", "/p q"];
  assertEquals(await read(...serve), `${own},${m.root}/k,/c,/p q`);
  m.stub("book", "text");
  assertEquals(await read("perplexity", `${m.root}/bin/book`, "--window", "9"), `${own},${m.root}/bin/book`);
  const comma = await m.run(["chat", "--chat-template", "a,b"], LIB);
  assertEquals([comma.code, comma.out], [1, ""]);
  assertMatch(comma.err, /expected no comma in paths of .* the files that flags name/);
});

machine("the address of --host may be listened on", async (m) => {
  m.stub("deno", DENO("2.9.6"));
  const net = async (...args: string[]) => /\[--allow-net=(.*)\]/.exec((await m.run(args, LIB)).out)?.[1];
  const own = await net("serve");
  for (const [host, written] of [["0.0.0.0", "0.0.0.0"], ["::", "[::]"], ["[::]", "[::]"], ["me.test", "me.test"]]) {
    assertEquals(await net("serve", "--host", host!), `${own},${written}`);
  }
  assertEquals(await net("pull", "--host", "0.0.0.0"), own);
});

machine("the file of --store may be read and written, the host of its URL may be reached with its token", async (m) => {
  m.stub("deno", DENO("2.9.6"));
  const permitted = async (...args: string[]) => {
    const { out } = await m.run(["serve", ...args], LIB);
    return ["read", "write", "net", "env"].map((what) => new RegExp(`\\[--allow-${what}=(.*)\\]\n`).exec(out)![1]!);
  };
  const [read, write, net, env] = await permitted();
  assertEquals(await permitted("--store", "memory"), [read, write, net, env]);
  for (const args of [["--store", "my conversations"], [`--store=${m.root}/my conversations`]]) {
    const file = `${m.root}/my conversations`;
    assertEquals(await permitted(...args), [`${read},${file}`, `${write},${file}`, net, env]);
  }
  for (const url of ["https://kv.example:8443/connect", "http://kv.example:8443", "https://kv.example:8443?x"]) {
    const kv = [read, write, `${net},kv.example:8443`, `${env},DENO_KV_ACCESS_TOKEN`];
    assertEquals(await permitted("--store", url), kv);
  }
  assertEquals(/DENO_KV|,kv\.example/.test((await m.run(["pull", "--store", "http://kv.example"], LIB)).out), false);
  assertEquals((await m.run(["serve", "--store", "a,b"], LIB)).code, 1);
});

machine("it is found through symbolic links, and folders may be given relative to the caller", async (m) => {
  m.stub("deno", DENO("3.0.1"));
  Deno.symlinkSync("my checkout/scripts/llamero", join(m.root, "one"));
  Deno.symlinkSync(join(m.root, "one"), join(m.root, "two"));
  Deno.mkdirSync(join(m.root, "away"));
  const env = { script: "./two", LLAMERO_CACHE: "cache", LLAMERO_LIB: "lib.so", LLAMERO_CWD: "./away" };
  const { out } = await m.run(["chat"], env);
  assertStringIncludes(out, `deno in ${m.root}/away\nLIB ${m.root}/away/lib.so\nCACHE ${m.root}/away/cache\n`);
  assertStringIncludes(out, `[${m.checkout}/src/main.ts]\n[chat]\n`);
});

machine(
  "the core is built when it is missing or older than a source, and not for words that do not need it",
  async (m) => {
    m.stub("deno", DENO("2.10.0")).stub("cargo", CARGO);
    const build = `cargo build --release -p llamero-core --locked in ${m.checkout}\n`;
    for (const args of [[], ["help"], ["pull"], ["version"], ["chat", "--help"], ["test", "--list"]]) {
      assertEquals((await m.run(args)).err, "", args.join(" "));
    }
    const first = await m.run(["chat"]);
    assertMatch(first.err, /^llamero: building the Rust core \(once; a few minutes\)\n/);
    assertStringIncludes(first.err, build);
    assertMatch(first.err, /llamero: built the Rust core in \d+ s\n$/);
    assertEquals((await m.run(["serve"])).err, "");
    m.touch("core-rs/src/new.rs", 10);
    assertMatch((await m.run(["bench"])).err, /^llamero: the Rust core is older than its sources: building it again\n/);
  },
);

machine("bench alone may start any program: itself, a neighbour, a python", async (m) => {
  m.stub("deno", DENO("2.9.6"));
  assertStringIncludes((await m.run(["chat"], LIB)).out, "[--allow-run=python3,python]\n");
  assertStringIncludes((await m.run(["bench"], LIB)).out, "[--allow-run]\n");
  // A turn reads its own peak of memory, for which Deno wants every permission.
  const { out } = await m.run(["bench", "--turn", "decode"], LIB);
  assertStringIncludes(out, "[-A]\n");
  assertEquals(out.includes("[--allow-"), false);
});

machine("--engine wasm builds and permits WebAssembly instead of the library", async (m) => {
  m.stub("deno", DENO_THAT_BUILDS);
  for (const args of [["chat", "--engine", "wasm"], ["serve", "--engine=wasm"]]) {
    const { code, out, err } = await m.run(args);
    assertEquals([code, err.includes("building the core as WebAssembly (once")], [7, args[0] === "chat"]);
    assertStringIncludes(out, "[--allow-read]\n");
    assertStringIncludes(out, "[--deny-ffi]\n");
    assertEquals(out.includes("[--allow-ffi="), false);
  }
  assertStringIncludes((await m.run(["chat", "--engine", "wasm", "-h"])).out, "[--allow-read=");
  m.touch("core-rs/src/new.rs", 10);
  assertStringIncludes((await m.run(["chat", "--engine", "wasm"])).err, "deno builds WebAssembly in");
  const ready = await m.run(["chat", "--engine", "wasm"], { LLAMERO_WASM: "/ready" });
  assertEquals([ready.err, ready.out.includes("WASM /ready\n")], ["", true]);
});

machine("bench --wasm builds both, and a failed build of WebAssembly is said", async (m) => {
  m.stub("deno", DENO_THAT_BUILDS).stub("cargo", CARGO);
  const { out, err } = await m.run(["bench", "--wasm"]);
  assertStringIncludes(err, "llamero: built the Rust core in");
  assertStringIncludes(err, "deno builds WebAssembly in");
  assertStringIncludes(out, "[--allow-read]\n");
  assertStringIncludes(out, `[--allow-ffi=${m.checkout}/target/release/libllamero.so]\n`);
  m.touch("core-rs/src/new.rs", 10);
  const failed = await m.run(["chat", "--engine", "wasm"], { WASM_FAILS: "1" });
  assertEquals([failed.code, failed.out], [1, ""]);
  assertMatch(failed.err, /llamero: building the core as WebAssembly failed \(see above\)\n$/);
});

machine("without cargo, WebAssembly that is there is enough unless native was asked for", async (m) => {
  m.stub("deno", DENO_THAT_BUILDS);
  await m.run(["chat", "--engine", "wasm"]);
  const { code, out, err } = await m.run(["chat"]);
  assertEquals([code, err, out.includes("[--allow-read]\n")], [7, "", true]);
  assertStringIncludes(out, "[--allow-ffi=");
  for (const args of [["chat", "--engine", "native"], ["bench"], ["test"]]) {
    assertMatch((await m.run(args)).err, /needs cargo, which is not on PATH/);
  }
});

machine("CARGO_TARGET_DIR is where the core is built and loaded from", async (m) => {
  m.stub("deno", DENO("2.9.6")).stub("cargo", CARGO);
  const { out } = await m.run(["chat"], { CARGO_TARGET_DIR: "elsewhere" });
  assertStringIncludes(out, `LIB ${m.root}/elsewhere/release/libllamero.so\n`);
  assertEquals(exists(join(m.root, "elsewhere/release/libllamero.so")), true);
});

machine("a failed build is said, with its likely reason, and tried again", async (m) => {
  m.stub("deno", DENO("2.9.6"));
  assertMatch((await m.run(["chat"])).err, /^llamero: building the Rust core needs cargo, which is not on PATH/);
  m.stub("cargo", CARGO);
  const bare = await m.run(["chat"], { CARGO_FAILS: "1" });
  assertEquals(bare.code, 1);
  assertStringIncludes(bare.err, "it needs a C compiler as linker, and cc is not on PATH");
  m.stub("cc", "#!/bin/sh\n");
  assertStringIncludes((await m.run(["chat"], { CARGO_FAILS: "1" })).err, "building the Rust core failed (see above)");
  assertStringIncludes((await m.run(["chat"])).err, "llamero: built the Rust core in");
});

machine("test runs the test script with all permissions", async (m) => {
  m.stub("deno", DENO("2.9.6")).stub("cargo", CARGO);
  const { out } = await m.run(["test", "--only", "rooms"]);
  assertStringIncludes(
    out,
    `[-A]\n[--config]\n[${m.checkout}/deno.json]\n[${m.checkout}/scripts/test.ts]\n[--only]\n[rooms]\n`,
  );
});

machine("without a fitting Deno, npm installs the pinned one, once, also for two callers", async (m) => {
  m.stub("deno", DENO("2.8.9")).stub("npm", NPM);
  const both = await Promise.all([m.run(["help"]), m.run(["help"])]);
  assertEquals(both.map(({ code }) => code), [7, 7]);
  const said = both.map(({ err }) => err).join("");
  assertEquals(said.split("installing Deno 2.9.6 from npm into .deno/ (once)").length, 2);
  assertStringIncludes(said, "another process is installing Deno; waiting for it");
  assertStringIncludes(said, "--ignore-scripts");
  assertEquals(Array.from(Deno.readDirSync(join(m.checkout, ".deno")), ({ name }) => name), ["2.9.6"]);
  assertEquals((await m.run(["help"])).err, "");
});

machine("the lock of a dead installer is taken over", async (m) => {
  m.stub("npm", NPM);
  const dead = new Deno.Command("/bin/sh", { args: ["-c", "exit"] }).spawn();
  await dead.status;
  Deno.mkdirSync(join(m.checkout, ".deno/lock"), { recursive: true });
  Deno.writeTextFileSync(join(m.checkout, ".deno/lock/pid"), `${dead.pid}\n`);
  const { code, err } = await m.run(["help"]);
  assertEquals([code, err.includes("waiting")], [7, false]);
  assertEquals(exists(join(m.checkout, ".deno/lock")), false);
});

machine("what cannot be had is said", async (m) => {
  const check = async (expected: string) => {
    const { code, err } = await m.run(["help"]);
    assertEquals([code, err.trimEnd().split("\n").at(-1)], [1, `llamero: ${expected}`]);
    assertEquals(exists(join(m.checkout, ".deno/lock")), false);
  };
  await check("expected Deno 2.9 or newer, or npm to install it with; found neither on PATH");
  m.stub("npm", "#!/bin/sh\nexit 1\n");
  await check("installing Deno with npm failed (see above); is the network there?");
  m.stub("npm", "#!/bin/sh\nexit 0\n");
  assertMatch((await m.run(["help"])).err, /npm has no Deno 2\.9\.6 for this platform \(.+\)\n$/);
});
