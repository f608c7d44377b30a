import assert from "node:assert/strict";
import { SessionError } from "./error.ts";
import { StreamLog } from "./stream_log.ts";

function events(from: number, to: number) {
  return Array.from({ length: to - from }, (_, index) => ({ type: "t", json: String(from + index) }));
}

async function rest(log: StreamLog, after: number): Promise<string[]> {
  const all: string[] = [];
  for await (const batch of log.read(after)) all.push(...batch.map(({ json }) => json));
  return all;
}

/** Whether a promise has settled after everything that was due has happened. */
async function settled(promise: Promise<unknown>): Promise<boolean> {
  let over = false;
  promise.then(() => over = true, () => over = true);
  for (let i = 0; i < 20; i++) await Promise.resolve();
  return over;
}

Deno.test("a reader gets what was there and what comes, from wherever it begins", async () => {
  const log = new StreamLog();
  log.push(events(0, 2));
  const all = rest(log, -1);
  const some = rest(log, 1);
  const early = rest(log, 3);
  log.push(events(2, 3));
  await Promise.resolve();
  log.push(events(3, 6));
  log.end();
  assert.deepEqual(await all, ["0", "1", "2", "3", "4", "5"]);
  assert.deepEqual(await some, ["2", "3", "4", "5"]);
  assert.deepEqual(await early, ["4", "5"]);
  assert.deepEqual(await rest(log, 4), ["5"]);
  assert.deepEqual(await rest(log, 5), []);
});

Deno.test("the newest events are kept; who asks for older ones is told, and one event stays however long it is", async () => {
  const log = new StreamLog({ maxLength: 4, maxLag: 1 });
  log.push(events(0, 9));
  assert.equal(log.length, 4);
  log.end();
  assert.deepEqual(await rest(log, 4), ["5", "6", "7", "8"]);
  await assert.rejects(rest(log, 3), (error) => {
    assert(error instanceof SessionError);
    assert.deepEqual([error.code, error.message], ["gone", "starting_after: expected a number from 4, got 3"]);
    return true;
  });
  log.push([{ type: "t", json: "x".repeat(100) }]);
  assert.deepEqual(await rest(log, 8), ["x".repeat(100)]);
});

Deno.test("a reader that does not hold back and falls behind loses its place", async () => {
  const log = new StreamLog({ maxLength: 4, maxLag: 1 });
  log.push(events(0, 1));
  const reading = log.read(-1);
  await reading.next();
  log.push(events(1, 9));
  assert.equal(log.isBehind, false);
  await assert.rejects(reading.next(), { code: "gone" });
});

Deno.test("a reader that holds back: nothing is dropped that it has not taken, and the writer waits", async () => {
  const log = new StreamLog({ maxLength: 4, maxLag: 2 });
  const { signal } = new AbortController();
  const reading = log.read(-1, { holdsBack: true });
  const first = reading.next();
  log.push(events(0, 2));
  assert.equal((await first).value.length, 2);
  assert.equal(log.isBehind, false);
  log.push(events(2, 9));
  assert.equal(log.isBehind, true);
  const waiting = log.caughtUp(signal);
  assert.equal(await settled(waiting), false);
  const { value } = await reading.next();
  assert.deepEqual(value.map(({ json }: { json: string }) => json), ["2", "3", "4", "5", "6", "7", "8"]);
  assert.equal(await settled(waiting), false);
  void reading.next();
  await waiting;
  log.push(events(9, 10));
  assert.equal(log.length, 4);
});

Deno.test("a writer waits no longer when the reader leaves or the wait is aborted", async () => {
  for (const leave of [true, false]) {
    const log = new StreamLog({ maxLength: 4, maxLag: 0 });
    const abort = new AbortController();
    const reading = log.read(-1, { holdsBack: true });
    log.push(events(0, 1));
    await reading.next();
    log.push(events(1, 2));
    const waiting = log.caughtUp(abort.signal);
    assert.equal(await settled(waiting), false);
    if (leave) await reading.return(undefined);
    else abort.abort();
    await waiting;
    assert.equal(log.isBehind, !leave);
  }
});
