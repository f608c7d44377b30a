import assert from "node:assert/strict";
import { JinjaTemplate } from "../chat/jinja.ts";
import type { ChatMessage } from "../chat/message.ts";
import type { ChatTemplate } from "../chat/template.ts";
import { EngineError, type GenerateEvent } from "../engine/engine.ts";
import { FakeEngine, type FakeOptions } from "../engine/fake.ts";
import { runTurn, type TurnOptions } from "./turn.ts";

const CHATML = new JinjaTemplate(
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n",
  { addsBos: false },
);
const HI: readonly ChatMessage[] = Object.freeze([Object.freeze({ role: "user", content: "Hi" } as const)]);

interface Turn {
  events: GenerateEvent[];
  messages: readonly ChatMessage[];
  engine: FakeEngine;
}

async function turn(
  fake: FakeOptions,
  options: Partial<TurnOptions> = {},
  onEvent?: (event: GenerateEvent) => void,
): Promise<Turn> {
  await using engine = new FakeEngine(fake);
  const events: GenerateEvent[] = [];
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
