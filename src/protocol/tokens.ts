/**
 * The wire of endpoints that show how text becomes tokens: `/tokenize`, `/detokenize` and `/apply-template` in the
 * shapes of llama.cpp's server, and FastChat's token check.
 *
 * Absent here on purpose: OpenAI has none of these; of the originals' fields, those that would need the bytes of a single
 * token (`with_pieces`) are refused.
 *
 * @module
 */

import { z } from "zod";
import { variablesField } from "./chat.ts";
import { check, integerIn, text, wanted } from "./check.ts";
import { messageList, type WireMessage } from "./message.ts";
import { MAX_PROMPT_IDS } from "./prompts.ts";
import { toolsField, toTools, type WireTool } from "./tools.ts";
import { flag, MAX_TOKEN_COUNT, offOnly, tokenId } from "./sampling.ts";

/** Most prompts of one token check. */
export const MAX_TOKEN_CHECKS = 256;

const object = wanted("an object");
/** One model is served, so these requests need not name it. */
const model = text(1, 256).nullish();

/** What the request must be. */
export const tokenizeSchema = z.object({
  model,
  content: text().nullish(),
  prompt: text().nullish(),
  add_special: flag,
  parse_special: flag,
}, object);

const refusedSchema = z.looseObject({ with_pieces: offOnly(z.literal(false), "false") }, object);
const neitherSchema = z.looseObject({ content: text() });

/** A checked request for the tokens of a text. */
export interface TokenizeRequest {
  model?: string;
  text: string;
  /** Whether the tokens that the model wants around every prompt are among them. Default false. */
  addSpecial: boolean;
  /** Whether texts of special tokens become those tokens. Default true. */
  parseSpecial: boolean;
}

/**
 * The request inside a JSON value: `content` as llama.cpp calls it, or `prompt`.
 *
 * @throws {ProtocolError} naming the first field that does not fit.
 */
export function parseTokenizeRequest(value: unknown): TokenizeRequest {
  check(refusedSchema, value, "unsupported_value");
  const { model, content, prompt, add_special, parse_special } = check(tokenizeSchema, value);
  return {
    model: model ?? undefined,
    text: content ?? prompt ?? check(neitherSchema, value).content,
    addSpecial: add_special ?? false,
    parseSpecial: parse_special ?? true,
  };
}

/** What the request must be. */
export const detokenizeSchema = z.object({
  model,
  tokens: z.array(tokenId, wanted(`a list of at most ${MAX_PROMPT_IDS} token ids`)).max(MAX_PROMPT_IDS),
}, object);

/** A checked request for the text of tokens. */
export interface DetokenizeRequest {
  model?: string;
  tokens: number[];
}

/** The request inside a JSON value; throws `ProtocolError` naming the first field that does not fit. */
export function parseDetokenizeRequest(value: unknown): DetokenizeRequest {
  const { model, tokens } = check(detokenizeSchema, value);
  return { model: model ?? undefined, tokens };
}

/** What the request must be. */
export const templateSchema = z.object({
  model,
  messages: messageList(),
  tools: toolsField,
  chat_template_kwargs: variablesField,
}, object);

/** A checked request for the prompt that messages become. */
export interface TemplateRequest {
  model?: string;
  messages: WireMessage[];
  tools: WireTool[];
  /** Variables of the chat template. */
  variables: Record<string, unknown>;
}

/** The request inside a JSON value; throws `ProtocolError` naming the first field that does not fit. */
export function parseTemplateRequest(value: unknown): TemplateRequest {
  const { model, messages, tools, chat_template_kwargs: variables } = check(templateSchema, value);
  return { model: model ?? undefined, messages, tools: toTools(tools), variables: variables ?? {} };
}

/** What the request must be. */
export const checksSchema = z.object({
  prompts: z.array(
    z.object({ model: text(1, 256), prompt: text(), max_tokens: integerIn(0, MAX_TOKEN_COUNT) }, object),
    wanted(`a list of 1 to ${MAX_TOKEN_CHECKS} prompts`),
  ).min(1).max(MAX_TOKEN_CHECKS),
}, object);

/** A prompt whose room is to be checked. */
export interface TokenCheck {
  model: string;
  prompt: string;
  maxTokens: number;
}

/** The prompts inside a JSON value; throws `ProtocolError` naming the first field that does not fit. */
export function parseTokenChecks(value: unknown): TokenCheck[] {
  const { prompts } = check(checksSchema, value);
  return prompts.map(({ model, prompt, max_tokens }) => ({ model, prompt, maxTokens: max_tokens }));
}

/** What a token check says of one prompt, in FastChat's names. */
export interface WireTokenCheck {
  /** Whether the prompt and its new tokens, at least one, have room. */
  fits: boolean;
  tokenCount: number;
  contextLength: number;
}

/** The shape of one checked prompt. */
export function wireTokenCheck(maxTokens: number, tokenCount: number, contextLength: number): WireTokenCheck {
  return { fits: tokenCount + Math.max(maxTokens, 1) <= contextLength, tokenCount, contextLength };
}
