/**
 * Chat: messages, templates, and how one is chosen.
 *
 * @module
 */

export * from "./message.ts";
export { renderChat } from "./plain_tools.ts";
export * from "./reply.ts";
export * from "./reply_part.ts";
export { MODEL_TEMPLATE, samplePrompt, selectTemplate, TEMPLATE_NAMES } from "./select.ts";
export type * from "./template.ts";
