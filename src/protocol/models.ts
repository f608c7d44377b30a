/**
 * The list of models on the wire. OpenAI and Anthropic have it under one path, and their clients pass over fields that
 * they do not know: each entry has those of both.
 *
 * @module
 */

/** One served model. */
export interface WireModel {
  id: string;
  object: "model";
  /** Unix time in seconds from which the model has been served. */
  created: number;
  owned_by: string;
  type: "model";
  display_name: string;
  /** The same time as `created`. */
  created_at: string;
  /** Most tokens of prompt and reply together. */
  max_input_tokens: number;
}

/** The shape of one model. */
export function wireModel(id: string, created: number, contextLength: number): WireModel {
  return {
    id,
    object: "model",
    created,
    owned_by: "llamero",
    type: "model",
    display_name: id,
    created_at: new Date(created * 1000).toISOString(),
    max_input_tokens: contextLength,
  };
}
