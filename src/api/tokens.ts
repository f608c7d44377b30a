/**
 * Endpoints that show how text becomes tokens, without generating: `/tokenize`, `/detokenize`, `/apply-template` and
 * `/api/v1/token_check`.
 *
 * The prompt of `/apply-template` is one text, so what kept special tokens that a user typed as text is lost in it.
 *
 * @module
 */

import type { Handler } from "hono";
import type { Engine } from "../engine/engine.ts";
import {
  checksSchema,
  detokenizeSchema,
  parseDetokenizeRequest,
  parseTemplateRequest,
  parseTokenChecks,
  parseTokenizeRequest,
  templateSchema,
  type TokenCheck,
  tokenizeSchema,
  type WireTokenCheck,
  wireTokenCheck,
} from "../protocol/mod.ts";
import { rawPrompt, tokensOf } from "../sessions/prompt.ts";
import { readJson } from "./body.ts";
import type { ApiEnv, Route } from "./route.ts";
import type { Service } from "./service.ts";

/** Options of these handlers. */
export interface TokenOptions {
  /** Largest body of a request. */
  maxBodyBytes: number;
}

/** The endpoints. */
export function tokenRoutes(service: Service, options: TokenOptions): Route[] {
  return [
    {
      method: "post",
      path: "/tokenize",
      summary: "The token ids of a text",
      body: tokenizeSchema,
      handler: tokenize(service, options),
    },
    {
      method: "post",
      path: "/detokenize",
      summary: "The text of token ids",
      body: detokenizeSchema,
      handler: detokenize(service, options),
    },
    {
      method: "post",
      path: "/apply-template",
      summary: "The prompt that messages become",
      body: templateSchema,
      handler: applyTemplate(service, options),
    },
    {
      method: "post",
      path: "/api/v1/token_check",
      summary: "Whether prompts and their replies have room",
      body: checksSchema,
      handler: tokenCheck(service, options),
    },
  ];
}

/** The token ids of a text. */
function tokenize(service: Service, { maxBodyBytes }: TokenOptions): Handler<ApiEnv> {
  return async function handleTokenize(c) {
    const { model = service.modelId, text, ...options } = parseTokenizeRequest(await readJson(c, maxBodyBytes));
    service.requireModel(model);
    return c.json({ tokens: await tokensOf(service.engine, text, options) });
  };
}

/** The text of token ids; control tokens are no text. */
function detokenize(service: Service, { maxBodyBytes }: TokenOptions): Handler<ApiEnv> {
  return async function handleDetokenize(c) {
    const { model = service.modelId, tokens } = parseDetokenizeRequest(await readJson(c, maxBodyBytes));
    service.requireModel(model);
    return c.json({ content: await service.engine.detokenize(tokens) });
  };
}

/** The prompt that messages become. */
function applyTemplate(service: Service, { maxBodyBytes }: TokenOptions): Handler<ApiEnv> {
  return async function handleApplyTemplate(c) {
    const { model = service.modelId, messages, ...options } = parseTemplateRequest(await readJson(c, maxBodyBytes));
    service.requireModel(model);
    return c.json({ prompt: service.render(messages, options) });
  };
}

/** Whether prompts and their replies have room; counts are those of `/v1/completions`. */
function tokenCheck(service: Service, { maxBodyBytes }: TokenOptions): Handler<ApiEnv> {
  return async function handleTokenCheck(c) {
    const checks = parseTokenChecks(await readJson(c, maxBodyBytes));
    for (const { model } of checks) service.requireModel(model);
    return c.json({ prompts: await Promise.all(checks.map((check) => checkOne(service.engine, check))) });
  };
}

async function checkOne(engine: Engine, { prompt, maxTokens }: TokenCheck): Promise<WireTokenCheck> {
  const raw = await rawPrompt(engine, prompt);
  const ids = raw.promptIds ?? await engine.tokenize(raw.prompt);
  return wireTokenCheck(maxTokens, ids.length, engine.model.contextLength);
}
