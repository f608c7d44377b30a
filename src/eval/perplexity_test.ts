import assert from "node:assert/strict";
import type { GenerateEvent, GenerateRequest } from "../engine/engine.ts";
import { FakeEngine } from "../engine/fake.ts";
import { perplexity, PerplexityError } from "./perplexity.ts";

/** Says of token number `at` of a window that its log probability is `logprob(at)`. */
class Scoring extends FakeEngine {
  readonly windows: (readonly number[])[] = [];
  readonly #logprob: (at: number) => number;

  constructor(logprob: (at: number) => number, addsBos = true) {
    super({ model: { contextLength: 64, addsBos } });
    this.#logprob = logprob;
  }

  override async *generate({ promptIds = [] }: GenerateRequest): AsyncGenerator<GenerateEvent> {
    this.windows.push(promptIds);
    const token = (id: number, at: number) =>
      at === 0 ? null : { id, token: "", bytes: [], logprob: this.#logprob(at), top: [] };
    yield { type: "started", promptTokens: promptIds.length };
    yield { type: "text", text: "", completionTokens: 1, promptLogprobs: promptIds.map(token) };
  }
}

Deno.test("windows are whole, begin with the begin token, and are scored in their second half", async () => {
  const engine = new Scoring((at) => at >= 5 ? -Math.LN2 : -100);
  const progress: number[] = [];
  const result = await perplexity({
    engine,
    text: "abcdefghijklmnopqrstuvwxyz",
    window: 8,
    onProgress: ({ windows }) => progress.push(windows),
  });
  // 26 letters and a begin token are three windows of 8; of each the tokens 5, 6 and 7 are scored.
  assert.deepEqual(engine.windows.map((window) => window.length), [8, 8, 8]);
  const begin = engine.windows[0]![0];
  assert.ok(engine.windows.every((window) => window[0] === begin));
  assert.deepEqual([result.scored, result.windows, result.ofWindows], [9, 3, 3]);
  assert.ok(Math.abs(result.perplexity - 2) < 1e-12 && result.error < 1e-12, String(result.perplexity));
  assert.deepEqual(progress, [1, 2, 3]);
});

Deno.test("without a begin token the text is cut as it stands; windows can be limited", async () => {
  const engine = new Scoring(() => -1, false);
  const result = await perplexity({ engine, text: "abcdefghijklmnop", window: 4, maxWindows: 2 });
  assert.equal(result.windows, 2);
  assert.deepEqual(engine.windows.flat(), engine.encode(["abcdefgh"]));
  assert.ok(Math.abs(result.perplexity - Math.E) < 1e-12);
});

Deno.test("the error is that of the mean, carried over to the perplexity", async () => {
  const engine = new Scoring((at) => at === 6 ? -1 : -3);
  const result = await perplexity({ engine, text: "abcdefghijklmnopq", window: 8 });
  // Losses 3, 1, 3 twice: mean 7/3, variance 16/15 of six samples.
  const mean = 7 / 3;
  assert.ok(Math.abs(result.perplexity - Math.exp(mean)) < 1e-9);
  assert.ok(Math.abs(result.error - Math.exp(mean) * Math.sqrt(16 / 15 / 6)) < 1e-9);
});

Deno.test("what cannot be measured is refused", async () => {
  const engine = new Scoring(() => -1);
  const measure = (text: string, window: number) => perplexity({ engine, text, window });
  await assert.rejects(measure("abc", 4), (error: unknown) => {
    assert.ok(error instanceof PerplexityError);
    assert.match(error.message, /expected at least 8 tokens, got 4$/);
    return true;
  });
  for (const window of [3, 64]) await assert.rejects(measure("abcdefgh", window), /expected 4 to 63 tokens/);
});
