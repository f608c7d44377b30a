import assert from "node:assert/strict";
import { type ModelDefaults, SAMPLERS, type SamplingParams } from "../engine/engine.ts";
import { SAMPLER_NAMES } from "../protocol/mod.ts";
import { resolveSampling } from "./sampling.ts";

type Layers = [request?: SamplingParams, flags?: SamplingParams, model?: ModelDefaults];

Deno.test("request over flags over model over built-in, each field by itself", () => {
  const [request, flags, model] = [{ temperature: 0 }, { temperature: 1, topP: 0.9 }, {
    temperature: 2,
    topP: 0.6,
    topK: 0,
  }];
  const cases: [Layers, SamplingParams][] = [
    [[], {}],
    [[undefined, undefined, undefined], {}],
    [[{}, {}, {}], {}],
    [[request, flags, model], { temperature: 0, topP: 0.9, topK: 0 }],
    [[undefined, flags, model], { temperature: 1, topP: 0.9, topK: 0 }],
    [[request, undefined, model], { temperature: 0, topP: 0.6, topK: 0 }],
    [[{}, {}, model], { temperature: 2, topP: 0.6, topK: 0 }],
    [[{ temperature: undefined, seed: 0 }, { minP: 0 }, { repeatPenalty: 1.1, minP: 0.1 }], {
      minP: 0,
      repeatPenalty: 1.1,
      seed: 0,
    }],
    [[request, {}, { maxLength: 4096 }], { temperature: 0 }],
  ];
  for (const [layers, expected] of cases) assert.deepEqual(resolveSampling(...layers), expected);
});

Deno.test("the wire's names of samplers are the engine's", () => assert.deepEqual(SAMPLER_NAMES, SAMPLERS));
