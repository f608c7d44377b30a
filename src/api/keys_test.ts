import assert from "node:assert/strict";
import { isOver, KeyFileError, KeyRing, MAX_KEY_LENGTH, MAX_KEYS, newKey, parseKeys, plainKey } from "./keys.ts";

const DIGEST = "0123456789abcdef".repeat(4);

function refused(file: string, message: RegExp): void {
  assert.throws(() => parseKeys(file), KeyFileError);
  assert.throws(() => parseKeys(file), message);
}

function line(fields: Record<string, unknown>): string {
  return JSON.stringify({ name: "a", sha256: DIGEST, ...fields });
}

Deno.test("a file has a key per line, comments and empty lines; every field is read", () => {
  const [first, second, ...more] = parseKeys(
    `# ours\n\n{"name": "alice", "sha256": "${DIGEST}"}\r\n  ${
      line({
        name: "bob@x-1.y_z",
        models: ["m"],
        requests_per_minute: 60,
        tokens_per_minute: 1000,
        max_running: 2,
        max_waiting: 0,
        expires: "2027-01-31T12:00:00+01:00",
      })
    }`,
  );
  assert.deepEqual([first?.name, first?.digest.toHex(), first?.expiresAt, more], ["alice", DIGEST, undefined, []]);
  const { digest: _, ...bob } = second!;
  assert.deepEqual(bob, {
    name: "bob@x-1.y_z",
    models: ["m"],
    requestsPerMinute: 60,
    tokensPerMinute: 1000,
    maxRunning: 2,
    maxWaiting: 0,
    expiresAt: Date.UTC(2027, 0, 31, 11),
  });
  assert.equal(parseKeys(line({ expires: "2027-01-31" }))[0]!.expiresAt, Date.UTC(2027, 0, 31));
});

Deno.test("a file that is wrong anywhere is refused with the line, so that no key is without its limits", () => {
  const cases: [fields: Record<string, unknown>, message: RegExp][] = [
    [{ request_per_minute: 5 }, /line 1: unknown field request_per_minute$/],
    [{ sha256: undefined }, /line 1: sha256: expected 64 hexadecimal digits/],
    [{ sha256: DIGEST.slice(1) }, /sha256/],
    [{ name: "a b" }, /name: expected 1 to 64 letters/],
    [{ name: "a\nb" }, /name/],
    [{ name: "" }, /name/],
    [{ models: [] }, /models: expected a list of 1 to 64 names/],
    [{ models: "m" }, /models/],
    [{ requests_per_minute: 0 }, /requests_per_minute: expected an integer from 1 to 1000000, got 0$/],
    [{ tokens_per_minute: 2 ** 31 }, /tokens_per_minute/],
    [{ tokens_per_minute: "9" }, /tokens_per_minute/],
    [{ max_running: 0.5 }, /max_running/],
    [{ max_waiting: -1 }, /max_waiting/],
    [{ expires: "tomorrow" }, /expires: expected a date or time such as 2027-01-31/],
    [{ expires: "2027-02-31" }, /expires/],
  ];
  for (const [fields, message] of cases) refused(line(fields), message);
  refused(`${line({})}\nnonsense`, /^KeyFileError: reading keys, line 2: expected an object$/);
  refused("[]", /line 1: expected an object/);
  for (const empty of ["", "\n# nobody\n"]) refused(empty, /expected at least one key, got none$/);
  const many = Array.from({ length: MAX_KEYS + 1 }, (_, i) => line({ name: `k${i}` })).join("\n");
  refused(many, /expected at most 4096 keys, got 4097$/);
});

Deno.test("no refusal repeats what may be a secret", () => {
  const secret = "sk-llamero-secret";
  for (
    const file of [secret, `{"name": "a", "sha256": "${secret}"}`, `{"name": "${secret} ", "sha256": "${DIGEST}"}`]
  ) {
    assert.throws(() => parseKeys(file), (error: Error) => !error.message.includes("secret"));
  }
});

Deno.test("a new key is random, opens the ring that has its line, and nothing else does", async () => {
  const made = await newKey({ name: "alice", requests_per_minute: 60 });
  assert.match(made.key, /^sk-llamero-[\w-]{43}$/);
  assert.notEqual(made.key, (await newKey({ name: "alice" })).key);
  assert.ok(!made.line.includes(made.key.slice(11)));
  const ring = new KeyRing([...parseKeys(made.line), await plainKey("LLAMERO_API_KEY", "plain")]);
  const alice = await ring.authenticate(made.key);
  assert.deepEqual([alice?.id, alice?.name, alice?.limits?.requestsPerMinute], ["key:alice", "alice", 60]);
  assert.equal((await ring.authenticate("plain"))?.name, "LLAMERO_API_KEY");
  const wrong = ["", "Plain", "plain ", made.key.slice(0, -1), `${made.key}x`, "é", "\ud800", "x".repeat(1e6)];
  for (const token of wrong) assert.equal(await ring.authenticate(token), undefined, token.slice(0, 60));
  await assert.rejects(() => newKey({ name: "no spaces" }), KeyFileError);
  await assert.rejects(() => plainKey("LLAMERO_API_KEY", "x".repeat(MAX_KEY_LENGTH + 1)), KeyFileError);
});

Deno.test("a key ends at its date", async () => {
  let now = Date.UTC(2027, 0, 30, 23, 59, 59, 999);
  const { key, line } = await newKey({ name: "a", expires: "2027-01-31" });
  const ring = new KeyRing(parseKeys(line), () => now);
  const caller = await ring.authenticate(key);
  assert.deepEqual([caller?.name, isOver(caller!, now)], ["a", false]);
  now += 1;
  assert.deepEqual([await ring.authenticate(key), isOver(caller!, now)], [undefined, true]);
});

Deno.test("exchanged keys: what stays is not disturbed, what goes is revoked, a name's new key is another", async () => {
  const [a, b, b2] = [await newKey({ name: "a" }), await newKey({ name: "b" }), await newKey({ name: "b" })];
  const ring = new KeyRing(parseKeys(`${a.line}\n${b.line}`));
  const [before, gone] = [await ring.authenticate(a.key), await ring.authenticate(b.key)];
  ring.replace(parseKeys(`${a.line.replace("}", ', "max_running": 1}')}\n${b2.line}`));
  const after = await ring.authenticate(a.key);
  assert.deepEqual([before?.revoked?.aborted, gone?.revoked?.aborted, after?.revoked], [false, true, before?.revoked]);
  assert.deepEqual([after?.limits?.maxRunning, isOver(gone!, 0)], [1, true]);
  assert.equal(await ring.authenticate(b.key), undefined);
  assert.equal((await ring.authenticate(b2.key))?.id, gone?.id);
});

Deno.test("a ring with a name or a key twice is refused, and the old one stays in force", async () => {
  const [a, b] = [await newKey({ name: "a" }), await newKey({ name: "b" })];
  const ring = new KeyRing(parseKeys(a.line));
  const same = a.line.replace('"a"', '"c"');
  for (const file of [`${a.line}\n${b.line.replace('"b"', '"a"')}`, `${a.line}\n${same}`]) {
    assert.throws(() => ring.replace(parseKeys(file)), /expected (names|keys) that differ, got one twice$/);
  }
  assert.equal((await ring.authenticate(a.key))?.revoked?.aborted, false);
});
