/**
 * Whether two engines choose the same tokens, by the rule of the golden files: one engine leads, the other is fed the
 * leader's words, and where it would go on otherwise there must be a near tie.
 *
 * Engines give text, so the follower runs freely until its text differs; from there it is asked again with the leader's
 * text as part of the prompt.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Engine } from "../src/engine/mod.ts";

/** What is read of a file such as tests/golden/smollm2.greedy.json. */
export interface Golden {
  tolerance: { near_tie: number; differing_steps: number };
  prompts: readonly GoldenPrompt[];
}

/** One prompt with what another implementation chose. */
export interface GoldenPrompt {
  name: string;
  text: string;
  reply: string;
  /** Chosen id, its logit, runner-up, its logit. */
  steps: readonly [id: number, logit: number, second: number, secondLogit: number][];
}

/** Greedy steps that were compared, and those that differed. */
export interface Compared {
  steps: number;
  differing: number;
}

/** All text up to a token. */
interface Said {
  tokens: number;
  text: string;
}

/** Let `follower` follow `leader` for as many steps as the prompt has. */
export async function comparePrompt(
  leader: Engine,
  follower: Engine,
  prompt: GoldenPrompt,
  nearTie: number,
): Promise<Compared> {
  const limit = prompt.steps.length;
  const led = await say(leader, prompt.text, limit);
  let at: Said = { tokens: 0, text: "" };
  for (let differing = 0;; differing++) {
    const followed = await say(follower, prompt.text + at.text, limit - at.tokens, at);
    const rest = led.filter(({ tokens }) => tokens > at.tokens);
    const index = rest.findIndex(({ tokens, text }, i) => followed[i]?.tokens !== tokens || followed[i]?.text !== text);
    if (index < 0) return { steps: limit, differing };
    const [before, other] = [rest[index - 1] ?? at, rest[index]!];
    checkNearTie(prompt, before, other, nearTie);
    at = other;
    // Words that would be cut into other tokens than the leader chose cannot be handed over.
    const whole = (await follower.tokenize([prompt.text + at.text])).length;
    const own = (await follower.tokenize([prompt.text])).length;
    if (whole !== own + at.tokens || at.tokens === limit) return { steps: at.tokens, differing: differing + 1 };
  }
}

/** Margins are known as long as the leader says what the file has. */
function checkNearTie({ name, reply, steps }: GoldenPrompt, before: Said, other: Said, nearTie: number): void {
  if (!reply.startsWith(before.text)) return;
  const margins = steps.slice(before.tokens, other.tokens).map(([, logit, , second]) => logit - second);
  assert.ok(Math.min(...margins) < nearTie, `${name}, step ${before.tokens}: expected a near tie, got ${margins}`);
}

/** The greedy reply: what had been said after each token that completed a character. */
async function say(engine: Engine, prompt: string, maxTokens: number, from?: Said): Promise<Said[]> {
  const said: Said[] = [];
  let { tokens, text } = from ?? { tokens: 0, text: "" };
  const before = tokens;
  const request = { prompt: [prompt], maxTokens, ignoreEos: true, sampling: { temperature: 0 } };
  for await (const event of engine.generate(request)) {
    if (event.type !== "text") continue;
    text += event.text;
    tokens = before + event.completionTokens;
    said.push({ tokens, text });
  }
  return said;
}
