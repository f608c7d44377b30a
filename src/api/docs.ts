/**
 * What the endpoints are: `GET /openapi.json` for programs, `GET /docs` for people.
 *
 * The page is written here, once, from the document; it has no script and nothing of it comes from elsewhere, so it works
 * without a network, and its policy can forbid everything but its own style. Swagger UI was weighed and left: 1.7 MB of
 * script, inline styles that a policy would have to allow, and a dependency that reports installations.
 *
 * Absent here: trying requests out. That is what the clients are for.
 *
 * @module
 */

import type { Handler } from "hono";
import type { ApiDocument, ApiEnv, Route } from "./route.ts";

interface Operation {
  summary?: string;
  tags?: string[];
  security?: unknown[];
  parameters?: { name: string; in: string; required?: boolean; schema?: Schema }[];
  requestBody?: { content?: Record<string, { schema?: Schema }> };
  responses?: Record<string, { content?: Record<string, unknown> }>;
}

/** As much of a JSON schema as the page shows. */
interface Schema {
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  items?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  maxItems?: number;
  $ref?: string;
}

const STYLE = `
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 small { font-weight: normal; opacity: .6; }
code { font: .9em ui-monospace, monospace; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; }
summary { cursor: pointer; padding: .5rem .75rem; }
summary code { margin-right: .75rem; }
summary b { display: inline-block; min-width: 4.5rem; font: bold .8em ui-monospace, monospace; }
summary b.post { color: #2a9d5c; }
summary b.get { color: #3a7bd5; }
summary b.delete { color: #d0453a; }
div { padding: 0 .75rem .75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-top: 1px solid var(--soft); }
th { font-weight: 600; }
`;

const FIXED_HEADERS = {
  "content-type": "text/html; charset=utf-8",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** The endpoints; `document` is asked for when one is first used. */
export function docsRoutes(document: () => ApiDocument): Route[] {
  let known: ApiDocument | undefined;
  const once = () => known ??= document();
  return [
    {
      method: "get",
      path: "/openapi.json",
      summary: "The endpoints as an OpenAPI document",
      handler: (c) => c.json(once()),
    },
    {
      method: "get",
      path: "/docs",
      summary: "The endpoints as a page",
      replies: "text/html",
      handler: docs(once),
    },
  ];
}

function docs(document: () => ApiDocument): Handler<ApiEnv> {
  let written: Promise<{ page: string; policy: string }> | undefined;
  return async function handleDocs(c) {
    const { page, policy } = await (written ??= write(document()));
    return c.body(page, 200, { ...FIXED_HEADERS, "content-security-policy": policy });
  };
}

async function write(document: ApiDocument): Promise<{ page: string; policy: string }> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(STYLE)));
  const style = `'sha256-${btoa(String.fromCharCode(...hash))}'`;
  const policy = `default-src 'none'; style-src ${style}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
  return { page: docsPage(document), policy };
}

/** The page of a document. */
export function docsPage({ info, paths = {} }: ApiDocument): string {
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, ...operation as Operation }))
  );
  const sections = Map.groupBy(operations, ({ tags }) => tags?.[0] ?? "");
  const parts = [...sections].map(([tag, those]) => `<h2>${escaped(tag)}</h2>\n${those.map(operationPart).join("\n")}`);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(info.title)}</title>
<style>${STYLE}</style>
<h1>${escaped(info.title)} <small>${escaped(info.version)}</small></h1>
<p>${escaped(info.description ?? "")} For programs: <a href="openapi.json">openapi.json</a>.</p>
${parts.join("\n")}
</html>
`;
}

function operationPart({ path, method, ...operation }: Operation & { path: string; method: string }): string {
  const { summary = "", parameters = [], requestBody, responses = {}, security } = operation;
  const fields = new Map(parameters.map(({ name, in: place, required, schema = {} }) => [
    name,
    { types: new Set([`${place}: ${phrase(schema)}`]), required: required === true },
  ]));
  collect(requestBody?.content?.["application/json"]?.schema ?? {}, "", fields);
  const media = Object.keys(responses["200"]?.content ?? {}).map((type) => `<code>${escaped(type)}</code>`);
  const open = security?.length === 0 ? ", without a key" : "";
  const name = `<b class="${escaped(method)}">${escaped(method.toUpperCase())}</b><code>${escaped(path)}</code>`;
  return `<details><summary>${name}${escaped(summary)}</summary>
<div>${table(fields)}<p>Answers ${media.join(" or ")}${open}.</p></div></details>`;
}

interface Field {
  types: Set<string>;
  required: boolean;
}

function table(fields: ReadonlyMap<string, Field>): string {
  if (fields.size === 0) return "";
  const rows = [...fields].map(([name, { types, required }]) =>
    `<tr><td><code>${escaped(name)}</code><td>${escaped([...types].join(" or "))}<td>${required ? "required" : ""}`
  );
  return `<table><tr><th>field<th>what<th></tr>\n${rows.join("\n")}\n</table>\n`;
}

/** The fields of an object and of what is inside it, each under its path; fields of alternatives share a row. */
function collect(schema: Schema, path: string, fields: Map<string, Field>): void {
  for (const inner of alternatives(schema)) {
    if (inner.items) collect(inner.items, `${path}[]`, fields);
    for (const [name, value] of Object.entries(inner.properties ?? {})) {
      const place = path === "" ? name : `${path}.${name}`;
      const { types } = fields.get(place) ?? { types: new Set() };
      fields.set(place, { types: types.add(phrase(value)), required: inner.required?.includes(name) ?? false });
      collect(value, place, fields);
    }
  }
}

function alternatives(schema: Schema): Schema[] {
  const inner = [...schema.anyOf ?? [], ...schema.oneOf ?? [], ...schema.allOf ?? []];
  return inner.length > 0 ? inner.flatMap(alternatives) : [schema];
}

/** A schema in a few words; null is how clients say "not set", and goes without saying. */
function phrase(schema: Schema): string {
  const said = alternatives(schema).map(one).filter((words) => words !== "null");
  return [...new Set(said)].join(" or ") || "anything";
}

function one({ type, enum: values, const: only, items, $ref, maxItems, ...range }: Schema): string {
  if ($ref !== undefined) return $ref.split("/").at(-1)!;
  if (only !== undefined) return JSON.stringify(only);
  if (values) return values.map((value) => JSON.stringify(value)).join(" or ");
  const types = [type ?? []].flat().filter((name) => name !== "null");
  if (types.length === 0) return type === undefined ? "" : "null";
  if (types[0] !== "array") return types.join(" or ") + between(range);
  const most = maxItems === undefined ? "" : ` of at most ${maxItems}`;
  return `list${most}: ${phrase(items ?? {})}`;
}

function between({ minimum, exclusiveMinimum, maximum }: Schema): string {
  const most = maximum === undefined ? "" : ` up to ${maximum}`;
  if (minimum !== undefined && maximum !== undefined) return ` from ${minimum} to ${maximum}`;
  if (minimum !== undefined) return ` from ${minimum}`;
  return exclusiveMinimum === undefined ? most : ` above ${exclusiveMinimum}${most}`;
}

function escaped(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (char) => names[char]!);
}
