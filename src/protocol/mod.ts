/**
 * Wire shapes, and checks from `unknown` to them. This room stands alone, so that a client can use it without the server.
 *
 * @module
 */

export * from "./anthropic.ts";
export * from "./anthropic_reply.ts";
export * from "./chat.ts";
export * from "./check.ts";
export * from "./completion.ts";
export * from "./conversations.ts";
export * from "./embeddings.ts";
export * from "./error.ts";
export * from "./format.ts";
export * from "./generate.ts";
export * from "./ignored.ts";
export * from "./items.ts";
export * from "./limits.ts";
export * from "./logprobs.ts";
export * from "./message.ts";
export * from "./metadata.ts";
export * from "./models.ts";
export * from "./ollama.ts";
export * from "./ollama_reply.ts";
export * from "./page.ts";
export * from "./response.ts";
export * from "./response_events.ts";
export * from "./response_frames.ts";
export * from "./prompts.ts";
export * from "./responses.ts";
export * from "./sampling.ts";
export * from "./timings.ts";
export * from "./tokens.ts";
export * from "./tools.ts";
export * from "./version.ts";
