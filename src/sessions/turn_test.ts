import assert from "node:assert/strict";
import { JinjaTemplate } from "../chat/jinja.ts";
import type { ChatMessage } from "../chat/message.ts";
import type { ChatTemplate } from "../chat/template.ts";
import { EngineError } from "../engine/engine.ts";
import { FakeEngine, type FakeOptions } from "../engine/fake.ts";
import { runTurn, type TurnOptions } from "./turn.ts";
import type { TurnEvent } from "./turn_event.ts";

const CHATML = new JinjaTemplate(
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n",
  { addsBos: false },
);
const HI: readonly ChatMessage[] = Object.freeze([Object.freeze({ role: "user", content: "Hi" } as const)]);

interface Turn {
  events: TurnEvent[];
  messages: readonly ChatMessage[];
  engine: FakeEngine;
}

async function turn(
  fake: FakeOptions,
  options: Partial<TurnOptions> = {},
  onEvent?: (event: TurnEvent) => void,
): Promise<Turn> {
  await using engine = new FakeEngine(fake);
  const events: TurnEvent[] = [];
  const running = runTurn({ engine, template: CHATML, messages: HI, ...options });
  for (;;) {
    const { done, value } = await running.next();
    if (done) return { events, messages: value, engine };
    events.push(value);
    onEvent?.(value);
  }
}

Deno.test("yields the engine's events and returns the longer conversation", async () => {
  const { events, messages } = await turn({ reply: "Hello there" });
  assert.deepEqual(
    events.map((event) => event.type === "text" ? event.text : event.type === "done" ? event.reason : event.type),
    [
      "started",
      "Hello",
      " there",
      "stop",
    ],
  );
  assert.deepEqual(messages, [...HI, { role: "assistant", content: "Hello there" }]);
});

Deno.test("sends the rendered prompt, guarded, and the options", async () => {
  const sampling = { temperature: 0 };
  const { engine } = await turn({ reply: "ok" }, {
    messages: [{ role: "user", content: "a<|im_end|>b" }],
    sampling,
    maxTokens: 7,
  });
  assert.deepEqual(engine.requests, [{
    prompt: ["<|im_start|>user\na<", "|im_end|>b<|im_end|>\n<|im_start|>assistant"],
    sampling,
    maxTokens: 7,
    stop: undefined,
  }]);
});

Deno.test("takes from the operator what the request leaves open, and from the model what both do", async () => {
  const model = { defaults: { temperature: 0.9, topP: 0.6, topK: 20, maxLength: 4096 } };
  const defaults = { sampling: { temperature: 1, topP: 0.8 }, maxTokens: 50 };
  const ask = async (options: Partial<TurnOptions>) => {
    const { engine } = await turn({ reply: "ok", model }, options);
    const { sampling, maxTokens } = engine.requests[0]!;
    return [sampling, maxTokens];
  };
  assert.deepEqual(await ask({}), [{ temperature: 0.9, topP: 0.6, topK: 20 }, undefined]);
  assert.deepEqual(await ask({ defaults }), [{ temperature: 1, topP: 0.8, topK: 20 }, 50]);
  const request = { sampling: { temperature: 0 }, maxTokens: 7 };
  assert.deepEqual(await ask({ defaults, ...request }), [{ temperature: 0, topP: 0.8, topK: 20 }, 7]);
});

Deno.test("ends replies where the model recommends it, but for prompts that go beyond it", async () => {
  const template: ChatTemplate = { name: "t", render: () => ({ prompt: ["abcd"], stop: [] }) };
  // A token for each character, and the begin token.
  for (const [maxLength, expected] of [[8, 3], [6, 1], [5, undefined], [2048, undefined], [undefined, undefined]]) {
    const { engine } = await turn({ reply: "ok", model: { contextLength: 2048, defaults: { maxLength } } }, {
      template,
    });
    assert.equal(engine.requests[0]!.maxTokens, expected, `${maxLength}`);
  }
});

Deno.test("joins the stop texts of template and caller", async () => {
  const template: ChatTemplate = { name: "t", render: () => ({ prompt: ["x"], stop: ["###", "USER:"] }) };
  const { engine, messages } = await turn({ reply: "one ### two" }, { template, stop: ["END", "###"] });
  assert.deepEqual(engine.requests[0]!.stop, ["###", "USER:", "END"]);
  assert.deepEqual(messages.at(-1), { role: "assistant", content: "one " });
});

Deno.test("keeps what was said when the turn is cancelled", async () => {
  const controller = new AbortController();
  const { events, messages } = await turn({ reply: "one two three four" }, { signal: controller.signal }, (event) => {
    if (event.type === "text" && event.completionTokens === 2) controller.abort();
  });
  const last = events.at(-1);
  assert.equal(last?.type === "done" && last.reason, "cancelled");
  assert.deepEqual(messages, [...HI, { role: "assistant", content: "one two" }]);
});

Deno.test("appends nothing when nothing was said", async () => {
  const aborted = await turn({ reply: "one" }, { signal: AbortSignal.abort() });
  assert.deepEqual(aborted.messages, HI);
  for (const reply of ["", " \n"]) assert.deepEqual((await turn({ reply })).messages, HI);
});

Deno.test("fails as the engine does", async () => {
  const error = new EngineError("internal", "decoding failed");
  const seen: string[] = [];
  const running = turn({ reply: "a b c", failure: { tokens: 1, error } }, {}, (event) => void seen.push(event.type));
  await assert.rejects(running, error);
  assert.deepEqual(seen, ["started", "text"]);
  await assert.rejects(turn({ model: { contextLength: 8 } }), { code: "context_overflow" });
});

Deno.test("fails as the template does, without asking the engine", async () => {
  await using engine = new FakeEngine();
  await assert.rejects(runTurn({ engine, template: CHATML, messages: [] }).next(), { code: "invalid_message" });
  assert.deepEqual(engine.requests, []);
});

Deno.test("frees the engine when the turn is left", async () => {
  await using engine = new FakeEngine({ tokenMs: 1 });
  for await (const event of runTurn({ engine, template: CHATML, messages: HI })) {
    if (event.type === "text") break;
  }
  assert.equal(engine.stats().running, 0);
});

const TOOLS = [{ name: "weather", description: "of a city" }];
const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>';
const ids = () => {
  let next = 0;
  return { newCallId: () => `call${next++}` };
};

Deno.test("tells calls and their arguments, and keeps them in the conversation", async () => {
  const { events, messages, engine } = await turn({ reply: `Wait. ${CALL}` }, { tools: TOOLS, ...ids() });
  const { prompt } = engine.requests[0]!;
  assert(prompt.join("").includes('"description":"of a city"'));
  assert.deepEqual(events.filter(({ type }) => type === "tool_call"), [
    { type: "tool_call", index: 0, id: "call0", name: "weather" },
  ]);
  const args = events.flatMap((event) => event.type === "tool_arguments" ? [event.text] : []);
  assert(args.length > 1);
  assert.equal(args.join(""), '{"city": "Bonn"}');
  const last = events.at(-1)!;
  assert(last.type === "done" && last.reason === "stop");
  assert.deepEqual(messages.at(-1), {
    role: "assistant",
    content: "Wait.",
    toolCalls: [{ id: "call0", name: "weather", arguments: '{"city": "Bonn"}' }],
  });
  const again = await turn({ reply: "ok" }, { messages, tools: TOOLS });
  assert(again.engine.requests[0]!.prompt.join("").includes(CALL));
});

Deno.test("ids of calls are random, of nine letters and digits", async () => {
  const { events } = await turn({ reply: `${CALL}${CALL}` }, { tools: TOOLS });
  const ids = events.flatMap((event) => event.type === "tool_call" ? [event.id] : []);
  assert.equal(new Set(ids).size, 2);
  for (const id of ids) assert.match(id, /^[0-9a-z]{9}$/);
});

Deno.test("a reply is over after its first call where one is all there may be", async () => {
  for (const reply of [`${CALL} ${CALL} and on`, `${CALL}`]) {
    const { events, messages } = await turn({ reply, tokenMs: 0 }, {
      tools: TOOLS,
      parallelToolCalls: false,
      ...ids(),
    });
    const last = events.at(-1)!;
    assert(last.type === "done" && last.reason === "stop");
    assert.equal(events.filter(({ type }) => type === "tool_call").length, 1);
    assert.equal(messages.at(-1)!.toolCalls!.length, 1);
    assert.equal(messages.at(-1)!.content, "");
  }
});

Deno.test("without tools, or when none may be called, a call is text, and the model is told of none", async () => {
  for (const options of [{}, { tools: TOOLS, toolChoice: "none" } as const]) {
    const { messages, engine } = await turn({ reply: CALL }, options);
    assert.equal(messages.at(-1)!.content, CALL);
    assert(!engine.requests[0]!.prompt.join("").includes("weather"));
  }
});

Deno.test("refuses a choice of what is not offered, and what the engine cannot", async () => {
  const refused = (options: Partial<TurnOptions>, code: string, constrains = true) =>
    assert.rejects(turn({ model: { constrains } }, options), { code });
  await refused({ tools: TOOLS, toolChoice: { name: "other" } }, "invalid_request");
  await refused({ toolChoice: { name: "weather" } }, "invalid_request");
  await refused({ toolChoice: "required" }, "invalid_request");
  await refused({ tools: TOOLS, toolChoice: "required" }, "unsupported", false);
  await refused({ tools: [{ ...TOOLS[0]!, strict: true }] }, "unsupported", false);
  await refused({ constraint: { type: "json_object" } }, "unsupported", false);
  await turn({ model: { constrains: false } }, { tools: TOOLS });
});

Deno.test("thoughts are told apart where the template has them, or when asked", async () => {
  const source =
    "{{ messages[0].content }}{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}";
  const thinks = new JinjaTemplate(`${source}{# <think> #}`, { addsBos: false });
  const open = new JinjaTemplate("{{ messages[0].content }}<think>\n", { addsBos: false });
  const cases: [ChatTemplate, string, Partial<TurnOptions>, (string | undefined)[]][] = [
    [thinks, "<think>a b</think> c", {}, ["a b", "c"]],
    [thinks, "<think>a b</think> c", { reasoning: false }, [undefined, "<think>a b</think> c"]],
    [CHATML, "<think>a b</think> c", {}, [undefined, "<think>a b</think> c"]],
    [CHATML, "<think>a b</think> c", { reasoning: true }, ["a b", "c"]],
    [open, "a b </think> c", {}, ["a b", "c"]],
    [open, "a b </think> c", { reasoning: false }, [undefined, "a b </think> c"]],
    [thinks, "a", { variables: { enable_thinking: false } }, [undefined, "a"]],
  ];
  for (const [template, reply, options, expected] of cases) {
    const { messages, engine } = await turn({ reply }, { template, ...options });
    assert.deepEqual([messages.at(-1)!.reasoning, messages.at(-1)!.content], expected);
    if (options.variables) assert.equal(engine.requests[0]!.prompt.join(""), "Hi<think></think>");
  }
});

Deno.test("a constraint leaves room for thoughts where the template has them", async () => {
  const constraint = { type: "json_object" } as const;
  const thinks = new JinjaTemplate("x{# <think> #}", { addsBos: false });
  const asked = async (options: Partial<TurnOptions>) => {
    const { engine } = await turn({ reply: "ok" }, { constraint, ...options });
    return engine.requests[0]!.constraint!;
  };
  assert.equal((await asked({ template: thinks })).type, "grammar");
  assert.equal((await asked({ template: thinks, reasoning: false })).type, "json_object");
  assert.equal((await asked({ reasoning: true })).type, "json_object");
});

Deno.test("log probabilities stay with their text, also where it becomes something else", async () => {
  const generation = { logprobs: 1, promptLogprobs: 0 };
  const { events, engine } = await turn({ reply: `Wait. ${CALL}` }, { tools: TOOLS, generation });
  assert.equal(engine.requests[0]!.logprobs, 1);
  const tokens = events.flatMap((event) => event.type === "text" ? event.logprobs ?? [] : []);
  assert.equal(tokens.map(({ token }) => token).join(""), `Wait. ${CALL}`);
  assert.equal(events.filter((event) => event.type === "text" && event.promptLogprobs).length, 1);
});
