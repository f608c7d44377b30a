/**
 * Prompts as OpenAI's clients send them, in whatever field: a text, token ids, or a list of either kind.
 *
 * @module
 */

import { z } from "zod";
import { check, text, wanted } from "./check.ts";
import { tokenId } from "./sampling.ts";

/** Most token ids of one prompt: more than any context that the engine serves. */
export const MAX_PROMPT_IDS = 2 ** 20;

/** A prompt as it came: a text, or token ids. */
export type WirePrompt = string | number[];

const idPrompt = z.array(tokenId, wanted(`a list of 1 to ${MAX_PROMPT_IDS} token ids`)).min(1).max(MAX_PROMPT_IDS);

/** What a list of prompts is held to. */
export interface PromptLimits {
  /** Most prompts. */
  most: number;
  /** Fewest characters of a text. */
  least?: number;
}

/**
 * Reads prompts in `field`. A refusal speaks of the form that was meant, which is known by what comes first; it is a
 * `ProtocolError`.
 */
export function promptReader(field: string, { most, least = 0 }: PromptLimits): (value: unknown) => WirePrompt[] {
  const kind = least > 0 ? "a well-formed text that is not empty" : "a well-formed text";
  const any = wanted(`${kind}, token ids, or a list of 1 to ${most} of either kind`);
  const one = z.string(any).refine((prompt) => prompt.isWellFormed() && prompt.length >= least, any);
  const listOf = (prompt: z.ZodType<WirePrompt>) => z.array(prompt, any).min(1).max(most);
  const forms = {
    text: one.transform((prompt): WirePrompt[] => [prompt]),
    texts: listOf(least > 0 ? text(least) : text()),
    ids: idPrompt.transform((prompt): WirePrompt[] => [prompt]),
    idLists: listOf(idPrompt),
  } satisfies Record<string, z.ZodType<WirePrompt[]>>;
  const schemas = Object.fromEntries(
    Object.entries(forms).map(([form, schema]) => [form, z.object({ [field]: schema })]),
  );
  return function readPrompts(value) {
    const form = formOf((value as Record<string, unknown>)[field]);
    return (check(schemas[form]!, value) as Record<string, WirePrompt[]>)[field]!;
  };
}

function formOf(prompt: unknown): "text" | "texts" | "ids" | "idLists" {
  if (!Array.isArray(prompt) || prompt.length === 0) return "text";
  const [first] = prompt;
  if (Array.isArray(first)) return "idLists";
  return typeof first === "number" ? "ids" : "texts";
}
