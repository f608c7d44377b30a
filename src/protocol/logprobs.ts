/**
 * Log probabilities on the wire: the shape of chat completions, that of text completions, and vLLM's of a prompt.
 *
 * @module
 */

/** Most alternatives of each token. */
export const MAX_TOP_LOGPROBS = 20;
/** What stands for the logarithm of 0, which JSON cannot write; OpenAI's value. */
const IMPOSSIBLE = -9999;

/** A token and its log probability. */
export interface TokenFacts {
  id: number;
  token: string;
  bytes: readonly number[];
  logprob: number;
}

/** A chosen token and the most probable ones in its place. */
export interface ChosenFacts extends TokenFacts {
  top: readonly TokenFacts[];
}

/** A token in chat completions. */
export interface WireLogprob {
  token: string;
  logprob: number;
  bytes: number[];
}

/** The tokens of a message. */
export interface ChatLogprobs {
  content: (WireLogprob & { top_logprobs: WireLogprob[] })[];
  refusal: null;
}

/** The shape of chat completions. */
export function chatLogprobs(tokens: readonly ChosenFacts[]): ChatLogprobs {
  return { content: tokens.map((chosen) => ({ ...wire(chosen), top_logprobs: chosen.top.map(wire) })), refusal: null };
}

/** The tokens of a text completion: columns of equal length. */
export interface CompletionLogprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  /** The most probable tokens and the chosen one; null for a first token, which follows nothing. */
  top_logprobs: (Record<string, number> | null)[];
  /** Where each token begins, in code points of the choice's text. */
  text_offset: number[];
}

/** Of a first token only the text is known. */
export type PromptToken = ChosenFacts | { token: string; logprob: null };

/** The shape of text completions, for tokens that begin at `offset`. */
export function completionLogprobs(tokens: readonly PromptToken[], offset: number): CompletionLogprobs {
  let at = offset;
  return {
    tokens: tokens.map(({ token }) => token),
    token_logprobs: tokens.map(({ logprob }) => logprob === null ? null : finite(logprob)),
    top_logprobs: tokens.map((each) => each.logprob === null ? null : topMap(each)),
    text_offset: tokens.map(({ token }) => (at += [...token].length) - [...token].length),
  };
}

/** vLLM's shape of a prompt: by token id, and null for the first token. */
export type PromptLogprobs = (Record<string, { logprob: number; decoded_token: string }> | null)[];

/** The shape of a prompt. */
export function promptLogprobs(tokens: readonly (ChosenFacts | null)[]): PromptLogprobs {
  return tokens.map((chosen) =>
    chosen && Object.fromEntries(
      [...chosen.top, chosen].map(({ id, logprob, token }) => [id, { logprob: finite(logprob), decoded_token: token }]),
    )
  );
}

function topMap(chosen: ChosenFacts): Record<string, number> {
  return Object.fromEntries([...chosen.top, chosen].map(({ token, logprob }) => [token, finite(logprob)]));
}

function wire({ token, logprob, bytes }: TokenFacts): WireLogprob {
  return { token, logprob: finite(logprob), bytes: [...bytes] };
}

function finite(logprob: number): number {
  return Math.max(logprob, IMPOSSIBLE);
}
