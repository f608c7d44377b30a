/**
 * The contract of `Engine`: one suite that every implementation passes, so that engines cannot drift apart unnoticed.
 * It knows nothing of the model: texts that it expects come from a first greedy run of the same engine.
 *
 * Used from test files only.
 *
 * @module
 */

import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import {
  type ChosenLogprob,
  type DoneEvent,
  type EmbedRequest,
  type Engine,
  EngineError,
  type EngineErrorCode,
  type GenerateEvent,
  type GenerateOptions,
  type GenerateRequest,
  SAMPLERS,
  type SamplingParams,
  type TextEvent,
} from "./engine.ts";

/** Options of {@linkcode engineContract}. */
export interface ContractOptions {
  /** Leave the suite out, with the reason in the tests' name. */
  ignore?: string;
}

/** A reply as a whole: its texts, and how it ended. */
interface Reply {
  texts: string[];
  /** The events of the texts. */
  events: TextEvent[];
  text: string;
  done: DoneEvent;
}

const PROMPTS = ["Once upon a time", "The capital of France is", "def main():\n", "你好"] as const;
/** Length of a usual reply: texts of a dozen characters, and bearable for an engine that is slow. */
const TOKENS = 16;
/** Greedy and long enough to be interrupted: no end token, so only `maxTokens` ends it. */
const GREEDY: GenerateRequest = {
  prompt: [PROMPTS[0]],
  maxTokens: TOKENS,
  ignoreEos: true,
  sampling: { temperature: 0 },
};
const LONG: GenerateRequest = { ...GREEDY, maxTokens: 400 };
/** How soon a cancelled request must have left the engine. */
const SETTLE_MS = 5000;

/**
 * Register the tests that `open`'s engines must pass. Each test opens and closes one engine; give a model with real
 * weights a small context (512), as one test fills it.
 */
export function engineContract(name: string, open: () => Promise<Engine>, options: ContractOptions = {}): void {
  function test(what: string, body: (engine: Engine) => void | Promise<void>): void {
    const note = options.ignore === undefined ? "" : ` (skipped: ${options.ignore})`;
    Deno.test(`${name}: ${what}${note}`, { ignore: options.ignore !== undefined }, async () => {
      await using engine = await open();
      await body(engine);
    });
  }
  streaming(test);
  cancelling(test);
  stopTexts(test);
  choosing(test);
  logprobs(test);
  constraining(test);
  refusals(test);
  embeddings(test);
  tokens(test);
  closing(test);
}

type Register = (what: string, body: (engine: Engine) => void | Promise<void>) => void;

function streaming(test: Register): void {
  test("streams texts, then one done with usage", async (engine) => {
    const { texts, done } = await collect(engine, GREEDY);
    assert.ok(texts.length > 0 && texts.every((text) => text !== ""));
    assert.equal(done.reason, "length");
    assert.equal(done.stop, undefined);
    assert.deepEqual(done.usage, { promptTokens: await countTokens(engine, GREEDY.prompt), completionTokens: TOKENS });
    for (const ms of Object.values(done.timings)) assert.ok(ms >= 0 && Number.isFinite(ms));
  });

  test("says that it has taken a prompt on, before anything else", async (engine) => {
    const events: GenerateEvent[] = [];
    for await (const event of engine.generate({ ...GREEDY, maxTokens: 2 })) events.push(event);
    assert.deepEqual(events[0], { type: "started", promptTokens: await countTokens(engine, GREEDY.prompt) });
    assert.equal(events.filter((event) => event.type === "started").length, 1);
  });

  test("counts tokens upwards in texts", async (engine) => {
    let last = 0;
    for await (const event of engine.generate(GREEDY)) {
      if (event.type === "started") continue;
      const count = event.type === "text" ? event.completionTokens : event.usage.completionTokens;
      assert.ok(count >= last, `${count} after ${last}`);
      last = count;
    }
    assert.equal(last, TOKENS);
  });

  test("gives the same text for the same seed", async (engine) => {
    const request = { ...GREEDY, sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 2 ** 53 - 1 } };
    assert.equal((await collect(engine, request)).text, (await collect(engine, request)).text);
  });

  test("keeps conversations that run at once apart", async (engine) => {
    const requests = PROMPTS.map((prompt) => ({ ...GREEDY, prompt: [prompt] }));
    const alone: string[] = [];
    for (const request of requests) alone.push((await collect(engine, request)).text);
    const together = await Promise.all(requests.map((request) => collect(engine, request)));
    assert.deepEqual(together.map((reply) => reply.text), alone);
  });

  test("generates one token when asked for one", async (engine) => {
    const { done } = await collect(engine, { ...GREEDY, maxTokens: 1 });
    assert.deepEqual([done.reason, done.usage.completionTokens], ["length", 1]);
  });

  test("stops when the context is full", async (engine) => {
    // Leaves room for three tokens or so: one more word of the same prompt would overflow.
    const words = await promptOfLength(engine, engine.model.contextLength - 4);
    const promptTokens = await countTokens(engine, [words]);
    const { done } = await collect(engine, { ...GREEDY, prompt: [words], maxTokens: undefined });
    assert.equal(done.reason, "length");
    assert.ok(promptTokens + done.usage.completionTokens <= engine.model.contextLength);
    assert.ok(done.usage.completionTokens >= 1);
  });

  test("tells how busy it is", async (engine) => {
    const tokens = { generatedTokens: 0, proposedTokens: 0, acceptedTokens: 0 };
    assert.deepEqual(engine.stats(), { waiting: 0, running: 0, ...tokens, healthy: true });
    await collect(engine, GREEDY);
    await idle(engine);
    assert.ok(engine.stats().generatedTokens >= TOKENS);
  });
}

function cancelling(test: Register): void {
  test("cancels a request that is aborted before its start", async (engine) => {
    const { done } = await collect(engine, LONG, { signal: AbortSignal.abort() });
    assert.equal(done.reason, "cancelled");
    assert.ok(done.usage.completionTokens < 400);
    await serves(engine);
  });

  test("cancels in mid-stream and goes on serving", async (engine) => {
    const controller = new AbortController();
    const events: string[] = [];
    for await (const event of engine.generate(LONG, { signal: controller.signal })) {
      events.push(event.type === "done" ? event.reason : event.type);
      if (event.type === "text") controller.abort();
      if (event.type === "done") assert.ok(event.usage.completionTokens < 400);
    }
    assert.deepEqual([events.at(0), events.at(1), events.at(-1)], ["started", "text", "cancelled"]);
    assert.equal(events.filter((event) => event !== "text").length, 2);
    await serves(engine);
  });

  test("cancels one conversation without touching another", async (engine) => {
    const expected = await collect(engine, GREEDY);
    const controller = new AbortController();
    const [other] = await Promise.all([
      collect(engine, GREEDY),
      collect(engine, LONG, { signal: controller.signal }, () => controller.abort()),
    ]);
    assert.equal(other.text, expected.text);
  });

  test("ignores an abort after the end", async (engine) => {
    const controller = new AbortController();
    await collect(engine, GREEDY, { signal: controller.signal });
    controller.abort();
    await serves(engine);
  });

  test("cancels when the iteration is left", async (engine) => {
    for (const leaveAt of ["started", "text"]) {
      for await (const event of engine.generate(LONG)) if (event.type === leaveAt) break;
      await idle(engine);
      assert.ok(engine.stats().generatedTokens < 400);
    }
    await serves(engine);
  });
}

function stopTexts(test: Register): void {
  test("cuts the reply before a stop text", async (engine) => {
    const { text } = await collect(engine, GREEDY);
    const stop = codePoints(text).slice(4, 9).join("");
    const reply = await collect(engine, { ...GREEDY, stop: ["\u{10FFFD}", stop] });
    assert.equal(reply.text, text.slice(0, text.indexOf(stop)));
    assert.deepEqual([reply.done.reason, reply.done.stop], ["stop", stop]);
  });

  test("finds a stop text across tokens", async (engine) => {
    const { text, texts } = await collect(engine, GREEDY);
    const [first, second] = [codePoints(texts[0]!), codePoints(texts[1]!)];
    const stop = first.at(-1)! + second[0]!;
    const reply = await collect(engine, { ...GREEDY, stop: [stop] });
    assert.equal(reply.text, text.slice(0, text.indexOf(stop)));
    assert.equal(reply.done.stop, stop);
  });

  test("cuts at the earliest of several stop texts", async (engine) => {
    const { text } = await collect(engine, GREEDY);
    const chars = codePoints(text);
    const stops = [chars.slice(6, 9).join(""), chars.slice(3, 6).join("")];
    const reply = await collect(engine, { ...GREEDY, stop: stops });
    assert.equal(reply.text, text.slice(0, Math.min(...stops.map((stop) => text.indexOf(stop)))));
  });

  test("gives out half a stop text that did not become whole", async (engine) => {
    const { text } = await collect(engine, GREEDY);
    const chars = codePoints(text);
    const half = [chars.slice(2, 6), chars.slice(-3)].map((part) => part.join("") + "\u{10FFFD}");
    const reply = await collect(engine, { ...GREEDY, stop: half });
    assert.equal(reply.text, text);
    assert.deepEqual([reply.done.reason, reply.done.stop], ["length", undefined]);
  });
}

function choosing(test: Register): void {
  /** Two tokens, and a greedy request that may choose no others. */
  async function pair(engine: Engine) {
    const [a, b] = [(await engine.tokenize(["a"])).at(-1)!, (await engine.tokenize(["b"])).at(-1)!];
    const ask = (sampling: SamplingParams, rest: Partial<GenerateRequest> = {}) =>
      collect(engine, { ...GREEDY, ...rest, sampling: { temperature: 0, allowedTokenIds: [a, b], ...sampling } });
    return { a, b, ask, textOf: (...ids: number[]) => engine.detokenize(ids) };
  }

  test("takes a prompt as token ids, around which nothing is put", async (engine) => {
    const promptIds = await engine.tokenize(GREEDY.prompt);
    const { text, done } = await collect(engine, { ...GREEDY, prompt: [], promptIds });
    assert.equal(text, (await collect(engine, GREEDY)).text);
    assert.equal(done.usage.promptTokens, promptIds.length);
    const one = await collect(engine, { ...GREEDY, prompt: [], promptIds: promptIds.slice(-1) });
    assert.equal(one.done.usage.promptTokens, 1);
  });

  test("refuses ids that the vocabulary does not have, and two prompts", async (engine) => {
    const ids = [engine.model.vocabSize];
    const requests: Partial<GenerateRequest>[] = [
      { prompt: [], promptIds: ids },
      { prompt: [], promptIds: [] },
      { promptIds: [1] },
      { stopTokenIds: ids },
      { sampling: { allowedTokenIds: ids } },
      { sampling: { bannedTokenIds: ids } },
      { sampling: { logitBias: [[ids[0]!, 1]] } },
    ];
    for (const request of requests) {
      await refuses(engine, { ...GREEDY, ...request }, "invalid_request", JSON.stringify(request));
    }
    await serves(engine);
  });

  test("chooses only what is allowed and not banned, and what the bias favours", async (engine) => {
    const { a, b, ask, textOf } = await pair(engine);
    const [onlyA, onlyB] = [await textOf(...Array(TOKENS).fill(a)), await textOf(...Array(TOKENS).fill(b))];
    assert.equal((await ask({ allowedTokenIds: [a] })).text, onlyA);
    assert.equal((await ask({ bannedTokenIds: [a] })).text, onlyB);
    assert.equal((await ask({ logitBias: [[a, -Infinity]] })).text, onlyB);
    assert.equal((await ask({ logitBias: [[a, 100], [b, -100]] })).text, onlyA);
    const request = { ...GREEDY, sampling: { allowedTokenIds: [a], bannedTokenIds: [a] } };
    await refuses(engine, request, "invalid_request", "nothing that may be chosen");
  });

  test("never says a bad word", async (engine) => {
    const { a, b, ask, textOf } = await pair(engine);
    const [inA, twice] = [await textOf(a), await textOf(a, a)];
    const { text } = await ask({ logitBias: [[a, 100], [b, -100]], badWords: [twice, "\u{10FFFD}"] });
    assert.ok(text.includes(inA) && !text.includes(twice), text);
  });

  test("ends at a stop token, but not before it must", async (engine) => {
    const { a, b, ask, textOf } = await pair(engine);
    const favourite: SamplingParams = { logitBias: [[a, 100], [b, -100]] };
    const soon = await ask(favourite, { stopTokenIds: [a] });
    assert.deepEqual([soon.text, soon.done.reason, soon.done.usage.completionTokens], ["", "stop", 1]);
    const late = await ask(favourite, { stopTokenIds: [a], minTokens: 3 });
    assert.deepEqual([late.text, late.done.reason, late.done.usage.completionTokens], [
      await textOf(b, b, b),
      "stop",
      4,
    ]);
  });
}

function logprobs(test: Register): void {
  test("tells how probable its tokens were, with the texts that they make up", async (engine) => {
    const plain = await collect(engine, GREEDY);
    const { text, done, events } = await collect(engine, { ...GREEDY, logprobs: 3 });
    assert.deepEqual([text, done.usage], [plain.text, plain.done.usage]);
    const told = events.flatMap(({ logprobs = [] }) => logprobs);
    assert.equal(told.length, TOKENS);
    checkText(told, text);
    for (const chosen of told) {
      checkLogprob(chosen, 3);
      // Greedy takes the most probable one.
      assert.deepEqual([chosen.top[0]!.id, chosen.top[0]!.logprob], [chosen.id, chosen.logprob]);
    }
    assert.ok(events.every(({ promptLogprobs }) => promptLogprobs === undefined));
  });

  test("tells of no others than asked, and of nothing unless asked", async (engine) => {
    for (const { logprobs } of (await collect(engine, { ...GREEDY, logprobs: 0 })).events) {
      for (const chosen of logprobs!) checkLogprob(chosen, 0);
    }
    assert.ok((await collect(engine, GREEDY)).events.every(({ logprobs }) => logprobs === undefined));
  });

  test("leaves out tokens that a stop text cuts off", async (engine) => {
    const { text } = await collect(engine, GREEDY);
    const stop = codePoints(text).slice(4, 9).join("");
    const reply = await collect(engine, { ...GREEDY, stop: [stop], logprobs: 0 });
    const told = reply.events.flatMap(({ logprobs = [] }) => logprobs);
    assert.ok(told.length > 0 && told.length <= reply.done.usage.completionTokens);
    // The last one may reach into the stop text.
    checkText(told.slice(0, -1), reply.text.slice(0, spell(told.slice(0, -1)).length));
    assert.ok(spell(told).length >= reply.text.length);
  });

  test("tells how probable the tokens of the prompt were, with the first text", async (engine) => {
    const prompt = ["The capital of France is ".repeat(20)];
    const promptIds = await engine.tokenize(prompt);
    const { text, events } = await collect(engine, { ...GREEDY, prompt, promptLogprobs: 1 });
    const [first, ...others] = events.map(({ promptLogprobs }) => promptLogprobs);
    assert.ok(first !== undefined && others.every((told) => told === undefined));
    assert.equal(first[0], null);
    assert.deepEqual(first.slice(1).map((chosen) => chosen!.id), promptIds.slice(1));
    for (const chosen of first.slice(1)) checkLogprob(chosen!, 1);
    assert.equal(text, (await collect(engine, { ...GREEDY, prompt })).text);
  });
}

function checkLogprob({ id, token, bytes, logprob, top }: ChosenLogprob, asked: number): void {
  assert.equal(top.length, asked);
  for (const each of [{ id, token, bytes, logprob }, ...top]) {
    assert.equal(each.token, new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(each.bytes)));
    assert.ok(each.logprob <= 0 && Number.isFinite(each.logprob));
  }
  assert.deepEqual(top.map((each) => each.logprob), top.map((each) => each.logprob).sort((a, b) => b - a));
  assert.ok(top.every((each) => each.logprob >= logprob || each.id !== id));
}

/** The text of tokens; the space that some vocabularies put in front of everything is not in the reply. */
function spell(told: readonly ChosenLogprob[]): string {
  return new TextDecoder().decode(Uint8Array.from(told.flatMap(({ bytes }) => bytes)));
}

function checkText(told: readonly ChosenLogprob[], text: string): void {
  assert.equal(spell(told).trimStart(), text.trimStart());
}

function constraining(test: Register): void {
  test("keeps a reply to what was asked for, or says that it cannot", async (engine) => {
    const choices = ["yes, 🦙", "no", "yes", "</s>"];
    const request: GenerateRequest = { prompt: GREEDY.prompt, maxTokens: 64, constraint: { type: "choice", choices } };
    if (!engine.model.constrains) await refuses(engine, request, "unsupported", "a constraint");
    for (let seed = 0; seed < 8 && engine.model.constrains; seed++) {
      const sampling = { temperature: 2, topK: 0, topP: 1, minP: 0, seed };
      const { text, done } = await collect(engine, { ...request, sampling });
      assert.ok(choices.includes(text), text);
      assert.equal(done.reason, "stop");
    }
    await serves(engine);
  });
}

function refusals(test: Register): void {
  test("refuses values outside their range", async (engine) => {
    for (const [field, values] of Object.entries(INVALID)) {
      for (const value of values) {
        const request = { ...GREEDY, [field]: value } as GenerateRequest;
        await refuses(engine, request, "invalid_request", `${field} = ${value}`);
      }
    }
    for (const [field, values] of Object.entries(INVALID_SAMPLING)) {
      for (const value of values) {
        const request = { ...GREEDY, sampling: { [field]: value } } as GenerateRequest;
        await refuses(engine, request, "invalid_request", `sampling.${field} = ${value}`);
      }
    }
    await serves(engine);
  });

  test("accepts the ends of each range", async (engine) => {
    const lowest: SamplingParams = { ...LOWEST, temperature: 0 };
    for (const sampling of [lowest, { ...lowest, temperature: 1e-3 }, HIGHEST, { ...HIGHEST, mirostat: 0 as const }]) {
      const { done } = await collect(engine, { ...GREEDY, sampling, maxTokens: 2 });
      assert.equal(done.usage.completionTokens, 2);
    }
    const stop = Array.from({ length: 16 }, (_, index) => String.fromCodePoint(0x100000 + index).repeat(1024));
    assert.equal((await collect(engine, { ...GREEDY, stop, maxTokens: 1 })).done.reason, "length");
  });

  test("refuses a prompt that does not fit, with both counts", async (engine) => {
    const prompt = [`${PROMPTS[0]} `.repeat(engine.model.contextLength)];
    const error = await refuses(engine, { ...GREEDY, prompt }, "context_overflow", "a prompt that is too long");
    assert.match(error.message, new RegExp(`\\b${engine.model.contextLength}\\b`));
    assert.match(error.message, new RegExp(`\\b${await countTokens(engine, prompt)}\\b`));
    await serves(engine);
  });

  test("takes an empty prompt only where it has a begin token", async (engine) => {
    for (const prompt of [[], [""], ["", ""]]) {
      const request = { ...GREEDY, prompt, maxTokens: 1 };
      if (await countTokens(engine, prompt) === 0) await refuses(engine, request, "invalid_request", "an empty prompt");
      else assert.equal((await collect(engine, request)).done.usage.completionTokens, 1);
    }
  });
}

function embeddings(test: Register): void {
  test("makes of equal texts equal vectors of length 1, and of others others", async (engine) => {
    const [a, again, b] = await Promise.all([0, 0, 1].map((at) => engine.embed({ prompt: [PROMPTS[at]!] })));
    assert.equal(a!.values.length, engine.model.embeddingLength);
    assert.ok(Math.abs(Math.hypot(...a!.values) - 1) < 1e-3, `${Math.hypot(...a!.values)}`);
    assert.deepEqual(a, again);
    assert.notDeepEqual(a!.values, b!.values);
    assert.equal(a!.promptTokens, await countTokens(engine, [PROMPTS[0]]));
  });

  test("pools all tokens or takes the last, of texts or of token ids", async (engine) => {
    const prompt = [PROMPTS[1]];
    const mean = await engine.embed({ prompt, pooling: "mean" });
    assert.deepEqual(await engine.embed({ prompt }), mean);
    assert.notDeepEqual((await engine.embed({ prompt, pooling: "last" })).values, mean.values);
    const promptIds = await engine.tokenize(prompt);
    assert.deepEqual(await engine.embed({ prompt: [], promptIds }), mean);
  });

  test("embeds beside a reply without changing it", async (engine) => {
    const alone = await collect(engine, GREEDY);
    const vector = await engine.embed({ prompt: [PROMPTS[1]] });
    const together = await Promise.all([collect(engine, GREEDY), engine.embed({ prompt: [PROMPTS[1]] })]);
    assert.deepEqual([together[0].text, together[1]], [alone.text, vector]);
  });

  test("ends an embedding that is aborted, before or in it, as closed", async (engine) => {
    const prompt = [await promptOfLength(engine, engine.model.contextLength - 1)];
    const controller = new AbortController();
    const running = engine.embed({ prompt }, { signal: controller.signal });
    queueMicrotask(() => controller.abort());
    await assert.rejects(running, isError("closed"));
    await assert.rejects(engine.embed({ prompt }, { signal: AbortSignal.abort() }), isError("closed"));
    await idle(engine);
    await serves(engine);
  });

  test("embeds a text that fills the context, and refuses more", async (engine) => {
    const { contextLength } = engine.model;
    const most = await promptOfLength(engine, contextLength);
    const { promptTokens } = await engine.embed({ prompt: [most] });
    assert.ok(promptTokens > contextLength - 4 && promptTokens <= contextLength);
    const over = engine.embed({ prompt: [`${most}${most}`] });
    await assert.rejects(over, isError("context_overflow"));
  });

  test("refuses what cannot be embedded", async (engine) => {
    const { vocabSize } = engine.model;
    const refused: unknown[] = [
      {},
      { prompt: "text" },
      { prompt: [1] },
      { prompt: ["\uD800"] },
      { prompt: ["a"], promptIds: [1] },
      { prompt: ["a"], pooling: "max" },
      { prompt: ["a"], pooling: null },
      { prompt: [], promptIds: [] },
      ...[-1, 0.5, NaN, vocabSize, 2 ** 32, 2 ** 53, "1"].map((id) => ({ prompt: [], promptIds: [id] })),
    ];
    for (const request of refused) {
      await assert.rejects(
        engine.embed(request as EmbedRequest),
        isError("invalid_request"),
        JSON.stringify(request),
      );
    }
  });
}

function tokens(test: Register): void {
  test("gives back the text of its tokens", async (engine) => {
    for (
      const text of [
        "Hello, world",
        "naïve café",
        "你好，世界",
        "🦙👩‍👩‍👧",
        "a  b\t\n\n  c",
        "x".repeat(5000),
        "\u{FEFF}x\0y",
      ]
    ) {
      // A begin token may decode to its own text or to nothing, so only the end is compared.
      assert.ok((await engine.detokenize(await engine.tokenize([text]))).endsWith(text), JSON.stringify(text));
    }
    assert.equal(await engine.detokenize([]), "");
  });

  test("tokenizes text across parts as one, special tokens only inside a part", async (engine) => {
    assert.deepEqual(await engine.tokenize(["Hel", "lo wor", "", "ld"]), await engine.tokenize(["Hello world"]));
    const begin = await countTokens(engine, [""]);
    for (const special of engine.model.specialTokens.slice(0, 8)) {
      const [first, ...rest] = codePoints(special);
      const apart = await engine.tokenize([first!, rest.join("")]);
      const [id] = (await engine.tokenize([special])).slice(begin);
      if (rest.length > 0) assert.ok(!apart.slice(begin).includes(id!), special);
    }
  });

  test("refuses ids outside its vocabulary and texts that are not Unicode", async (engine) => {
    for (const id of [-1, 0.5, NaN, engine.model.vocabSize, 2 ** 32, "1" as unknown as number]) {
      await assert.rejects(engine.detokenize([id]), isError("invalid_request"), String(id));
    }
    for (const part of ["\uD800", 1 as unknown as string]) {
      await assert.rejects(engine.tokenize([part]), isError("invalid_request"), String(part));
    }
  });
}

function closing(test: Register): void {
  test("closes twice and refuses calls afterwards", async (engine) => {
    await Promise.all([engine.close(), engine.close()]);
    await engine.close();
    await refuses(engine, GREEDY, "closed", "a request after close");
    assert.throws(() => engine.stats(), isError("closed"));
    await assert.rejects(engine.tokenize(["a"]), isError("closed"));
    await assert.rejects(engine.detokenize([1]), isError("closed"));
    await assert.rejects(engine.embed({ prompt: ["a"] }), isError("closed"));
  });

  test("ends what runs when it is closed", async (engine) => {
    const ended = collect(engine, LONG, {}, () => void engine.close())
      .then(({ done }) => done.reason, (error: unknown) => (error as EngineError).code);
    assert.match(await ended, /^(closed|cancelled)$/);
  });
}

const NOT_A_COUNT = [-1, 0, 1.5, NaN, Infinity, 2 ** 53, "1", null, [1]];
const NOT_IDS = [1, "1", null, [-1], [0.5], [NaN], [Infinity], [2 ** 32], [2 ** 53], ["1"]];
const NOT_A_NUMBER = [-1, NaN, Infinity, -Infinity, 2 ** 53, "1", null, [1], true];

const LOWEST: SamplingParams = {
  topK: 0,
  topP: 1e-6,
  minP: 0,
  typicalP: 1e-6,
  topNSigma: 0,
  dynatempRange: 0,
  dynatempExponent: 0,
  repeatPenalty: 0.01,
  repeatLastN: 0,
  presencePenalty: -2,
  frequencyPenalty: -2,
  dryMultiplier: 0,
  dryBase: 1,
  dryAllowedLength: 0,
  dryPenaltyLastN: 0,
  drySequenceBreakers: [],
  xtcProbability: 0,
  xtcThreshold: 0,
  mirostat: 0,
  mirostatTau: 0,
  mirostatEta: 0,
  samplers: [],
  logitBias: [],
  bannedTokenIds: [],
  badWords: [],
  seed: 0,
};

const HIGHEST: SamplingParams = {
  temperature: 100,
  topK: 2 ** 31 - 1,
  topP: 1,
  minP: 1,
  typicalP: 1,
  topNSigma: 100,
  dynatempRange: 100,
  dynatempExponent: 100,
  repeatPenalty: 10,
  repeatLastN: 2 ** 31 - 1,
  presencePenalty: 2,
  frequencyPenalty: 2,
  dryMultiplier: 100,
  dryBase: 100,
  dryAllowedLength: 2 ** 31 - 1,
  dryPenaltyLastN: 2 ** 31 - 1,
  drySequenceBreakers: new Array(32).fill("\u{10FFFD}"),
  xtcProbability: 1,
  xtcThreshold: 1,
  mirostat: 2,
  mirostatTau: 100,
  mirostatEta: 1,
  samplers: [...SAMPLERS].reverse(),
  logitBias: new Array(1024).fill([0, 100]),
  badWords: new Array(64).fill("\u{10FFFD}".repeat(256)),
  seed: 2 ** 53 - 1,
};

const CYCLE: Record<string, unknown> = {};
CYCLE.self = CYCLE;
const NOT_A_SOURCE = [undefined, null, "", 1, ["a"], "\uD800", "x".repeat(2 ** 18 + 1), "é".repeat(2 ** 17 + 1)];

const INVALID: Record<string, unknown[]> = {
  prompt: ["text", undefined, null, [1], [null], ["\uD800"]],
  maxTokens: NOT_A_COUNT,
  stop: ["x", [""], [1], ["x".repeat(1025)], new Array(17).fill("x"), null],
  promptIds: [...NOT_IDS, []],
  stopTokenIds: [...NOT_IDS, new Array(65).fill(0)],
  minTokens: [-1, 0.5, NaN, Infinity, 2 ** 31, 2 ** 53, "1", null, [1]],
  logprobs: [...NOT_A_NUMBER, 0.5, 21],
  promptLogprobs: [...NOT_A_NUMBER, 0.5, 21],
  ignoreEos: [1, "true", null],
  constraint: [
    ...["regex", null, [], {}, { type: "xml" }, { type: "toString" }, { type: "json_object", schema: {} }],
    ...[undefined, () => {}, CYCLE, 1n, "x".repeat(2 ** 19)].map((schema) => ({ type: "json_schema", schema })),
    ...NOT_A_SOURCE.map((pattern) => ({ type: "regex", pattern })),
    ...NOT_A_SOURCE.map((grammar) => ({ type: "grammar", syntax: "lark", grammar })),
    ...[undefined, "ebnf", 1].map((syntax) => ({ type: "grammar", syntax, grammar: 'start: "a"' })),
    ...[undefined, "a", [], [""], [1], ["x".repeat(2 ** 16), "x"], new Array(1025).fill("x")].map((choices) => ({
      type: "choice",
      choices,
    })),
  ],
  sampling: [1, "x", null, []],
};

const INVALID_SAMPLING: Record<keyof SamplingParams, unknown[]> = {
  temperature: [...NOT_A_NUMBER, 100.5],
  topK: [...NOT_A_NUMBER, 0.5, 2 ** 31],
  topP: [...NOT_A_NUMBER, 0, 1.01],
  minP: [...NOT_A_NUMBER, 1.01],
  typicalP: [...NOT_A_NUMBER, 0, 1.01],
  topNSigma: [...NOT_A_NUMBER, 100.5],
  dynatempRange: [...NOT_A_NUMBER, 100.5],
  dynatempExponent: [...NOT_A_NUMBER, 100.5],
  repeatPenalty: [...NOT_A_NUMBER, 0, 10.5],
  repeatLastN: [...NOT_A_NUMBER, 0.5, 2 ** 31],
  presencePenalty: [...NOT_A_NUMBER.slice(1), -2.5, 2.5],
  frequencyPenalty: [...NOT_A_NUMBER.slice(1), -2.5, 2.5],
  dryMultiplier: [...NOT_A_NUMBER, 100.5],
  dryBase: [...NOT_A_NUMBER, 0.5, 100.5],
  dryAllowedLength: [...NOT_A_NUMBER, 0.5, 2 ** 31],
  dryPenaltyLastN: [...NOT_A_NUMBER, 0.5, 2 ** 31],
  drySequenceBreakers: ["x", [""], [1], ["x".repeat(257)], new Array(33).fill("x"), null],
  xtcProbability: [...NOT_A_NUMBER, 1.01],
  xtcThreshold: [...NOT_A_NUMBER, 1.01],
  mirostat: [...NOT_A_NUMBER, 0.5, 3],
  mirostatTau: [...NOT_A_NUMBER, 100.5],
  mirostatEta: [...NOT_A_NUMBER, 1.01],
  samplers: ["top_k", ["top_q"], ["top_k", "top_k"], [1], null],
  logitBias: [
    { 1: 1 },
    [1],
    [[1]],
    [[-1, 1]],
    [[1, 101]],
    [[1, NaN]],
    [[1, Infinity]],
    [[1, "1"]],
    [[1, null]],
    new Array(1025).fill([1, 1]),
    null,
  ],
  allowedTokenIds: [...NOT_IDS, []],
  bannedTokenIds: NOT_IDS,
  badWords: ["x", [""], [1], ["x".repeat(257)], new Array(65).fill("x"), null],
  seed: [...NOT_A_NUMBER, 0.5],
};

/** Read a reply to its end; `onText` is called at its first text. */
async function collect(
  engine: Engine,
  request: GenerateRequest,
  options: GenerateOptions = {},
  onText?: () => void,
): Promise<Reply> {
  const events: TextEvent[] = [];
  let done: DoneEvent | undefined;
  for await (const event of engine.generate(request, options)) {
    assert.equal(done, undefined, "an event after done");
    if (event.type === "done") done = event;
    else if (event.type === "text" && events.push(event) === 1) onText?.();
  }
  assert.ok(done, "no done event");
  const texts = events.map(({ text }) => text);
  return { texts, events, text: texts.join(""), done };
}

async function refuses(
  engine: Engine,
  request: GenerateRequest,
  code: EngineErrorCode,
  what: string,
): Promise<EngineError> {
  const error = await collect(engine, request).then(() => undefined, (error: unknown) => error);
  assert.ok(error instanceof EngineError, `${what}: expected an EngineError, got ${error}`);
  assert.equal(error.code, code, `${what}: ${error.message}`);
  return error;
}

async function serves(engine: Engine): Promise<void> {
  assert.equal((await collect(engine, { ...GREEDY, maxTokens: 3 })).done.reason, "length");
}

/** Wait until nothing waits or runs. */
async function idle(engine: Engine): Promise<void> {
  const deadline = performance.now() + SETTLE_MS;
  for (;;) {
    const { waiting, running } = engine.stats();
    if (waiting + running === 0) return;
    assert.ok(performance.now() < deadline, `${running} still running after ${SETTLE_MS} ms`);
    await delay(5);
  }
}

/** The longest repetition of a word that has at most `limit` tokens. */
async function promptOfLength(engine: Engine, limit: number): Promise<string> {
  let [fits, over] = [0, limit + 1];
  while (over - fits > 1) {
    const middle = (fits + over) >> 1;
    if (await countTokens(engine, [" a".repeat(middle)]) <= limit) fits = middle;
    else over = middle;
  }
  return " a".repeat(fits);
}

async function countTokens(engine: Engine, prompt: readonly string[]): Promise<number> {
  return (await engine.tokenize(prompt)).length;
}

function codePoints(text: string): string[] {
  return [...text];
}

function isError(code: EngineErrorCode): (error: unknown) => boolean {
  return (error) => error instanceof EngineError && error.code === code;
}
