/**
 * Prompts without a chat template: a text or token ids, as the engine takes them, and the tokens of a text.
 *
 * Whoever writes a raw prompt writes its template too, so special tokens in its text are recognised, as OpenAI and
 * llama.cpp do it; text stays text only where that is asked for. Token ids are the prompt as it is: nothing is put around
 * them.
 *
 * @module
 */

import { withoutBos } from "../chat/begin.ts";
import { guardTexts } from "../chat/guard.ts";
import { ChatTemplateError } from "../chat/message.ts";
import { type Engine, EngineError, type GenerateRequest } from "../engine/engine.ts";

/** A prompt that the engine takes. */
export interface RawPrompt extends Pick<GenerateRequest, "prompt" | "promptIds"> {
  /** The prompt as a reader sees it, for replies that begin with it. */
  text: string;
}

/**
 * A raw prompt for the engine. A begin token that a text brings along stands for the one that the engine adds.
 *
 * @throws {EngineError} `invalid_request` for ids that the vocabulary does not have.
 */
export async function rawPrompt(engine: Engine, prompt: string | readonly number[]): Promise<RawPrompt> {
  if (typeof prompt !== "string") return { prompt: [], promptIds: prompt, text: await engine.detokenize(prompt) };
  return { prompt: [withoutBos(prompt, engine.model)], text: prompt };
}

/** How to read a text. */
export interface TokensOptions {
  /** Whether what the engine puts around every prompt is among the tokens. */
  addSpecial: boolean;
  /** Whether texts of special tokens become those tokens. */
  parseSpecial: boolean;
}

/** The tokens of a text. */
export async function tokensOf(engine: Engine, text: string, options: TokensOptions): Promise<number[]> {
  const ids = await engine.tokenize(options.parseSpecial ? [text] : plainParts(engine, text));
  if (options.addSpecial) return ids;
  const around = await engine.tokenize([""]);
  const begins = engine.model.addsBos ? 1 : 0;
  return ids.slice(begins, ids.length - (around.length - begins));
}

/** A text in parts in which no special token is recognised. */
function plainParts(engine: Engine, content: string): string[] {
  try {
    const { value, split } = guardTexts([content], engine.model.specialTokens);
    return split(value[0]!);
  } catch (error) {
    if (!(error instanceof ChatTemplateError)) throw error;
    throw new EngineError("unsupported", error.message, { cause: error });
  }
}
