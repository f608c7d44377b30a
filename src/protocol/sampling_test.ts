import assert from "node:assert/strict";
import { z } from "zod";
import {
  check,
  MAX_BIASES,
  ProtocolError,
  type SamplingFields,
  samplingFields,
  toGeneration,
  toSampling,
  type WireGeneration,
  type WireSampling,
} from "./mod.ts";

const schema = z.object(samplingFields);

function read(fields: Record<string, unknown>): SamplingFields {
  return check(schema, fields);
}

function refused(fields: Record<string, unknown>, message: RegExp, param = Object.keys(fields)[0]!): void {
  assert.throws(() => read(fields), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.equal(error.param, param, error.message);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /[^.]\.$|Invalid/);
    return true;
  });
}

/** What no number field takes. */
const NO_NUMBERS = [NaN, Infinity, -Infinity, "1", 1e300, 2 ** 53, true, [1], {}, ""];
/** Each number, the ends of its range, and what lies just outside. */
const NUMBERS: [name: string, inside: number[], outside: number[]][] = [
  ["temperature", [0, 2], [-1, -1e-9, 2.0000001]],
  ["top_p", [1e-9, 1], [0, -1, 1.0000001]],
  ["top_k", [-1, 0, 2 ** 31 - 1], [-2, 0.5, 2 ** 31]],
  ["min_p", [0, 1], [-1, 1.1]],
  ["typical_p", [1e-9, 1], [0, -1, 1.1]],
  ["top_n_sigma", [0, 100], [-1, 100.1]],
  ["dynatemp_range", [0, 100], [-1, 101]],
  ["dynatemp_exponent", [0, 100], [-1, 101]],
  ["repeat_penalty", [1e-9, 10], [0, -1, 10.1]],
  ["repetition_penalty", [1e-9, 10], [0, -1, 10.1]],
  ["repeat_last_n", [-1, 0, 2 ** 31 - 1], [-2, 0.5, 2 ** 31]],
  ["presence_penalty", [-2, 2], [-2.1, 2.1]],
  ["frequency_penalty", [-2, 2], [-2.1, 2.1]],
  ["dry_multiplier", [0, 100], [-1, 101]],
  ["dry_base", [1, 100], [0, 0.9, 101]],
  ["dry_allowed_length", [0, 2 ** 31 - 1], [-1, 0.5, 2 ** 31]],
  ["dry_penalty_last_n", [-1, 0, 2 ** 31 - 1], [-2, 0.5, 2 ** 31]],
  ["xtc_probability", [0, 1], [-1, 1.1]],
  ["xtc_threshold", [0, 1], [-1, 1.1]],
  ["mirostat", [0, 1, 2], [-1, 3, 1.5]],
  ["mirostat_tau", [0, 100], [-1, 101]],
  ["mirostat_eta", [0, 1], [-1, 1.1]],
  ["seed", [0, 2 ** 53 - 1], [-1, 0.5, 2 ** 53 + 2]],
  ["min_tokens", [0, 2 ** 31 - 1], [-1, 0.5, 2 ** 31]],
];

Deno.test("every number has its range on both sides, and nothing else is a number", () => {
  for (const [name, inside, outside] of NUMBERS) {
    for (const value of inside) assert.doesNotThrow(() => read({ [name]: value }), `${name} ${value}`);
    for (const value of [...outside, ...NO_NUMBERS]) {
      refused({ [name]: value }, new RegExp(`^${name}: expected (an? (number|integer) (from|above) |0, 1 or 2)`));
    }
  }
  const known = [
    ...NUMBERS.map(([name]) => name),
    "dry_sequence_breakers",
    "samplers",
    "logit_bias",
    "allowed_token_ids",
  ];
  known.push("banned_token_ids", "bad_words", "ignore_eos", "stop_token_ids");
  assert.deepEqual(Object.keys(samplingFields).sort(), known.sort());
});

Deno.test("null and nothing are absence", () => {
  const nulls = Object.fromEntries(Object.keys(samplingFields).map((name) => [name, null]));
  for (const fields of [{}, nulls]) {
    assert.deepEqual([toSampling(read(fields)), toGeneration(read(fields))], [{}, {}]);
  }
});

Deno.test("fields arrive under our names", () => {
  const cases: [Record<string, unknown>, WireSampling][] = [
    [{ temperature: 0, top_p: 1, top_k: -1, min_p: 0 }, { temperature: 0, topP: 1, topK: 0, minP: 0 }],
    [{ typical_p: 0.5, top_n_sigma: 1 }, { typicalP: 0.5, topNSigma: 1 }],
    [{ dynatemp_range: 1, dynatemp_exponent: 2 }, { dynatempRange: 1, dynatempExponent: 2 }],
    [{ repetition_penalty: 1.1 }, { repeatPenalty: 1.1 }],
    [{ repetition_penalty: 1.1, repeat_penalty: 1.2 }, { repeatPenalty: 1.2 }],
    [{ repeat_last_n: 5, presence_penalty: 1, frequency_penalty: -1 }, {
      repeatLastN: 5,
      presencePenalty: 1,
      frequencyPenalty: -1,
    }],
    [{ repeat_last_n: -1, dry_penalty_last_n: -1 }, {}],
    [{ dry_multiplier: 1, dry_base: 2, dry_allowed_length: 3, dry_penalty_last_n: 4, dry_sequence_breakers: ["x"] }, {
      dryMultiplier: 1,
      dryBase: 2,
      dryAllowedLength: 3,
      dryPenaltyLastN: 4,
      drySequenceBreakers: ["x"],
    }],
    [{ xtc_probability: 0.5, xtc_threshold: 0.1 }, { xtcProbability: 0.5, xtcThreshold: 0.1 }],
    [{ mirostat: 2, mirostat_tau: 5, mirostat_eta: 0.1 }, { mirostat: 2, mirostatTau: 5, mirostatEta: 0.1 }],
    [{ samplers: ["temperature", "typ_p", "top_k"] }, { samplers: ["temperature", "typical_p", "top_k"] }],
    [{ samplers: [] }, { samplers: [] }],
    [{ logit_bias: { 5: -100, 0: 1.5 } }, { logitBias: [[0, 1.5], [5, -100]] }],
    [{ logit_bias: [[5, 100], [6, false]] }, { logitBias: [[5, 100], [6, -Infinity]] }],
    [{ logit_bias: {} }, { logitBias: [] }],
    [{ allowed_token_ids: [1], banned_token_ids: [2, 3], bad_words: ["x"] }, {
      allowedTokenIds: [1],
      bannedTokenIds: [2, 3],
      badWords: ["x"],
    }],
    [{ seed: 0 }, { seed: 0 }],
  ];
  for (const [fields, expected] of cases) assert.deepEqual(toSampling(read(fields)), expected);
  const ends: [Record<string, unknown>, WireGeneration][] = [
    [{ min_tokens: 3, ignore_eos: true, stop_token_ids: [1, 2] }, {
      minTokens: 3,
      ignoreEos: true,
      stopTokenIds: [1, 2],
    }],
    [{ ignore_eos: false, seed: 1 }, { ignoreEos: false }],
  ];
  for (const [fields, expected] of ends) assert.deepEqual(toGeneration(read(fields)), expected);
});

Deno.test("lists: their limits, and what is in them", () => {
  const ids = (name: string) => {
    refused({ [name]: 5 }, /got 5$/);
    for (const bad of [-1, 0.5, 2 ** 31, 2 ** 53, "1", NaN]) {
      refused({ [name]: [1, bad] }, /an integer from 0/, `${name}[1]`);
    }
  };
  for (const name of ["allowed_token_ids", "banned_token_ids", "stop_token_ids"]) ids(name);
  refused({ allowed_token_ids: [] }, /expected a list of 1 to 262144 token ids, got a list of 0$/);
  assert.doesNotThrow(() => read({ banned_token_ids: [], bad_words: [], stop_token_ids: [] }));
  refused({ stop_token_ids: Array(65).fill(1) }, /got a list of 65$/);
  refused({ bad_words: Array(65).fill("x") }, /got a list of 65$/);
  refused({ bad_words: ["x", "x".repeat(257)] }, /of 1 to 256 characters/, "bad_words[1]");
  refused({ dry_sequence_breakers: Array(33).fill("x") }, /a list of 0 to 32 texts, got a list of 33$/);
  refused({ dry_sequence_breakers: [""] }, /got ""$/, "dry_sequence_breakers[0]");
  refused({ samplers: ["top_k", "top_k"] }, /each at most once, got a list of 2$/);
  refused({ samplers: ["magic"] }, /expected one of penalties, .* got "magic"$/, "samplers[0]");
  refused({ samplers: "top_k" }, /got "top_k"$/);
  refused({ ignore_eos: 1 }, /expected true or false, got 1$/);
});

Deno.test("logit_bias: ids and biases, as an object or a list of pairs", () => {
  const message = /^logit_bias[^:]*: expected (at most 1024 token ids|an? (number|integer) from)/;
  for (const bad of [5, "x", [5], { a: 1 }, { "-1": 1 }, { "1.5": 1 }, { 2147483648: 1 }, { 12345678901: 1 }]) {
    assert.throws(
      () => read({ logit_bias: bad }),
      (error) => error instanceof ProtocolError && message.test(error.message),
    );
  }
  for (const bad of [101, -101, NaN, "1", null, true]) {
    for (const logit_bias of [{ 5: bad }, [[5, bad]]]) {
      assert.throws(() => read({ logit_bias }), (error) => {
        assert(error instanceof ProtocolError && error.param!.startsWith("logit_bias"), String(error));
        assert.match(error.message, message);
        return true;
      });
    }
  }
  const pairs = Array.from({ length: MAX_BIASES + 1 }, (_, id) => [id, 1] as const);
  assert.equal(toSampling(read({ logit_bias: pairs.slice(1) })).logitBias!.length, MAX_BIASES);
  for (const logit_bias of [pairs, Object.fromEntries(pairs)]) {
    refused({ logit_bias }, /expected at most 1024 token ids/);
  }
});
