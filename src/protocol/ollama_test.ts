import assert from "node:assert/strict";
import type { ChatResponse, GenerateResponse, ListResponse, ShowResponse } from "ollama";
import { MAX_MESSAGES } from "./message.ts";
import {
  ollamaCall,
  ollamaEnd,
  ollamaLine,
  ollamaMessage,
  ollamaResponse,
  ollamaShow,
  ollamaTags,
  parseOllamaChat,
  parseOllamaGenerate,
  parseOllamaShow,
  ProtocolError,
} from "./mod.ts";
import { MAX_IGNORED } from "./ignored.ts";
import { MAX_TEMPERATURE } from "./ollama.ts";

const LARGEST = 2 ** 31 - 1;
const prompt = { model: "m", prompt: "hi" };
const messages = [{ role: "user", content: "hi" }];

type Parse = (value: unknown) => unknown;

function checkRefused(parse: Parse, value: unknown, param: string | null, message: RegExp, code = "invalid_value") {
  assert.throws(() => parse(value), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.deepEqual([error.param, error.code], [param, code], error.message);
    assert.match(error.message, message);
    return true;
  });
}

function option(name: string, value: unknown) {
  const { sampling, maxTokens, stop } = parseOllamaGenerate({ ...prompt, options: { [name]: value } });
  return { ...sampling, maxTokens, stop };
}

Deno.test("minimal requests stream and leave every choice to the server", () => {
  const asIs = { generation: {}, constraint: undefined, variables: {} };
  const open = { sampling: {}, maxTokens: undefined, stop: [], ...asIs };
  const common = { model: "m", ...open, stream: true, ignored: [] };
  assert.deepEqual(parseOllamaGenerate(prompt), { ...common, prompt: "hi", system: undefined, raw: false });
  assert.deepEqual(parseOllamaChat({ model: "m", messages }), { ...common, messages, tools: [] });
  assert.deepEqual(parseOllamaGenerate({ model: "m" }).prompt, "");
  assert.deepEqual(parseOllamaChat({ model: "m" }).messages, []);
});

Deno.test("null is absence in every optional field", () => {
  const names = ["stream", "options", "keep_alive", "format", "think", "logprobs", "top_logprobs", "system", "raw"];
  names.push("template", "suffix", "context", "images", "tools");
  const nulls = Object.fromEntries(names.map((name) => [name, null]));
  assert.deepEqual(parseOllamaGenerate({ ...prompt, ...nulls }), parseOllamaGenerate(prompt));
  assert.deepEqual(parseOllamaChat({ model: "m", messages, ...nulls }), parseOllamaChat({ model: "m", messages }));
  const options = { temperature: null, num_predict: null, stop: null, num_ctx: null, mirostat: null };
  assert.deepEqual(parseOllamaGenerate({ ...prompt, options }), parseOllamaGenerate(prompt));
});

Deno.test("options arrive under our names, at both ends of their ranges", () => {
  const cases: [string, unknown, Record<string, unknown>][] = [
    ["temperature", 0, { temperature: 0 }],
    ["temperature", MAX_TEMPERATURE, { temperature: MAX_TEMPERATURE }],
    ["top_k", -1, { topK: 0 }],
    ["top_k", 0, { topK: 0 }],
    ["top_k", LARGEST, { topK: LARGEST }],
    ["top_p", Number.MIN_VALUE, { topP: Number.MIN_VALUE }],
    ["top_p", 1, { topP: 1 }],
    ["min_p", 0, { minP: 0 }],
    ["min_p", 1, { minP: 1 }],
    ["repeat_penalty", 10, { repeatPenalty: 10 }],
    ["typical_p", 0.5, { typicalP: 0.5 }],
    ["repeat_last_n", -1, {}],
    ["repeat_last_n", 0, { repeatLastN: 0 }],
    ["presence_penalty", -2, { presencePenalty: -2 }],
    ["frequency_penalty", 2, { frequencyPenalty: 2 }],
    ["mirostat", 2, { mirostat: 2 }],
    ["mirostat_tau", 5, { mirostatTau: 5 }],
    ["mirostat_eta", 0.1, { mirostatEta: 0.1 }],
    ["seed", -1, {}],
    ["seed", 0, { seed: 0 }],
    ["seed", 2 ** 53 - 1, { seed: 2 ** 53 - 1 }],
    // Until the context is full, whatever the operator's limit.
    ["num_predict", -2, { maxTokens: LARGEST }],
    ["num_predict", -1, { maxTokens: LARGEST }],
    ["num_predict", 1, { maxTokens: 1 }],
    ["num_predict", LARGEST, { maxTokens: LARGEST }],
    ["stop", "END", { stop: ["END"] }],
    ["stop", Array(16).fill("x"), { stop: Array(16).fill("x") }],
  ];
  for (const [name, value, expected] of cases) {
    const got = option(name, value);
    assert.deepEqual(got, { maxTokens: undefined, stop: [], ...expected }, name);
  }
});

Deno.test("options outside their ranges are refused by name", () => {
  const outside: Record<string, unknown[]> = {
    temperature: [-0.1, MAX_TEMPERATURE + 1, "1", NaN, Infinity],
    top_k: [-2, 1.5, 2 ** 31, "40"],
    top_p: [0, 1.1, -1, NaN],
    min_p: [-0.1, 1.1],
    repeat_penalty: [0, 10.1, -1],
    typical_p: [0, 1.1],
    repeat_last_n: [-2, 1.5],
    presence_penalty: [-2.1, 2.1],
    frequency_penalty: [-2.1, 2.1],
    mirostat: [-1, 3, "1"],
    mirostat_tau: [-1, 101],
    mirostat_eta: [-1, 1.1],
    seed: [-2, 2 ** 53, 0.5],
    num_predict: [-3, 0, 1.5, 2 ** 31, "5", NaN],
    stop: ["", Array(17).fill("x"), 5, "\ud800"],
  };
  for (const [name, values] of Object.entries(outside)) {
    for (const value of values) {
      for (const parse of [parseOllamaGenerate, parseOllamaChat]) {
        const request = { model: "m", prompt: "hi", messages, options: { [name]: value } };
        checkRefused(parse, request, `options.${name}`, /: expected .*, got /);
      }
    }
  }
});

Deno.test("what would change the reply and is not there is refused, its off value is not", () => {
  const refused: [Parse, string, unknown[], unknown[]][] = [
    [parseOllamaGenerate, "template", ["{{ .Prompt }}"], [""]],
    [parseOllamaGenerate, "suffix", ["}"], [""]],
    [parseOllamaGenerate, "context", [[1, 2]], [[]]],
    [parseOllamaGenerate, "images", [["aGk="]], [[]]],
  ];
  for (const [parse, name, bad, good] of refused) {
    const request = { model: "m", prompt: "hi", messages };
    for (const value of bad) {
      const message = /: expected .*, as nothing else is supported, got /;
      checkRefused(parse, { ...request, [name]: value }, name, message, "unsupported_value");
    }
    for (const value of good) parse({ ...request, [name]: value });
  }
  const asked = (tfs_z: number) => ({ model: "m", messages, options: { tfs_z } });
  parseOllamaChat(asked(1));
  checkRefused(parseOllamaChat, asked(2), "options.tfs_z", /nothing else is supported/, "unsupported_value");
});

Deno.test("formats, thoughts and log probabilities", () => {
  const schema = { type: "object" };
  const read = (fields: object) => parseOllamaGenerate({ ...prompt, ...fields });
  assert.equal(read({ format: "" }).constraint, undefined);
  assert.deepEqual(read({ format: "json" }).constraint, { type: "json_object" });
  assert.deepEqual(read({ format: schema }).constraint, { type: "json_schema", schema });
  assert.deepEqual(read({ think: false }).variables, { enable_thinking: false });
  assert.deepEqual(read({ think: "low" }).variables, { reasoning_effort: "low", enable_thinking: true });
  assert.deepEqual(read({ logprobs: true }).generation, { logprobs: 0 });
  assert.deepEqual(read({ logprobs: true, top_logprobs: 20 }).generation, { logprobs: 20 });
  assert.deepEqual(read({ logprobs: false, top_logprobs: 5 }).generation, {});
});

Deno.test("functions, calls and results: a result answers the first call that has none", () => {
  const call = (name: string, args?: object) => ({ function: { name, arguments: args } });
  const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }];
  const said = [
    { role: "assistant", thinking: "t", tool_calls: [call("f", { a: 1 }), call("g")] },
    { role: "tool", content: "1", tool_name: "f" },
    { role: "tool", content: "2" },
    { role: "tool", content: "3" },
  ];
  const request = parseOllamaChat({ model: "m", messages: said, tools });
  assert.deepEqual(request.tools, [{ name: "f", parameters: { type: "object" } }]);
  assert.deepEqual(request.messages, [
    {
      role: "assistant",
      content: "",
      reasoning: "t",
      toolCalls: [{ id: "call00000", name: "f", arguments: '{"a":1}' }, {
        id: "call00001",
        name: "g",
        arguments: "{}",
      }],
    },
    { role: "tool", content: "1", toolCallId: "call00000" },
    { role: "tool", content: "2", toolCallId: "call00001" },
    { role: "tool", content: "3" },
  ]);
  assert.deepEqual(ollamaCall("f", '{"a":1}'), { function: { name: "f", arguments: { a: 1 } } });
  for (const bad of ["{", "[1]", "5"]) assert.deepEqual(ollamaCall("f", bad).function.arguments, { arguments: bad });
});

Deno.test("fields that are wrong are refused by name", () => {
  checkRefused(parseOllamaGenerate, [], null, /^request: expected an object/, "unsupported_value");
  checkRefused(parseOllamaChat, { model: "m", options: "x" }, "options", /expected an object/, "unsupported_value");
  const wrong: [Parse, unknown, string, RegExp][] = [
    [parseOllamaGenerate, { prompt: "hi" }, "model", /got nothing$/],
    [parseOllamaGenerate, { model: "" }, "model", /1 to 256/],
    [parseOllamaGenerate, { model: "m".repeat(257) }, "model", /1 to 256/],
    [parseOllamaGenerate, { model: "m", prompt: 5 }, "prompt", /well-formed text, got 5$/],
    [parseOllamaGenerate, { model: "m", prompt: "\ud800" }, "prompt", /well-formed text/],
    [parseOllamaGenerate, { ...prompt, stream: "no" }, "stream", /true or false/],
    [parseOllamaGenerate, { ...prompt, keep_alive: [] }, "keep_alive", /a duration/],
    [parseOllamaGenerate, { ...prompt, keep_alive: "x".repeat(33) }, "keep_alive", /.+/],
    [parseOllamaGenerate, { ...prompt, raw: true, system: "s" }, "system", /beside raw/],
    [parseOllamaChat, { model: "m", messages: "x" }, "messages", /a list of at most/],
    [parseOllamaChat, { model: "m", messages: Array(MAX_MESSAGES + 1).fill(messages[0]) }, "messages", /at most/],
    [parseOllamaChat, { model: "m", messages: ["x"] }, "messages[0]", /a message/],
    [parseOllamaChat, { model: "m", messages: [{ role: "ipython" }] }, "messages[0].role", /got "ipython"$/],
    [parseOllamaGenerate, { ...prompt, format: "xml" }, "format", /"json" or a JSON schema, got "xml"$/],
    [parseOllamaGenerate, { ...prompt, think: "huge" }, "think", /got "huge"$/],
    [parseOllamaGenerate, { ...prompt, top_logprobs: 21 }, "top_logprobs", /from 0 to 20, got 21$/],
    [parseOllamaChat, { model: "m", tools: [{ type: "function" }] }, "tools[0].function", /got nothing$/],
    [parseOllamaChat, { model: "m", messages: [{ role: "user", content: [] }] }, "messages[0].content", /text/],
    [parseOllamaChat, { model: "m", messages: [{ role: "user", images: ["x"] }] }, "messages[0].images", /list of 1$/],
    [
      parseOllamaChat,
      { model: "m", messages: [{ role: "assistant", tool_calls: [{}] }] },
      "messages[0].tool_calls[0].function",
      /got nothing$/,
    ],
  ];
  for (const [parse, value, param, message] of wrong) checkRefused(parse, value, param, message);
});

Deno.test("a system text, raw prompts, and messages without text", () => {
  assert.partialDeepStrictEqual(parseOllamaGenerate({ ...prompt, system: "s" }), { system: "s", raw: false });
  assert.partialDeepStrictEqual(parseOllamaGenerate({ ...prompt, system: "", raw: true }), { raw: true });
  const said = [{ role: "system" }, { role: "assistant", content: null, thinking: "hm" }];
  assert.deepEqual(parseOllamaChat({ model: "m", messages: said }).messages, [
    { role: "system", content: "" },
    { role: "assistant", content: "", reasoning: "hm" },
  ]);
});

Deno.test("what does nothing is named, as far as a header can hold it", () => {
  const ignored = (fields: object) => parseOllamaGenerate({ ...prompt, ...fields }).ignored;
  assert.deepEqual(ignored({ keep_alive: "5m" }), ["keep_alive"]);
  assert.deepEqual(ignored({ keep_alive: 0, options: { num_ctx: 4096, temperature: 1, mirostat: 0, num_gpu: -1 } }), [
    "options.num_ctx",
    "options.num_gpu",
    "keep_alive",
  ]);
  assert.deepEqual(ignored({ options: { "a\r\nb": 1, "ü": 1, ["x".repeat(33)]: 1, constructor: 1 } }), [
    "options.constructor",
  ]);
  const many = Object.fromEntries(Array.from({ length: MAX_IGNORED + 1 }, (_, index) => [`o${index}`, 1]));
  assert.equal(ignored({ options: many }).length, MAX_IGNORED);
});

Deno.test("show: the model under its new name or its old one", () => {
  assert.equal(parseOllamaShow({ model: "m", verbose: true }), "m");
  assert.equal(parseOllamaShow({ name: "n" }), "n");
  assert.equal(parseOllamaShow({ name: "n", model: "m" }), "m");
  checkRefused(parseOllamaShow, {}, "model", /got nothing$/);
  checkRefused(parseOllamaShow, { name: 5 }, "name", /got 5$/);
});

Deno.test("lines: nanoseconds, and a sum", () => {
  const usage = { promptTokens: 3, completionTokens: 2 };
  const end = ollamaEnd("length", usage, { queueMs: 0.5, prefillMs: 1.25, decodeMs: 2 });
  assert.deepEqual(ollamaLine("m", 1_700_000_000_500, { response: "x" }, { end }), {
    model: "m",
    created_at: "2023-11-14T22:13:20.500Z",
    response: "x",
    done: true,
    done_reason: "length",
    total_duration: 3_750_000,
    load_duration: 500_000,
    prompt_eval_count: 3,
    prompt_eval_duration: 1_250_000,
    eval_count: 2,
    eval_duration: 2_000_000,
  });
});

Deno.test("lines and facts have the types of Ollama's own client", () => {
  const end = ollamaEnd("stop", { promptTokens: 3, completionTokens: 2 }, { queueMs: 0, prefillMs: 1, decodeMs: 2 });
  // Theirs has dates as Date, which are texts on the wire, and a `context`, which is not given.
  const { created_at: _generated, ...generated } = ollamaLine("m", 0, ollamaResponse({ thinking: "t" }), { end });
  const { created_at: _chatted, ...chatted } = ollamaLine(
    "m",
    0,
    ollamaMessage({ text: "x", thinking: "t", toolCalls: [ollamaCall("f", "{}")] }),
    { end, logprobs: { content: [], refusal: null } },
  );
  const theirs: [Partial<GenerateResponse>, Partial<ChatResponse>] = [generated, chatted];
  assert(theirs.every(({ done, done_reason }) => done && done_reason === "stop"));
  const facts = { id: "m", name: "M", architecture: "llama", contextLength: 64, vocabSize: 32, quantization: "q4_1" };
  const sizes = [[999, "999"], [1500, "1.50K"], [134_515_008, "134.52M"], [6_738_415_616, "6.7B"]] as const;
  for (const [parameters, parameter_size] of sizes) {
    const details: Partial<ListResponse["models"][0]["details"]> = {
      ...ollamaTags({ ...facts, parameters }).models[0]!.details,
    };
    const expected = { family: "llama", families: ["llama"], parameter_size, quantization_level: "Q4_1" };
    assert.deepEqual(details, { parent_model: "", ...expected });
  }
  const shown: Omit<Partial<ShowResponse>, "details" | "model_info"> = ollamaShow({ ...facts, parameters: 7 });
  assert.deepEqual(shown.capabilities, ["completion", "tools"]);
  assert.deepEqual(ollamaShow({ ...facts, parameters: 7 }).model_info, {
    "general.architecture": "llama",
    "general.name": "M",
    "general.parameter_count": 7,
    "llama.context_length": 64,
    "llama.vocab_size": 32,
  });
});
