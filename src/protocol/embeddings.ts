/**
 * Embeddings on the wire: OpenAI's `/v1/embeddings`, and Ollama's `/api/embed` and `/api/embeddings`.
 *
 * Absent here on purpose: how texts are pooled. `user` and Ollama's `options` are ignored, and so is its `truncate`: a text
 * that is too long is refused.
 *
 * @module
 */

import { z } from "zod";
import { check, integerIn, text, wanted } from "./check.ts";
import { promptReader, type WirePrompt } from "./prompts.ts";

/** Most texts of one request, as at OpenAI. */
export const MAX_EMBEDDING_INPUTS = 2048;

const object = wanted("an object");
const dimensions = (most: number) => integerIn(1, most).nullish();

/** What the request must be; `dimensions` is at most the model's own. */
export const embeddingsSchema = z.object({
  model: text(1, 256),
  /** Read by `promptReader`. */
  input: z.unknown().optional(),
  encoding_format: z.enum(["float", "base64"], wanted('"float" or "base64"')).nullish(),
  dimensions: dimensions(Number.MAX_SAFE_INTEGER),
}, object);

/** A checked request for vectors. */
export interface EmbeddingsRequest {
  model: string;
  inputs: WirePrompt[];
  format: "float" | "base64";
  /** How many of a vector's first numbers are wanted; missing: all. */
  dimensions?: number;
}

const openAiInputs = promptReader("input", { most: MAX_EMBEDDING_INPUTS, least: 1 });
const legacyInput = promptReader("prompt", { most: 1, least: 1 });

/**
 * The request inside a JSON value, for a model whose vectors have `length` numbers.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseEmbeddingsRequest(value: unknown, length: number): EmbeddingsRequest {
  const { model, encoding_format } = check(embeddingsSchema, value);
  const { dimensions: wantedLength } = check(z.object({ dimensions: dimensions(length) }), value);
  return {
    model,
    inputs: openAiInputs(value),
    format: encoding_format ?? "float",
    dimensions: wantedLength ?? undefined,
  };
}

/** What the request must be where the path names the model. */
export const namedEmbeddingsSchema = embeddingsSchema.omit({ model: true });

/** What the request must be. */
export const ollamaEmbedSchema = embeddingsSchema.omit({ encoding_format: true });

/** What the request must be. */
export const ollamaEmbeddingsSchema = embeddingsSchema.pick({ model: true }).extend({ prompt: z.unknown().optional() });

/** The request of `/api/embed`; as `parseEmbeddingsRequest`. */
export function parseOllamaEmbed(value: unknown, length: number): EmbeddingsRequest {
  return { ...parseEmbeddingsRequest(value, length), format: "float" };
}

/** The request of the older `/api/embeddings`: one prompt. */
export function parseOllamaEmbeddings(value: unknown): EmbeddingsRequest {
  const { model } = check(ollamaEmbeddingsSchema, value);
  return { model, inputs: legacyInput(value), format: "float" };
}

/** The first `dimensions` numbers of a vector of length 1, at length 1 again. */
export function shortened(values: Float32Array, dimensions = values.length): Float32Array {
  if (dimensions >= values.length) return values;
  const kept = values.subarray(0, dimensions);
  const norm = Math.hypot(...kept) || 1;
  return kept.map((value) => value / norm);
}

/** A vector as clients read it: numbers, or their bytes, little-endian f32. */
export function wireVector(values: Float32Array, format: EmbeddingsRequest["format"]): number[] | string {
  if (format === "float") return [...values];
  const bytes = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, at) => bytes.setFloat32(4 * at, value, true));
  return new Uint8Array(bytes.buffer).toBase64();
}

/** OpenAI's reply. */
export function wireEmbeddings(model: string, vectors: readonly (number[] | string)[], promptTokens: number): object {
  const data = vectors.map((embedding, index) => ({ object: "embedding", index, embedding }));
  return { object: "list", data, model, usage: { prompt_tokens: promptTokens, total_tokens: promptTokens } };
}
