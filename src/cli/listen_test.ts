import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { HandlerParts } from "./deps.ts";
import { fileURLToPath } from "node:url";
import { stage, started } from "./test_support.ts";

const ARGS = ["serve", "--model", "toy.gguf", "--port", "0"];
const CERT = fixture("cert.pem");
const KEY = fixture("key.pem");

function fixture(name: string): string {
  return fileURLToPath(new URL(`../../tests/fixtures/tls/${name}`, import.meta.url));
}

async function refused(args: string[], code: number, message: RegExp): Promise<void> {
  const { terminal, opened, run } = stage();
  assertEquals(await run(...ARGS, ...args), code);
  assertMatch(terminal.errors, message);
  assertEquals(opened.length, 0, "found out before a model is loaded");
}

Deno.test("an address that others reach is refused without a key", async () => {
  for (
    const host of ["0.0.0.0", "::", "[::]", "192.168.0.1", "example.com", "localhost.example.com", "127.0.0.1.nip.io"]
  ) {
    await refused(["--host", host], 2, /^llamero: --host: expected keys \(--keys or LLAMERO_API_KEY\) where other/);
  }
});

Deno.test("with a key, or on demand without, others are served, and what that means is said", async () => {
  const cases: [flags: string[], key: string, warnings: RegExp][] = [
    [["--quiet"], "k", /^llamero: keys and prompts travel unencrypted; [^\n]*\n$/],
    [
      ["--quiet", "--insecure-no-key"],
      "",
      /^llamero: WARNING: everybody who reaches 0\.0\.0\.0 can use.*\nllamero: keys and/,
    ],
    [["--quiet", "--tls-cert", CERT, "--tls-key", KEY], "k", /^$/],
  ];
  for (const [flags, key, warnings] of cases) {
    const on = stage();
    on.terminal.environment.LLAMERO_API_KEY = key;
    const { running } = await started(on, ...ARGS, "--host", "0.0.0.0", ...flags);
    on.terminal.signal("SIGTERM");
    assertEquals(await running, 0);
    assertMatch(on.terminal.errors, warnings);
    assertEquals(on.terminal.output.includes('"authorization: Bearer $LLAMERO_API_KEY"'), key !== "");
  }
});

Deno.test("loopback in any spelling needs no key", async () => {
  for (const host of ["127.0.0.1", "127.1.2.3", "localhost"]) {
    const on = stage();
    const { running } = await started(on, ...ARGS, "--host", host, "--quiet");
    on.terminal.signal("SIGTERM");
    assertEquals([await running, on.terminal.errors], [0, ""]);
  }
});

Deno.test("--tls-cert and --tls-key: connections are encrypted, and nothing else is understood", async () => {
  const on = stage({}, { createHandler: () => () => new Response("secret") });
  const { url, running } = await started(on, ...ARGS, "--tls-cert", CERT, "--tls-key", KEY);
  assertMatch(url, /^https:\/\/127\.0\.0\.1:\d+$/);
  using client = Deno.createHttpClient({ caCerts: [await Deno.readTextFile(CERT)] });
  assertEquals(await (await fetch(url, { client })).text(), "secret");
  const plain = await fetch(url.replace("https", "http")).then((response) => response.text(), () => "refused");
  assert(!plain.includes("secret"));
  on.terminal.signal("SIGTERM");
  assertEquals(await running, 0);
});

Deno.test("certificates that are none are a sentence", async () => {
  const both = /^llamero: --tls-cert and --tls-key: expected both or none, got --tls-(cert|key) alone\n$/;
  await refused(["--tls-cert", CERT], 2, both);
  await refused(["--tls-key", KEY], 2, both);
  const pem = /^llamero: listening on 127\.0\.0\.1 port 0 failed: --tls-cert and --tls-key: expected a certificate and/;
  await refused(["--tls-cert", KEY, "--tls-key", CERT], 1, pem);
  await refused(
    ["--tls-cert", CERT, "--tls-key", "nowhere"],
    2,
    /--tls-key: expected a PEM file, got nothing of that name/,
  );
});

Deno.test("--allow-host and --allow-origin reach the application; what is no origin is refused", async () => {
  const parts: HandlerParts[] = [];
  const on = stage({}, {
    createHandler: (given) => {
      parts.push(given);
      return () => new Response();
    },
  });
  const flags = ["--allow-host", "a.example, b.example", "--allow-origin", "https://a.example,http://localhost:3000"];
  const { running } = await started(on, ...ARGS, ...flags);
  on.terminal.signal("SIGTERM");
  await running;
  assertEquals(parts[0]?.hosts, ["127.0.0.1", "a.example", "b.example"]);
  assertEquals(parts[0]?.origins, ["https://a.example", "http://localhost:3000"]);
  for (
    const bad of ["*", "null", "a.example", "https://a.example/", "https://*.a.example", "file:///x", "ws://a.example"]
  ) {
    await refused(["--allow-origin", bad], 2, /^llamero: --allow-origin: expected origins such as https:\/\/chat/);
  }
  assertStringIncludes(on.terminal.errors, "stopped");
});
