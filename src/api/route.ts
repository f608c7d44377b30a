/**
 * Endpoints as data: one row says where an endpoint is, what its body must be, whether it needs a key and who answers.
 * The router, the refusal of other methods, the keys and the OpenAPI document all read the same rows.
 *
 * `OpenAPIHono.openapi` was tried and left: its validator reads a body of any size and any type before a handler can say
 * no, and knows one sentence for all that is wrong with it. The document comes from the schemas that the handlers check.
 *
 * @module
 */

import { createRoute, OpenAPIHono } from "@hono/zod-openapi";
import type { Handler } from "hono";
import type { z } from "zod";
import { VERSION } from "../protocol/mod.ts";
import type { Caller, Origin } from "./caller.ts";
import { ApiError } from "./errors.ts";

/** Variables of a request that middleware sets. */
export interface ApiEnv {
  Variables: {
    requestId: string;
    caller: Caller;
    /** The same two in one object, by which observers know the request. */
    origin: Origin;
    /** Longest time in which the body has to come. */
    bodyTimeoutMs: number;
  };
}

/** One endpoint. */
export interface Route {
  method: "get" | "post" | "delete";
  /** As Hono reads it: `/v1/models/:id`. */
  path: string;
  /** Answers without a key, even where keys are set; the caller is then `STRANGER`. */
  open?: true;
  /** One line for the document. */
  summary: string;
  /** What the query of an address may have. */
  query?: z.ZodObject;
  /** What a JSON body must be. */
  body?: z.ZodType;
  /** What comes back, for the document: a media type that is not JSON; of streams JSON is the other choice. */
  replies?: string;
  handler: Handler<ApiEnv>;
}

/** A row as the router names it. */
export function rowName(method: string, path: string): string {
  return `${method.toUpperCase()} ${path}`;
}
/** Where a request may carry its key. */
const KEYS = {
  bearer: { type: "http", scheme: "bearer" },
  header: { type: "apiKey", in: "header", name: "x-api-key" },
} as const;

/** Media types that a request asks for in the place of JSON. */
const STREAMS = ["text/event-stream", "application/x-ndjson"];

/** Lets `app` answer `routes`, and refuse other methods of their paths. */
export function mount(app: OpenAPIHono<ApiEnv>, routes: readonly Route[]): void {
  for (const { method, path, handler } of routes) app.on(method.toUpperCase(), path, handler);
  const methods = Map.groupBy(routes, ({ path }) => path);
  for (const [path, same] of methods) app.all(path, onlyAllow(same.map(({ method }) => method.toUpperCase())));
  for (const route of routes) app.openAPIRegistry.registerPath(described(route));
}

function onlyAllow(methods: readonly string[]): Handler<ApiEnv> {
  const allowed = methods.flatMap((method) => method === "GET" ? ["GET", "HEAD"] : [method]);
  return function refuseMethod(c) {
    throw new ApiError(405, {
      code: "method_not_allowed",
      message: `${c.req.path}: expected ${methods.join(" or ")}, got ${c.req.method}`,
    }, { headers: { allow: allowed.join(", ") } });
  };
}

/** As much of an OpenAPI document as the page of `docs.ts` shows. */
export interface ApiDocument {
  info: { title: string; version: string; description?: string };
  paths?: Record<string, object>;
}

/** The OpenAPI 3.1 document of all that is mounted. */
export function openApiDocument(app: OpenAPIHono<ApiEnv>): ApiDocument {
  for (const [name, scheme] of Object.entries(KEYS)) {
    app.openAPIRegistry.registerComponent("securitySchemes", name, scheme);
  }
  return app.getOpenAPI31Document({
    openapi: "3.1.0",
    // None is enough where no keys are set.
    security: [...Object.keys(KEYS).map((name) => ({ [name]: [] })), {}],
    info: { title: "llamero", version: VERSION, description: "A model of the Llama family as a streaming service." },
  });
}

function described({ method, path, open, summary, query, body, replies }: Route): ReturnType<typeof createRoute> {
  const parameters = [...path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    name: name!,
    in: "path" as const,
    required: true,
    schema: { type: "string" as const },
  }));
  return createRoute({
    method,
    operationId: nameOf(method, path),
    path: path.replace(/:(\w+)(\{[^}]*\})?/g, "{$1}"),
    summary,
    tags: [tagOf(path)],
    parameters,
    ...(open ? { security: [] } : {}),
    request: {
      ...(query ? { query } : {}),
      ...(body ? { body: { required: true, content: { "application/json": { schema: body } } } } : {}),
    },
    responses: {
      200: { description: "Done", content: Object.fromEntries(mediaOf(replies).map((type) => [type, { schema: {} }])) },
      default: { description: "A failure, with its reason", content: { "application/json": { schema: {} } } },
    },
  });
}

function mediaOf(replies = "application/json"): string[] {
  return STREAMS.includes(replies) ? ["application/json", replies] : [replies];
}

/** `getV1ModelsId` for `GET /v1/models/:id`: what generated clients call the operation. */
function nameOf(method: string, path: string): string {
  const words = path.replace(/\{[^}]*\}/g, "").split(/[^a-z0-9]+/i);
  return method + words.map((word) => word.slice(0, 1).toUpperCase() + word.slice(1)).join("");
}

/** Whose API a path belongs to. */
function tagOf(path: string): string {
  if (path.startsWith("/v1/messages")) return "Anthropic";
  if (path.startsWith("/v1/")) return "OpenAI";
  if (path.startsWith("/api/v1/")) return "FastChat";
  if (path.startsWith("/api/")) return "Ollama";
  return path.startsWith("/generate") ? "Hugging Face" : "llamero";
}
