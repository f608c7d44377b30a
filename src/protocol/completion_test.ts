import assert from "node:assert/strict";
import type OpenAI from "openai";
import {
  chatUsage,
  type Completion,
  completion,
  type CompletionChunk,
  completionChunk,
  completionLogprobs,
  type CompletionRequest,
  completionSchema,
  MAX_CHOICES,
  parseCompletionRequest,
  promptLogprobs,
  ProtocolError,
  wireTimings,
} from "./mod.ts";

const minimal = { model: "m", prompt: "hi" };

function check(fields: Record<string, unknown>, expected: Partial<CompletionRequest>): void {
  assert.partialDeepStrictEqual(parseCompletionRequest({ ...minimal, ...fields }), expected);
}

function checkRefused(value: unknown, param: string | null, message: RegExp, code = "invalid_value"): void {
  assert.throws(() => parseCompletionRequest(value), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.deepEqual([error.param, error.code], [param, code], error.message);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /[^.]\.$|Invalid/);
    return true;
  });
}

function checkField(fields: Record<string, unknown>, message: RegExp, code?: string): void {
  checkRefused({ ...minimal, ...fields }, Object.keys(fields)[0]!, message, code);
}

Deno.test("a minimal request: one prompt, one choice, the rest left open", () => {
  assert.deepEqual(parseCompletionRequest(minimal), {
    model: "m",
    prompts: ["hi"],
    n: 1,
    bestOf: 1,
    sampling: {},
    generation: {},
    maxTokens: undefined,
    stop: [],
    constraint: undefined,
    echo: false,
    logprobs: false,
    promptLogprobs: false,
    stream: false,
    includeUsage: false,
    ignored: [],
  });
});

Deno.test("null is absence in every optional field, and what does nothing is named", () => {
  const { model: _, ...optional } = completionSchema.shape;
  const names = [...Object.keys(optional), "suffix", "use_beam_search", "user", "metadata"];
  const nulls = Object.fromEntries(names.map((name) => [name, null]));
  assert.deepEqual(parseCompletionRequest({ ...minimal, ...nulls }), parseCompletionRequest(minimal));
  const off = { suffix: "", logprobs: false, best_of: 1, use_beam_search: false };
  assert.deepEqual(parseCompletionRequest({ ...minimal, ...off }), parseCompletionRequest(minimal));
  check({ user: "u", metadata: { a: "b" }, frobnicate: 1 }, { ignored: ["user", "metadata", "frobnicate"] });
});

Deno.test("log probabilities: of the reply, of an echoed prompt, and of a prompt by itself", () => {
  check({ logprobs: 0 }, { logprobs: true, promptLogprobs: false, generation: { logprobs: 0 } });
  check({ logprobs: 20, echo: true }, { logprobs: true, generation: { logprobs: 20, promptLogprobs: 20 } });
  check({ prompt_logprobs: 3 }, { logprobs: false, promptLogprobs: true, generation: { promptLogprobs: 3 } });
  assert(!("promptLogprobs" in parseCompletionRequest({ ...minimal, logprobs: 1 }).generation));
  for (const name of ["logprobs", "prompt_logprobs"]) {
    for (const bad of [-1, 21, 1.5, NaN, 2 ** 53, "1", true]) {
      checkField({ [name]: bad }, new RegExp(`^${name}: expected an integer from 0 to 20, got `));
    }
  }
});

Deno.test("best_of: at least n, whole, ranked by probabilities that need not be shown", () => {
  check({ best_of: 3 }, { n: 1, bestOf: 3, logprobs: false, generation: { logprobs: 0 } });
  check({ best_of: 3, n: 2, logprobs: 5 }, { n: 2, bestOf: 3, logprobs: true, generation: { logprobs: 5 } });
  check({ best_of: 2, n: 2, stream: true }, { n: 2, bestOf: 2, generation: {} });
  checkField({ best_of: 1, n: 2 }, /^best_of: expected at least 2, the value of n, got 1$/);
  checkField({ best_of: 2, stream: true }, /^best_of: expected the value of n in a stream, .* got 2$/);
  checkField(
    { best_of: 9, prompt: ["a", "b"] },
    /^best_of: expected at most 16 choices over all prompts, got 9 for each/,
  );
});

Deno.test("prompts: a text, texts, token ids, lists of token ids", () => {
  check({ prompt: "" }, { prompts: [""] });
  check({ prompt: ["a", "b"] }, { prompts: ["a", "b"] });
  check({ prompt: [1, 0, 2 ** 31 - 1] }, { prompts: [[1, 0, 2 ** 31 - 1]] });
  check({ prompt: [[1, 2], [3]] }, { prompts: [[1, 2], [3]] });
  const full = Array(MAX_CHOICES).fill("x");
  check({ prompt: full }, { prompts: full });
});

Deno.test("prompts: the refused place is named, in the form that was meant", () => {
  const kinds = /^prompt: expected a well-formed text, token ids, or a list of 1 to 16 of either kind, got /;
  for (const prompt of [undefined, null, 3, true, {}, []]) checkField({ prompt }, kinds);
  checkField({ prompt: "\ud800" }, kinds);
  checkField({ prompt: Array(MAX_CHOICES + 1).fill("x") }, /got a list of 17$/);
  const refuse = (prompt: unknown, param: string, message: RegExp) =>
    checkRefused({ ...minimal, prompt }, param, message);
  refuse(["a", 1], "prompt[1]", /^prompt\[1\]: expected a well-formed text, got 1$/);
  refuse([null], "prompt[0]", /got null$/);
  const id = /expected an integer from 0 to 2147483647, got /;
  for (const bad of [-1, 1.5, 2 ** 31, 2 ** 53, NaN, "1", null]) {
    refuse([0, bad], "prompt[1]", id);
    refuse([[0], [1, bad]], "prompt[1][1]", id);
  }
  refuse([NaN], "prompt[0]", id);
  refuse([[1], []], "prompt[1]", /expected a list of 1 to 1048576 token ids, got a list of 0$/);
  refuse([[1], "a"], "prompt[1]", /got "a"$/);
});

Deno.test("fields arrive under our names, at both ends of their ranges", () => {
  check({ temperature: 0, top_p: 1, seed: 2 ** 53 - 1 }, { sampling: { temperature: 0, topP: 1, seed: 2 ** 53 - 1 } });
  check({ max_tokens: 1 }, { maxTokens: 1 });
  check({ max_tokens: 0, echo: true }, { maxTokens: 0 });
  check({ max_tokens: 2 ** 31 - 1 }, { maxTokens: 2 ** 31 - 1 });
  check({ n: MAX_CHOICES, best_of: MAX_CHOICES }, { n: MAX_CHOICES });
  check({ prompt: Array(4).fill("x"), n: MAX_CHOICES / 4 }, { n: MAX_CHOICES / 4 });
  check({ stop: ["a", "b"], echo: true }, { stop: ["a", "b"], echo: true });
  check({ stream: true, stream_options: { include_usage: true } }, { stream: true, includeUsage: true });
});

Deno.test("numbers outside their range, and things that are no numbers, are refused with the field's name", () => {
  const names = ["temperature", "top_p", "seed", "max_tokens", "n", "best_of"];
  for (const name of names) {
    for (const bad of [NaN, Infinity, -Infinity, -1, "1", 2 ** 53, 1e300, true, [1], {}]) {
      checkField({ [name]: bad }, new RegExp(`^${name}: expected an? (number|integer) (from|above) `));
    }
  }
  for (const name of ["n", "best_of", "max_tokens"]) checkField({ [name]: 0 }, /got 0$/);
  checkField({ n: MAX_CHOICES + 1 }, /^n: expected an integer from 1 to 16, got 17$/);
  checkField({ n: 4, prompt: Array(5).fill("x") }, /at most 16 choices over all prompts, got 4 for each of 5$/);
});

Deno.test("what is not implemented and would change the reply is refused by name", () => {
  const refused = "unsupported_value";
  checkField(
    { suffix: "end" },
    /^suffix: expected an empty text \(the model has no tokens for a gap\), as nothing else is supported, got "end"$/,
    refused,
  );
  checkField({ use_beam_search: true }, /got true$/, refused);
});

Deno.test("other fields and the whole", () => {
  checkRefused({ prompt: "hi" }, "model", /^model: expected a well-formed text of 1 to 256 /);
  checkField({ echo: 1 }, /^echo: expected true or false, got 1$/);
  checkField({ stop: Array(17).fill("x") }, /or a list of at most 16, got a list of 17$/);
  for (const value of [null, 3, "x", [], undefined]) {
    checkRefused(value, null, /^request: expected an object, got /, "unsupported_value");
  }
});

Deno.test("shapes are those of OpenAI's own client", () => {
  const head = { id: "cmpl-1", created: 1, model: "m" };
  const usage = chatUsage(3, 4);
  const chosen = { id: 5, token: "🦙", bytes: [], logprob: -1, top: [{ id: 6, token: "y", bytes: [], logprob: -0.5 }] };
  const logprobs = completionLogprobs([{ token: "", logprob: null }, chosen, chosen], 2);
  const timings = wireTimings({ promptTokens: 3, completionTokens: 4 }, { queueMs: 0, prefillMs: 1, decodeMs: 2 });
  const choices = [{ text: "x", logprobs: null, finish_reason: "stop" as const }];
  const whole: Completion = completion(head, { choices, usage, timings });
  const chunk: CompletionChunk = completionChunk(head, { index: 2, text: "x", usage: null });
  // Checked by the compiler: theirs knows neither a reason that is still open nor a usage of null, nor that a first
  // token has no probability; OpenAI sends all three.
  type Theirs = OpenAI.Completion;
  const theirs: Omit<Theirs, "choices"> = whole;
  const streamed: Omit<Theirs, "choices" | "usage"> = chunk;
  assert.deepEqual([theirs.object, streamed.object], ["text_completion", "text_completion"]);
  assert.deepEqual(whole.choices, [{ index: 0, text: "x", logprobs: null, finish_reason: "stop" }]);
  assert.deepEqual(
    logprobs,
    {
      tokens: ["", "🦙", "🦙"],
      token_logprobs: [null, -1, -1],
      top_logprobs: [null, { y: -0.5, "🦙": -1 }, { y: -0.5, "🦙": -1 }],
      text_offset: [2, 2, 3],
    } satisfies Record<keyof OpenAI.CompletionChoice.Logprobs, unknown>,
  );
  assert.deepEqual(promptLogprobs([null, chosen]), [null, {
    5: { logprob: -1, decoded_token: "🦙" },
    6: { logprob: -0.5, decoded_token: "y" },
  }]);
  assert.deepEqual(chunk.choices, [{ index: 2, text: "x", logprobs: null, finish_reason: null }]);
  assert.deepEqual(completionChunk(head, { usage }).choices, []);
  assert(!("usage" in completionChunk(head, { index: 0 })));
});
