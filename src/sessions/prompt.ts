/**
 * Prompts without a chat template: a text or token ids, as the parts that the engine takes, and the tokens of a text.
 *
 * Whoever writes a raw prompt writes its template too, so special tokens in its text are recognised, as OpenAI and
 * llama.cpp do it; text stays text only where that is asked for.
 *
 * The engine takes text and no ids. Ids are therefore spelled, and accepted only when the spelling becomes these very ids
 * again; ids that no text becomes, or that lack what the engine puts around every prompt, are refused.
 *
 * @module
 */

import { guardTexts } from "../chat/guard.ts";
import { ChatTemplateError } from "../chat/message.ts";
import { type Engine, EngineError } from "../engine/engine.ts";

/** A text that keeps what follows it from being the first; any that has tokens does. */
const ANCHOR = "x";

/** A prompt that the engine takes. */
export interface RawPrompt {
  parts: string[];
  /** The prompt as a reader sees it, for replies that begin with it. */
  text: string;
}

/** What the engine puts around every prompt. */
interface Frame {
  begin: number[];
  end: number[];
}

/**
 * The parts of a raw prompt. A begin token that a text brings along stands for the one that the engine adds.
 *
 * @throws {EngineError} `unsupported` for ids that no text becomes.
 */
export async function rawPrompt(engine: Engine, prompt: string | readonly number[]): Promise<RawPrompt> {
  if (typeof prompt !== "string") return await spell(engine, prompt);
  const { addsBos, bosToken } = engine.model;
  const doubled = addsBos && bosToken && prompt.startsWith(bosToken);
  return { parts: [doubled ? prompt.slice(bosToken.length) : prompt], text: prompt };
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
  const ids = await engine.tokenize(options.parseSpecial ? [text] : plainParts(engine, [text]).flat());
  if (options.addSpecial) return ids;
  const { begin, end } = await frameOf(engine);
  return ids.slice(begin.length, ids.length - end.length);
}

async function spell(engine: Engine, ids: readonly number[]): Promise<RawPrompt> {
  const { contextLength } = engine.model;
  if (ids.length >= contextLength) {
    const message = `checking prompt: expected fewer than ${contextLength} tokens, got ${ids.length}`;
    throw new EngineError("context_overflow", message);
  }
  const inner = unframe(ids, await frameOf(engine));
  let most = 0;
  for (const textOf of await spellings(engine)) {
    const parts = await partsOf(engine, inner, textOf);
    const again = await engine.tokenize(parts);
    const same = ids.findIndex((id, index) => id !== again[index]);
    if (same < 0 && again.length === ids.length) return { parts, text: parts.join("") };
    most = Math.max(most, same < 0 ? ids.length : same);
  }
  throw new EngineError(
    "unsupported",
    `spelling token ids: expected ids that their own text becomes again, got others after the first ${most}`,
  );
}

/** The text of ids that follow `before` others. */
type TextOf = (ids: readonly number[], before: number) => Promise<string>;

/**
 * The texts that ids may stand for. Some vocabularies put a space in front of a text and take it away again; whether
 * they do so after a special token as well is not told, so both are tried.
 */
async function spellings(engine: Engine): Promise<TextOf[]> {
  const anchor = await tokensOf(engine, ANCHOR, { addSpecial: false, parseSpecial: false });
  const { length } = await engine.detokenize(anchor);
  const alone: TextOf = (ids) => engine.detokenize(ids);
  const inside: TextOf = async (ids, before) =>
    before === 0 ? await alone(ids, before) : (await engine.detokenize([...anchor, ...ids])).slice(length);
  return [alone, inside];
}

async function frameOf(engine: Engine): Promise<Frame> {
  const around = await engine.tokenize([""]);
  const begins = engine.model.addsBos ? 1 : 0;
  return { begin: around.slice(0, begins), end: around.slice(begins) };
}

function unframe(ids: readonly number[], { begin, end }: Frame): readonly number[] {
  const framed = begin.every((id, index) => ids[index] === id) &&
    end.every((id, index) => ids.at(index - end.length) === id);
  if (framed && ids.length >= begin.length + end.length) return ids.slice(begin.length, ids.length - end.length);
  const shape = [...begin.map(String), "...", ...end.map(String)].join(" ");
  const message = `spelling token ids: expected ${shape}, as the model wants these around every prompt, got others`;
  throw new EngineError("unsupported", message);
}

/** Each special token as a part of its own, and the texts between them in parts that have none. */
async function partsOf(engine: Engine, ids: readonly number[], textOf: TextOf): Promise<string[]> {
  const specials = await specialsOf(engine);
  const found: string[] = [];
  const texts: string[] = [];
  let from = 0;
  for (let at = 0; at <= ids.length; at++) {
    const special = at < ids.length ? specials.get(ids[at]!) : "";
    if (special === undefined) continue;
    texts.push(from < at ? await textOf(ids.slice(from, at), from) : "");
    found.push(special);
    from = at + 1;
  }
  return plainParts(engine, texts).flatMap((parts, index) => [...parts, found[index]!]).filter((part) => part !== "");
}

/** The text of each special token by its id. */
async function specialsOf(engine: Engine): Promise<Map<number, string>> {
  const texts = engine.model.specialTokens.filter((text) => text !== "");
  const { begin } = await frameOf(engine);
  const ids = (await engine.tokenize(texts)).slice(begin.length);
  return new Map(texts.map((text, index) => [ids[index]!, text]));
}

/** Each of the texts in parts in which no special token is recognised. */
function plainParts(engine: Engine, texts: readonly string[]): string[][] {
  try {
    const { value, split } = guardTexts(texts, engine.model.specialTokens);
    return value.map(split);
  } catch (error) {
    if (!(error instanceof ChatTemplateError)) throw error;
    throw new EngineError("unsupported", error.message, { cause: error });
  }
}
