/**
 * The HTTP application as one function of its parts: tests hand in a fake engine and a fake clock, `main.ts` real ones.
 *
 * Absent here on purpose: listening, files, flags, and every runtime's own names. The WebSocket upgrade, which each runtime
 * does its own way, is handed in.
 *
 * @module
 */

import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context, Handler } from "hono";
import { createMiddleware } from "hono/factory";
import { requestId } from "hono/request-id";
import { matchedRoutes } from "hono/route";
import type { UpgradeWebSocket } from "hono/ws";
import type { ChatTemplate } from "../chat/template.ts";
import type { Engine } from "../engine/engine.ts";
import { type Item, wireModel, wirePage } from "../protocol/mod.ts";
import { Conversations } from "../sessions/conversations.ts";
import { MemoryStore } from "../sessions/memory_store.ts";
import { Responses } from "../sessions/responses.ts";
import type { Store } from "../sessions/store.ts";
import type { TurnDefaults } from "../sessions/turn.ts";
import { anthropicRequestId, anthropicRoutes } from "./anthropic.ts";
import { BODY_TIMEOUT_MS, MAX_BODY_BYTES } from "./body.ts";
import { pages, safeHeaders } from "./browsers.ts";
import { STRANGER } from "./caller.ts";
import { chatRoutes } from "./completions.ts";
import { conversationRoutes } from "./conversations.ts";
import { type ApiEnv, mount, openApiDocument, type Route } from "./route.ts";
import { docsRoutes } from "./docs.ts";
import { errorBody } from "./dialects.ts";
import { embeddingRoutes } from "./embeddings.ts";
import { ApiError } from "./errors.ts";
import { generateRoutes } from "./generate.ts";
import { guard, type GuardOptions } from "./guard.ts";
import type { KeyRing } from "./keys.ts";
import type { RequestLimits } from "./limits.ts";
import { type Log, logFailures } from "./log.ts";
import { ollamaRoutes } from "./ollama.ts";
import type { Observer } from "./observe.ts";
import { recognise } from "./recognise.ts";
import { responseRoutes } from "./responses.ts";
import { Service, stopping } from "./service.ts";
import { completionRoutes } from "./text_completions.ts";
import { tokenRoutes } from "./tokens.ts";
import type { Authenticate, SocketLimits } from "./socket_session.ts";
import { socketRoutes } from "./ws.ts";

/** Default of `AppOptions.startAfterMs`: the engine answers between two pieces of work, so well below a second. */
export const START_AFTER_MS = 2000;
/** Default of `AppOptions.headAfterMs`: a short whole reply keeps its length header, nobody notices the wait. */
export const HEAD_AFTER_MS = 50;
/** Default of `AppOptions.keepAliveMs`: half of what the stricter proxies allow. */
export const KEEP_ALIVE_MS = 15_000;

/** Longest URL: ids and a few parameters; everything else comes in bodies. */
export const MAX_URL_LENGTH = 8192;

/** Methods by their names; anybody may make up others, and observers must not count each. */
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

/** What a server that stops still says of itself. */
const OPEN_WHILE_CLOSING = ["/healthz", "/readyz", "/metrics"];

/** The parts of an application. */
export interface AppOptions extends GuardOptions {
  /** What generates. */
  engine: Engine;
  /** What turns messages into a prompt. */
  template: ChatTemplate;
  /** Sampling and length for what requests leave open; what these leave open as well, the model decides. */
  defaults?: TurnDefaults;
  /** The name under which the model is served. */
  modelId: string;
  /** Other names that requests may use for it, such as the file's. */
  aliases?: readonly string[];
  /** How the runtime upgrades to a WebSocket, such as `upgradeWebSocket` of `hono/deno`; without it there is no socket. */
  upgradeWebSocket?: UpgradeWebSocket<WebSocket>;
  /** Milliseconds since 1970. Default `Date.now`. */
  clock?: () => number;
  /** A new unguessable id, letters and digits. Default: 128 random bits. */
  newId?: () => string;
  /** Where conversations and responses are kept; whoever opened it closes it. Default: in memory. */
  store?: Store;
  /** Takes what an operator may want to know. Default: failures on standard error. */
  log?: Log;
  /** Whether prompts and replies are logged. */
  logPrompts?: boolean;
  /** Largest request body in bytes. */
  maxBodyBytes?: number;
  /** Longest time in which a request's body has to come, in milliseconds. */
  bodyTimeoutMs?: number;
  /** Longest wait for the engine to take a request on, in milliseconds, before its status is decided. */
  startAfterMs?: number;
  /** Longest wait for a whole reply, in milliseconds, before its head is sent. */
  headAfterMs?: number;
  /** Longest silence of a reply's body in milliseconds. */
  keepAliveMs?: number;
  /** Whoever follows replies and requests, such as `Metrics`. */
  observers?: readonly Observer[];
  /** Endpoints besides those of this application, such as that of `Metrics`. */
  routes?: readonly Route[];
  /** Aborted when the server stops: requests are then refused, and replies go on until the engine is closed. */
  closing?: AbortSignal;
  /** Told of work that may go on when its request is over, such as keeping a response. */
  onWork?: (work: Promise<unknown>) => void;
  /** Who may use the server; missing: everybody. */
  keys?: KeyRing;
  /** What every request may take. */
  requestLimits?: RequestLimits;
  /** Limits of each WebSocket. */
  socketLimits?: SocketLimits;
}

/** An application that serves one model. */
export function createApp(options: AppOptions): OpenAPIHono<ApiEnv> {
  const service = serviceOf(options);
  const { startAfterMs = START_AFTER_MS, headAfterMs = HEAD_AFTER_MS, keepAliveMs = KEEP_ALIVE_MS } = options;
  const limits = { maxBodyBytes: options.maxBodyBytes ?? MAX_BODY_BYTES, startAfterMs, headAfterMs, keepAliveMs };
  const app = new OpenAPIHono<ApiEnv>();
  app.onError((error, c) => sendError(c, service, error));
  app.notFound((c) => sendError(c, service, notFound(c)));
  const { clock, newId, modelId, store } = service;
  const conversations = new Conversations<Item>(store, { clock, newId });
  const responses = new Responses({ store, conversations, modelId, newId, clock, onWork: options.onWork });
  const routes: Route[] = [
    ...docsRoutes(() => openApiDocument(app)),
    ...statusRoutes(service),
    ...chatRoutes(service, limits),
    ...completionRoutes(service, limits),
    ...anthropicRoutes(service, limits),
    ...embeddingRoutes(service, limits),
    ...tokenRoutes(service, limits),
    ...ollamaRoutes(service, limits),
    ...generateRoutes(service, limits),
    ...conversationRoutes({ ...limits, conversations, newId }),
    ...responseRoutes(service, responses, limits),
    ...socketRoutes(service, responses, {
      upgrade: options.upgradeWebSocket,
      authenticate: keyCheck({ keys: service.keys, serves: (model) => service.serves(model) }),
      limits: options.socketLimits,
    }),
    ...options.routes ?? [],
  ];
  const { keys, observers } = options;
  const known = recognise({ keys, routes, serves: (model) => service.serves(model) });
  app.use(requestId());
  app.use("/v1/messages/*", anthropicRequestId);
  app.use(accessLog(service, observers), safeHeaders, bounds(options), guard(options));
  app.use(pages(options.origins), known, admit(service));
  mount(app, routes);
  return app;
}

function serviceOf(options: AppOptions): Service {
  const { clock = Date.now } = options;
  return new Service({
    ...options,
    aliases: options.aliases ?? [],
    clock,
    newId: options.newId ?? randomId,
    store: options.store ?? new MemoryStore({ clock }),
    log: options.log ?? logFailures,
  });
}

/** Whose key it is, if it is one for the served model. */
function keyCheck({ keys, serves }: Pick<Service, "keys" | "serves">): Authenticate | undefined {
  return keys && (async (key) => {
    const caller = await keys.authenticate(key);
    return caller?.models?.some(serves) === false ? undefined : caller;
  });
}

/** 128 random bits in hexadecimal. */
function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Tells the log and observers of each request, and of its status when its head is ready. */
function accessLog({ requests }: Service, observers: readonly Observer[] = []) {
  return createMiddleware<ApiEnv>(async (c, next) => {
    const { method, path } = c.req;
    const origin = { requestId: c.get("requestId"), caller: STRANGER };
    c.set("origin", origin);
    requests.arrived(origin, method, path);
    await next();
    const { status } = c.res;
    requests.answered(origin, status);
    const known = METHODS.has(method) ? method : "other";
    for (const observer of observers) observer.request?.(known, routeOf(c), status);
  });
}

/** What a request may look like before anybody reads it. How long its head may be, the runtime says. */
function bounds({ bodyTimeoutMs = BODY_TIMEOUT_MS }: AppOptions) {
  return createMiddleware<ApiEnv>(async (c, next) => {
    if (c.req.url.length > MAX_URL_LENGTH) throw longUrl();
    c.set("bodyTimeoutMs", bodyTimeoutMs);
    await next();
  });
}

function longUrl(): ApiError {
  return new ApiError(414, { code: "url_too_long", message: `URL: expected at most ${MAX_URL_LENGTH} characters` });
}

/** The row of the table that a request met. */
function routeOf(c: Context): string {
  return matchedRoutes(c).findLast(({ path }) => !path.endsWith("*"))?.path ?? "unknown";
}

/** A server that stops takes on nothing new, and one key no more than its share: said before a request costs anything. */
function admit({ closing, limits }: Service) {
  return createMiddleware<ApiEnv>(async (c, next) => {
    if (closing.aborted && !OPEN_WHILE_CLOSING.includes(c.req.path)) throw stopping();
    for (const [name, value] of Object.entries(limits.request(c.get("caller")))) c.header(name, value);
    await next();
  });
}

function statusRoutes(service: Service): Route[] {
  return [
    { method: "get", path: "/healthz", open: true, summary: "How the server is", handler: health(service) },
    { method: "get", path: "/readyz", open: true, summary: "Whether it can serve", handler: ready(service) },
    { method: "get", path: "/v1/models", summary: "The models that are served", handler: models(service) },
    {
      method: "get",
      path: "/v1/models/:id{.+}",
      summary: "One of the models that are served",
      handler: model(service),
    },
  ];
}

/** Answers at once whatever the engine is doing: `stats` never waits. */
function health({ engine, modelId }: Service): Handler<ApiEnv> {
  return function handleHealth(c) {
    const { healthy, waiting, running, generatedTokens } = engine.stats();
    const stats = { waiting, running, generated_tokens: generatedTokens };
    const body = { status: healthy ? "ok" : "unhealthy", model: modelId, device: engine.model.device, stats };
    return c.json(body, healthy ? 200 : 503);
  };
}

/** Whether requests can be served: for those who only ask where to send them. */
function ready({ engine, closing }: Service): Handler<ApiEnv> {
  return function handleReady(c) {
    const { healthy } = engine.stats();
    const serves = healthy && !closing.aborted;
    return c.json({ status: serves ? "ready" : closing.aborted ? "stopping" : "unavailable" }, serves ? 200 : 503);
  };
}

function models(service: Service): Handler<ApiEnv> {
  const served = wireModel(service.modelId, service.now(), service.engine.model.contextLength);
  return function handleModels(c) {
    return c.json(wirePage([served], false));
  };
}

function model(service: Service): Handler<ApiEnv> {
  const served = wireModel(service.modelId, service.now(), service.engine.model.contextLength);
  return function handleModel(c) {
    service.requireModel(c.req.param("id")!);
    return c.json(served);
  };
}

function notFound(c: Context): ApiError {
  return new ApiError(404, {
    code: "not_found",
    message: `${c.req.method} ${c.req.path}: expected a path of this server, got an unknown one`,
  });
}

function sendError(c: Context<ApiEnv>, service: Service, error: unknown): Response {
  const { status, wire, headers } = service.fail(c.get("requestId"), error);
  return c.json(errorBody(c.req.path, status, wire, c.get("requestId")), status, headers);
}
