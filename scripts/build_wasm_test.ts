import { assertEquals, assertNotEquals } from "@std/assert";
import { join } from "node:path";
import { fingerprint, MAX_BYTES, MAX_GZIP_BYTES, tooLarge } from "./build_wasm.ts";
import { parsePlan } from "./wasm_toolchain.ts";

Deno.test("sizes up to the limits pass, and each that is above has its sentence", () => {
  assertEquals(tooLarge({ bytes: MAX_BYTES, gzip: MAX_GZIP_BYTES }), []);
  assertEquals(tooLarge({ bytes: MAX_BYTES + 1, gzip: 1 }), [
    "expected a module of at most 1500000 bytes, got 1500001",
  ]);
  assertEquals(tooLarge({ bytes: MAX_BYTES + 1, gzip: MAX_GZIP_BYTES + 1 }).length, 2);
});

Deno.test("the fingerprint follows content, names and files that come or go, and nothing else", async () => {
  const root = await Deno.makeTempDir();
  try {
    await Deno.mkdir(join(root, "src/deep"), { recursive: true });
    const write = (path: string, text: string) => Deno.writeTextFile(join(root, path), text);
    const print = () => fingerprint(root, ["one.txt", "src"]);
    await Promise.all([write("one.txt", "1"), write("src/deep/a.rs", "a"), write("other.txt", "x")]);
    const first = await print();
    await Promise.all([write("one.txt", "1"), write("other.txt", "y")]);
    assertEquals(await print(), first);
    await write("src/deep/a.rs", "b");
    const changed = await print();
    await Deno.rename(join(root, "src/deep/a.rs"), join(root, "src/deep/b.rs"));
    const renamed = await print();
    await write("src/new.rs", "");
    const all = [first, changed, renamed, await print()];
    assertEquals(new Set(all).size, all.length);
    assertNotEquals(first, "");
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("what Debian would install is read from its simulation", () => {
  const output = `Reading package lists...
The following packages will be REMOVED:
  rustc
Remv rustc [1.63.0+dfsg1-2]
Inst libllvm22 (1:22.1.8-1~deb12u1 Debian-Security:12/oldstable-security [amd64])
Inst rustc-web [1.85.0-1] (1.96.0+dfsg1-1~deb12u2 Debian-Security:12/oldstable-security [amd64]) []
Inst rust-web-src (1.96.0+dfsg1-1~deb12u2 Debian-Security:12/oldstable-security [all])
Conf libllvm22 (1:22.1.8-1~deb12u1 Debian-Security:12/oldstable-security [amd64])`;
  assertEquals(parsePlan(output), {
    version: "1.96.0+dfsg1-1~deb12u2",
    packages: ["libllvm22", "rustc-web", "rust-web-src"],
  });
  assertEquals(parsePlan("E: Unable to locate package rustc-web"), undefined);
  assertEquals(parsePlan("Inst rust-web-src (1.96.0 Debian:12 [all])"), undefined);
});
