import assert from "node:assert/strict";
import { z } from "zod";
import { docsPage } from "./docs.ts";
import type { ApiDocument } from "./route.ts";
import type { Route } from "./route.ts";
import { done, events, testApp } from "./test_support.ts";

interface Operation {
  operationId: string;
  summary: string;
  parameters: { name: string; in: string }[];
  security?: unknown[];
  requestBody?: { content: { "application/json": { schema: object } } };
  responses: Record<string, { content: object }>;
}

async function operations(): Promise<[place: string, operation: Operation][]> {
  const { app } = testApp(events(done()));
  const document = await (await app.request("/openapi.json")).json();
  return Object.entries<Record<string, Operation>>(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): [string, Operation] => [`${method} ${path}`, operation])
  );
}

Deno.test("openapi.json: each operation has a summary and a name of its own, its path's parameters and its body", async () => {
  const all = await operations();
  assert(all.length >= 20);
  assert.equal(new Set(all.map(([, { operationId }]) => operationId)).size, all.length);
  for (const [place, { operationId, summary, parameters, requestBody }] of all) {
    assert.match(operationId, /^[a-z]+[A-Za-z0-9]+$/, place);
    assert.match(summary, /^[A-Z].*[^.]$/, place);
    const inPath = [...place.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    assert.deepEqual(parameters.filter((each) => each.in === "path").map(({ name }) => name), inPath, place);
    if (!place.startsWith("post ") || place.endsWith("/cancel")) continue;
    assert(Object.keys(requestBody!.content["application/json"].schema).length > 0, place);
  }
});

Deno.test("openapi.json: keys may be sent in two ways, health needs none; what streams says so", async () => {
  const { app } = testApp(events(done()));
  const { components, security } = await (await app.request("/openapi.json")).json();
  assert.deepEqual(security, [{ bearer: [] }, { header: [] }, {}]);
  assert.deepEqual(Object.keys(components.securitySchemes), ["bearer", "header"]);
  const found = Object.fromEntries(await operations());
  assert.deepEqual(found["get /healthz"]!.security, []);
  const media = (place: string) => Object.keys(found[place]!.responses["200"]!.content);
  assert.deepEqual(media("post /v1/messages"), ["application/json", "text/event-stream"]);
  assert.deepEqual(media("get /docs"), ["text/html"]);
  assert.deepEqual(media("post /tokenize"), ["application/json"]);
});

Deno.test("openapi.json: what a query may have stands with what a path must have", async () => {
  const limit = z.string().regex(/^\d+$/).transform(Number).optional();
  const query = z.object({ limit, order: z.enum(["asc", "desc"]).default("desc") });
  const route: Route = { method: "get", path: "/x/:id", summary: "X", query, handler: (c) => c.body(null) };
  const { app } = testApp(events(done()), { routes: [route] });
  const { paths } = await (await app.request("/openapi.json")).json();
  const { parameters } = paths["/x/{id}"].get;
  const seen = parameters.map((each: Record<string, unknown>) => [each.name, each.in, each.required ?? false]);
  assert.deepEqual(seen, [["id", "path", true], ["limit", "query", false], ["order", "query", false]]);
});

Deno.test("GET /docs: a page of all endpoints that fetches nothing and runs nothing", async () => {
  const { app } = testApp(events(done()));
  const response = await app.request("/docs");
  const page = await response.text();
  assert.equal(response.headers.get("content-type"), "text/html; charset=utf-8");
  for (const [place] of await operations()) assert(page.includes(`<code>${place.split(" ")[1]}</code>`), place);
  assert.doesNotMatch(page, /https?:|\/\/|<script|<link|<img|<iframe|@import|url\(|\son\w+=|style=/i);
  assert.deepEqual([...page.matchAll(/\s(?:href|src)="([^"]*)"/g)].map(([, target]) => target), ["openapi.json"]);

  const style = page.match(/<style>(.*?)<\/style>/s)![1]!;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(style));
  const hash = btoa(String.fromCharCode(...new Uint8Array(digest)));
  const policy = response.headers.get("content-security-policy")!;
  assert(policy.startsWith(`default-src 'none'; style-src 'sha256-${hash}';`), policy);
  assert.doesNotMatch(policy, /unsafe|\*|https?:/);
});

Deno.test("the page says what each field may be, down to what is inside", () => {
  const part = {
    type: "object",
    properties: { type: { type: "string", enum: ["text"] }, text: { type: "string" } },
    required: ["type", "text"],
  };
  const content = { anyOf: [{ type: "string" }, { type: "array", items: part, maxItems: 9 }, { type: "null" }] };
  const schema = {
    type: "object",
    properties: {
      temperature: { type: ["number", "null"], minimum: 0, maximum: 2 },
      top_p: { type: "number", exclusiveMinimum: 0, maximum: 1 },
      content,
      any: {},
      off: { type: "null" },
    },
    required: ["content"],
  };
  const document: ApiDocument = {
    info: { title: "<b>", version: "1" },
    paths: {
      "/x/{id}": {
        post: {
          summary: 'a "summary" & more',
          tags: ["T"],
          parameters: [{ name: "id", in: "path", required: true, schema: { type: "string" } }],
          requestBody: { content: { "application/json": { schema } } },
          responses: { 200: { content: { "application/json": {} } } },
        },
      },
    },
  };
  const page = docsPage(document);
  assert(page.includes("<title>&lt;b&gt;</title>") && page.includes("a &quot;summary&quot; &amp; more"));
  const rows = [...page.matchAll(/<tr><td><code>(.*?)<\/code><td>(.*?)<td>(.*)/g)].map((match) => match.slice(1));
  assert.deepEqual(rows, [
    ["id", "path: string", "required"],
    ["temperature", "number from 0 to 2", ""],
    ["top_p", "number above 0 up to 1", ""],
    ["content", "string or list of at most 9: object", "required"],
    ["content[].type", "&quot;text&quot;", "required"],
    ["content[].text", "string", "required"],
    ["any", "anything", ""],
    ["off", "anything", ""],
  ]);
});
