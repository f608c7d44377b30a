/**
 * Chat: messages, templates, and how one is chosen.
 *
 * @module
 */

export * from "./message.ts";
export { MODEL_TEMPLATE, samplePrompt, selectTemplate, TEMPLATE_NAMES } from "./select.ts";
export type * from "./template.ts";
