/**
 * Texts as vectors: OpenAI's `POST /v1/embeddings`, FastChat's path with the model in it, and Ollama's two.
 *
 * The texts of a request are given to the engine one after the other, so that a large request takes the turns of one. A
 * request whose client leaves ends with the text that is being read.
 *
 * @module
 */

import type { Context, Handler } from "hono";
import {
  type EmbeddingsRequest,
  embeddingsSchema,
  namedEmbeddingsSchema,
  ollamaEmbeddingsSchema,
  ollamaEmbedSchema,
  parseEmbeddingsRequest,
  parseOllamaEmbed,
  parseOllamaEmbeddings,
  shortened,
  wireEmbeddings,
  wireVector,
} from "../protocol/mod.ts";
import { readJson } from "./body.ts";
import { answerWhole, type CompletionOptions } from "./completions.ts";
import type { Origin } from "./caller.ts";
import { originOf } from "./observe.ts";
import type { ApiEnv, Route } from "./route.ts";
import { renamed, type Service } from "./service.ts";
import { LATE, within } from "./timing.ts";

/** Vectors, and the tokens that they were made of. */
interface Vectors {
  vectors: Float32Array[];
  promptTokens: number;
}

/** One of the APIs: how it asks and how it is answered. */
interface Dialect {
  read: (value: unknown, length: number) => EmbeddingsRequest;
  reply: (service: Service, request: EmbeddingsRequest, made: Vectors, ms: number) => object;
  /** The field that has the texts. */
  field: string;
}

const OPENAI: Dialect = {
  read: parseEmbeddingsRequest,
  reply: ({ modelId }, { format }, { vectors, promptTokens }) =>
    wireEmbeddings(modelId, vectors.map((vector) => wireVector(vector, format)), promptTokens),
  field: "input",
};
const OLLAMA: Dialect = {
  read: parseOllamaEmbed,
  reply: ({ modelId }, _request, { vectors, promptTokens }, ms) => ({
    model: modelId,
    embeddings: vectors.map((vector) => [...vector]),
    total_duration: Math.round(ms * 1e6),
    load_duration: 0,
    prompt_eval_count: promptTokens,
  }),
  field: "input",
};
const OLDER_OLLAMA: Dialect = {
  read: parseOllamaEmbeddings,
  reply: (_service, _request, { vectors: [vector] }) => ({ embedding: [...vector!] }),
  field: "prompt",
};

/** The endpoints. */
export function embeddingRoutes(service: Service, options: CompletionOptions): Route[] {
  const row = (path: string, summary: string, body: Route["body"], dialect: Dialect): Route => ({
    method: "post",
    path,
    summary,
    body,
    handler: embeddings(service, dialect, options),
  });
  return [
    row("/v1/embeddings", "Texts as vectors", embeddingsSchema, OPENAI),
    row("/v1/engines/:model{.+}/embeddings", "Texts as vectors of a model in the path", namedEmbeddingsSchema, OPENAI),
    row("/api/embed", "Texts as vectors", ollamaEmbedSchema, OLLAMA),
    row("/api/embeddings", "A text as a vector", ollamaEmbeddingsSchema, OLDER_OLLAMA),
  ];
}

function embeddings(service: Service, dialect: Dialect, options: CompletionOptions): Handler<ApiEnv> {
  const { maxBodyBytes, startAfterMs, headAfterMs, keepAliveMs } = options;
  return async function handleEmbeddings(c) {
    const asked = withModel(c, await readJson(c, maxBodyBytes));
    const request = dialect.read(asked, service.engine.model.embeddingLength);
    if (!service.serves(request.model)) service.requireModel(request.model.replace(/:latest$/, ""));
    const started = service.clock();
    const left = new AbortController();
    const made = embedAll(service, originOf(c), request, left.signal).catch((error) => {
      throw renamed(error, ["messages", "prompt", null], dialect.field);
    });
    const reply = made.then((made) => dialect.reply(service, request, made, service.clock() - started));
    // A refusal keeps its status when it comes soon.
    const early = await within(reply, Math.max(startAfterMs, headAfterMs));
    if (early !== LATE) return c.json(early);
    const fail = (error: unknown) => service.fail(c.get("requestId"), error);
    return await answerWhole(c, reply, { headAfterMs: 0, fail, onCancel: () => left.abort(), keepAliveMs });
  };
}

/** The body with the model of the path, where the path has one. */
function withModel(c: Context<ApiEnv>, value: unknown): unknown {
  const model = c.req.param("model");
  return model === undefined || typeof value !== "object" ? value : { ...value, model };
}

async function embedAll(
  service: Service,
  origin: Origin,
  request: EmbeddingsRequest,
  signal: AbortSignal,
): Promise<Vectors> {
  const made = await service.embed(origin, await service.prompts(request.inputs), signal);
  return {
    vectors: made.map(({ values }) => shortened(values, request.dimensions)),
    promptTokens: made.reduce((sum, { promptTokens }) => sum + promptTokens, 0),
  };
}
