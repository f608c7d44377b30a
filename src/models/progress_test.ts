import { assertEquals, assertMatch } from "@std/assert";
import { createReporter, formatBytes, formatDuration, type ProgressStyle } from "./progress.ts";

function setUp(style: ProgressStyle, columns = 100) {
  const clock = { ms: 0 };
  const out: string[] = [];
  const reporter = createReporter({ style, write: (s) => out.push(s), columns: () => columns, now: () => clock.ms });
  return { clock, out, reporter };
}

/** What a terminal shows in the end: each carriage return goes back to the start of the line. */
function screen(out: readonly string[]): string[] {
  return out.join("").split("\n").map((line) => {
    const cells: string[] = [];
    for (const part of line.split("\r")) [...part].forEach((char, i) => cells[i] = char);
    return cells.join("").trimEnd();
  });
}

Deno.test("a bar shows share, rate and time left, and leaves one line", () => {
  const { clock, out, reporter } = setUp("bar");
  using task = reporter.start("downloading toy");
  for (const done of [0, 10e6, 20e6, 30e6]) {
    task.update(done, 100e6);
    clock.ms += 1000;
  }
  assertEquals(screen(out), [
    "downloading toy [#########---------------------] 30 %, 30.0 MB of 100.0 MB, 10.0 MB/s, 7.0 s left",
  ]);
  reporter.note("a remark");
  task.update(100e6, 100e6);
  clock.ms = 8000;
  task.finish();
  task.update(1, 100e6);
  assertEquals(screen(out), ["a remark", "downloading toy: 100.0 MB in 8.0 s (12.5 MB/s)", ""]);
  assertEquals(out.join("").includes("\x1b"), false);
});

Deno.test("a bar redraws at most every 100 ms and fits a narrow terminal", () => {
  const { clock, out, reporter } = setUp("bar", 30);
  using task = reporter.start("downloading toy");
  for (let i = 0; i < 1000; i++, clock.ms++) task.update(i, 1000);
  assertEquals(out.length, 10);
  assertEquals(screen(out).every((line) => line.length < 30), true);
});

Deno.test("an abandoned bar is wiped", () => {
  const { out, reporter } = setUp("bar");
  {
    using task = reporter.start("downloading toy");
    task.update(1, 2);
  }
  assertEquals(screen(out), [""]);
});

Deno.test("lines come once per tenth, rate only when known", () => {
  const { clock, out, reporter } = setUp("lines");
  using task = reporter.start("downloading toy");
  for (let done = 0; done <= 100; done++, clock.ms += 100) task.update(done * 1e6, 100e6);
  task.finish();
  assertEquals(out.length, 11);
  assertEquals(out[0], "downloading toy: 10 %, 10.0 MB of 100.0 MB, 10.0 MB/s, 9.0 s left\n");
  assertEquals(out[9], "downloading toy: 100 %, 100.0 MB of 100.0 MB, 10.0 MB/s\n");
  assertMatch(out[10]!, /^downloading toy: 100\.0 MB in 10 s \(9\.9 MB\/s\)\n$/);
});

Deno.test("a resumed download counts only new bytes, a restarted one begins again", () => {
  const { clock, out, reporter } = setUp("lines");
  using task = reporter.start("toy");
  task.update(90e6, 100e6);
  clock.ms = 1000;
  task.update(95e6, 100e6);
  task.update(0, 100e6);
  clock.ms = 2000;
  task.update(10e6, 100e6);
  task.finish();
  assertEquals(out.map((line) => line.trim()), [
    "toy: 90 %, 90.0 MB of 100.0 MB",
    "toy: 10 %, 10.0 MB of 100.0 MB, 10.0 MB/s, 9.0 s left",
    "toy: 10.0 MB in 2.0 s (5.0 MB/s)",
  ]);
});

Deno.test("short tasks with a delay and all quiet ones say nothing", () => {
  const { clock, out, reporter } = setUp("bar");
  using task = reporter.start("loading", { delayMs: 500, summary: false });
  task.update(1, 2);
  clock.ms = 499;
  task.update(2, 2);
  task.finish();
  const quiet = setUp("quiet");
  using silent = quiet.reporter.start("x");
  silent.update(1, 1);
  silent.finish();
  quiet.reporter.note("y");
  assertEquals([...out, ...quiet.out], []);
});

Deno.test("figures as people say them", () => {
  assertEquals([0, 999, 98_362_432, 4e9].map(formatBytes), ["0.0 B", "999.0 B", "98.4 MB", "4.0 GB"]);
  const seconds = [0.04, 9.949, 9.96, 59.6, 125, 3780];
  assertEquals(seconds.map(formatDuration), ["0.0 s", "9.9 s", "10 s", "1 min 0 s", "2 min 5 s", "1 h 3 min"]);
});
