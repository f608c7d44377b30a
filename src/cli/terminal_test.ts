import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { delay } from "@std/async/delay";
import { faint, MAX_INPUT_BYTES, progressStyle } from "./terminal.ts";
import { FakeTerminal } from "./test_support.ts";

/** Pipe pieces into a process that reads a line and then the rest, and give both its outputs. */
async function piped(...pieces: (string | Uint8Array<ArrayBuffer>)[]): Promise<[out: string, err: string]> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", join(import.meta.dirname!, "terminal_child.ts")],
    env: { LLAMERO_SECRET: "not permitted" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  for (const piece of pieces) {
    // The reader may have given up; what it said is what counts.
    await writer.write(typeof piece === "string" ? new TextEncoder().encode(piece) : piece).catch(() => {});
    await delay(5);
  }
  await writer.close().catch(() => {});
  const { stdout, stderr } = await output;
  return [new TextDecoder().decode(stdout), new TextDecoder().decode(stderr)];
}

const LLAMA = new TextEncoder().encode("🦙");

Deno.test("lines and the rest arrive whole, however the bytes were cut", async () => {
  const check = async (pieces: (string | Uint8Array<ArrayBuffer>)[], line: string | undefined, rest: string) =>
    assertEquals(await piped(...pieces), [JSON.stringify({ line, rest }), ""]);
  await check(["on", "e\r\ntwo\n", LLAMA.slice(0, 2), LLAMA.slice(2)], "one", "two\n🦙");
  await check(["no end"], "no end", "");
  await check([], undefined, "");
});

Deno.test("bytes that are no text, and too many, are refused", async () => {
  const sentence = "reading standard input failed: expected ";
  assertEquals(await piped("a\n", new Uint8Array([0xff])), ["", `${sentence}UTF-8 text, got other bytes`]);
  assertEquals(await piped("a\n", LLAMA.slice(0, 3)), ["", `${sentence}UTF-8 text, got other bytes`]);
  const much = "x".repeat(MAX_INPUT_BYTES + 1);
  assertEquals(await piped("a\n", much), ["", `${sentence}at most ${MAX_INPUT_BYTES} bytes, got more`]);
});

Deno.test("colour and bars only where they are seen and wanted", () => {
  const terminal = new FakeTerminal();
  assertEquals([faint(terminal, "x"), progressStyle(terminal)], ["x", "lines"]);
  terminal.errIsTerminal = true;
  assertEquals([faint(terminal, "x"), progressStyle(terminal), progressStyle(terminal, true)], [
    "\x1b[2mx\x1b[22m",
    "bar",
    "quiet",
  ]);
  terminal.environment.NO_COLOR = "1";
  assertEquals(faint(terminal, "x"), "x");
});
