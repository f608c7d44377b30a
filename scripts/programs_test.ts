import { assertEquals, assertThrows } from "@std/assert";
import { lastLine, must, programRunner } from "./programs.ts";

Deno.test("programs are run with both outputs kept, and a missing one is a sentence", async () => {
  const run = programRunner(Deno.cwd());
  const lines: string[] = [];
  const ended = await run(["sh", "-c", "echo out; echo $NO_COLOR; echo err >&2; printf end; exit 4"], (line) => {
    lines.push(line);
  });
  assertEquals([ended.code, lines.toSorted()], [4, ["1", "end", "err", "out"]]);
  assertEquals(await run(["llamero-no-such-program"], () => {}), {
    code: 127,
    output: "running llamero-no-such-program failed: it is not on PATH",
  });
});

Deno.test("a program that failed is an error with what it printed", () => {
  assertEquals(must({ code: 0, output: "a\nb\n" }, "no"), "a\nb\n");
  assertThrows(() => must({ code: 3, output: "a\nb\n" }, "looking failed"), Error, "looking failed (code 3):\na\nb");
  assertEquals(lastLine("a\nb\n"), "b");
});
