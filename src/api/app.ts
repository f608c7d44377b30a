/**
 * The HTTP application as one function of its parts: tests hand in a fake engine and a fake clock, `main.ts` real ones.
 *
 * Absent here on purpose: listening, files, flags, and every runtime's own names. The WebSocket upgrade, which each runtime
 * does its own way, is handed in.
 *
 * @module
 */

import { type Context, type Handler, Hono } from "hono";
import { createMiddleware } from "hono/factory";
import { requestId } from "hono/request-id";
import type { UpgradeWebSocket } from "hono/ws";
import type { ChatTemplate } from "../chat/template.ts";
import type { Engine } from "../engine/engine.ts";
import { VERSION, wireModel, wireModelList } from "../protocol/mod.ts";
import type { TurnDefaults } from "../sessions/turn.ts";
import { MAX_BODY_BYTES } from "./body.ts";
import { type ApiEnv, chatCompletions } from "./completions.ts";
import { errorBody } from "./dialects.ts";
import { ApiError } from "./errors.ts";
import { textGeneration, textGenerationStream } from "./generate.ts";
import { guard, type GuardOptions } from "./guard.ts";
import { type Log, logFailures } from "./log.ts";
import { ollamaChat, ollamaGenerate, ollamaList, ollamaShown } from "./ollama.ts";
import { Service } from "./service.ts";
import { textCompletions } from "./text_completions.ts";
import { applyTemplate, detokenize, tokenCheck, tokenize } from "./tokens.ts";
import { SOCKET_LIMITS, socketEvents, type SocketLimits } from "./ws.ts";

/** Default of `AppOptions.startAfterMs`: the engine answers between two pieces of work, so well below a second. */
export const START_AFTER_MS = 2000;
/** Default of `AppOptions.headAfterMs`: a short whole reply keeps its length header, nobody notices the wait. */
export const HEAD_AFTER_MS = 50;
/** Default of `AppOptions.keepAliveMs`: half of what the stricter proxies allow. */
export const KEEP_ALIVE_MS = 15_000;

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
  /** A new unguessable id, letters and digits. Default: a random UUID without hyphens. */
  newId?: () => string;
  /** Takes what an operator may want to know. Default: failures on standard error. */
  log?: Log;
  /** Largest request body in bytes. */
  maxBodyBytes?: number;
  /** Longest wait for the engine to take a request on, in milliseconds, before its status is decided. */
  startAfterMs?: number;
  /** Longest wait for a whole reply, in milliseconds, before its head is sent. */
  headAfterMs?: number;
  /** Longest silence of a reply's body in milliseconds. */
  keepAliveMs?: number;
  /** Limits of each WebSocket. */
  socketLimits?: SocketLimits;
}

/** An application that serves one model. */
export function createApp(options: AppOptions): Hono<ApiEnv> {
  const service = serviceOf(options);
  const { startAfterMs = START_AFTER_MS, headAfterMs = HEAD_AFTER_MS, keepAliveMs = KEEP_ALIVE_MS } = options;
  const limits = { maxBodyBytes: options.maxBodyBytes ?? MAX_BODY_BYTES, startAfterMs, headAfterMs, keepAliveMs };
  const app = new Hono<ApiEnv>();
  app.onError((error, c) => sendError(c, service, error));
  app.notFound((c) => sendError(c, service, notFound(c)));
  app.use(requestId(), accessLog(service), guard(options));

  app.get("/healthz", health(service)).all(onlyAllow("GET"));
  app.get("/readyz", ready(service)).all(onlyAllow("GET"));
  app.get("/v1/models", models(service)).all(onlyAllow("GET"));
  app.get("/v1/models/:id{.+}", model(service)).all(onlyAllow("GET"));
  app.post("/v1/chat/completions", chatCompletions(service, limits)).all(onlyAllow("POST"));
  app.post("/api/generate", ollamaGenerate(service, limits)).all(onlyAllow("POST"));
  app.post("/api/chat", ollamaChat(service, limits)).all(onlyAllow("POST"));
  app.post("/api/show", ollamaShown(service, limits)).all(onlyAllow("POST"));
  app.get("/api/tags", ollamaList(service)).all(onlyAllow("GET"));
  app.get("/api/version", (c) => c.json({ version: VERSION })).all(onlyAllow("GET"));
  app.post("/generate", textGeneration(service, limits)).all(onlyAllow("POST"));
  app.post("/generate_stream", textGenerationStream(service, limits)).all(onlyAllow("POST"));
  app.post("/v1/completions", textCompletions(service, limits)).all(onlyAllow("POST"));
  app.post("/tokenize", tokenize(service, limits)).all(onlyAllow("POST"));
  app.post("/detokenize", detokenize(service, limits)).all(onlyAllow("POST"));
  app.post("/apply-template", applyTemplate(service, limits)).all(onlyAllow("POST"));
  app.post("/api/v1/token_check", tokenCheck(service, limits)).all(onlyAllow("POST"));
  if (options.upgradeWebSocket) addSocket(app, service, options.upgradeWebSocket, options.socketLimits);
  return app;
}

function serviceOf(options: AppOptions): Service {
  return new Service({
    ...options,
    aliases: options.aliases ?? [],
    clock: options.clock ?? Date.now,
    newId: options.newId ?? (() => crypto.randomUUID().replaceAll("-", "")),
    log: options.log ?? logFailures,
  });
}

function addSocket(
  app: Hono<ApiEnv>,
  service: Service,
  upgrade: UpgradeWebSocket<WebSocket>,
  limits: SocketLimits = SOCKET_LIMITS,
): void {
  app.get("/v1/responses", upgrade((c) => socketEvents(service, c.get("requestId"), limits)), () => {
    throw new ApiError(426, {
      code: "upgrade_required",
      message: "/v1/responses: expected a WebSocket upgrade, got a plain request",
    }, { headers: { upgrade: "websocket" } });
  }).all(onlyAllow("GET"));
}

/** One entry for each request, when its head is ready: a stream may go on long after that. */
function accessLog(service: Service) {
  return createMiddleware<ApiEnv>(async (c, next) => {
    const started = service.clock();
    await next();
    const { method, path } = c.req;
    const ms = service.clock() - started;
    service.log({ event: "request", requestId: c.get("requestId"), method, path, status: c.res.status, ms });
  });
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
function ready({ engine }: Service): Handler<ApiEnv> {
  return function handleReady(c) {
    const { healthy } = engine.stats();
    return c.json({ status: healthy ? "ready" : "unavailable" }, healthy ? 200 : 503);
  };
}

function models(service: Service): Handler<ApiEnv> {
  const served = wireModel(service.modelId, service.now());
  return function handleModels(c) {
    return c.json(wireModelList([served]));
  };
}

function model(service: Service): Handler<ApiEnv> {
  const served = wireModel(service.modelId, service.now());
  return function handleModel(c) {
    service.requireModel(c.req.param("id")!);
    return c.json(served);
  };
}

function onlyAllow(method: "GET" | "POST"): Handler<ApiEnv> {
  return function refuseMethod(c) {
    throw new ApiError(405, {
      code: "method_not_allowed",
      message: `${c.req.path}: expected ${method}, got ${c.req.method}`,
    }, { headers: { allow: method === "GET" ? "GET, HEAD" : method } });
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
  return c.json(errorBody(c.req.path, status, wire), status, headers);
}
