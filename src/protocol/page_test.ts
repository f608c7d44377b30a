import { assertEquals, assertThrows } from "@std/assert";
import { ProtocolError } from "./check.ts";
import { parsePageQuery } from "./page.ts";

Deno.test("a page that nobody describes, and one that is", () => {
  assertEquals(parsePageQuery({}), { order: "desc", limit: 20 });
  const query = { order: "asc", limit: "100", after: "msg_1", "include[]": "x", before: "y" };
  assertEquals(parsePageQuery(query), { order: "asc", limit: 100, after: "msg_1" });
});

Deno.test("what breaks the protocol is refused by name", () => {
  const refused = (query: Record<string, string>, param: string) => {
    const { code, param: named } = assertThrows(() => parsePageQuery(query), ProtocolError);
    assertEquals([code, named], ["invalid_value", param]);
  };
  for (const limit of ["0", "101", "-1", "1.5", "NaN", "", " 1", "1e1", "0x1", "2147483648", "9007199254740992", "∞"]) {
    refused({ limit }, "limit");
  }
  assertEquals(
    assertThrows(() => parsePageQuery({ limit: "0" })).message,
    'limit: expected an integer from 1 to 100, got "0"',
  );
  for (const order of ["", "ASC", "up"]) refused({ order }, "order");
  for (const after of ["", "x".repeat(257), "\ud800"]) refused({ after }, "after");
});
