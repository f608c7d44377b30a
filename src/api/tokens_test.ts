import assert from "node:assert/strict";
import { ChatTemplateError } from "../chat/message.ts";
import type { ChatTemplate } from "../chat/template.ts";
import type { AppOptions } from "./app.ts";
import { done, events, postRequest, testApp } from "./test_support.ts";

async function post(path: string, value: unknown, options: Partial<AppOptions> = {}) {
  const { app, engine } = testApp(events(done()), options);
  const response = await app.request(postRequest(path, value));
  return { status: response.status, body: await response.json(), engine };
}

async function checkRefused(path: string, value: unknown, expected: unknown[], message: RegExp): Promise<void> {
  const { status, body: { error } } = await post(path, value);
  assert.deepEqual([status, error.code, error.param], expected);
  assert.match(error.message, message);
}

Deno.test("POST /tokenize and /detokenize: there and back", async () => {
  const { body, engine } = await post("/tokenize", { content: "a</s>🦙", add_special: true });
  assert.deepEqual(body, { tokens: engine.encode(["a</s>🦙"]) });
  const { tokens } = (await post("/tokenize", { prompt: "a</s>🦙", model: "model.gguf" })).body;
  assert.deepEqual(tokens, body.tokens.slice(1));
  assert.equal((await post("/tokenize", { prompt: "a</s>", parse_special: false })).body.tokens.length, 5);
  assert.deepEqual((await post("/detokenize", { tokens })).body, { content: "a</s>🦙" });
  assert.deepEqual((await post("/detokenize", { tokens: [] })).body, { content: "" });
});

Deno.test("POST /apply-template: the prompt that messages become", async () => {
  const messages = [{ role: "system", content: "be brief" }, { role: "user", content: "hi" }];
  const { status, body } = await post("/apply-template", { messages });
  assert.deepEqual([status, body], [200, { prompt: "system:be brief\nuser:hi\n" }]);
  const render = () => {
    throw new ChatTemplateError("invalid_order", "expected role user, got assistant");
  };
  const tools = [{ type: "function", function: { name: "weather" } }];
  assert.match((await post("/apply-template", { messages, tools })).body.prompt, /# Tools\n[^]*"weather"/);
  const variables: unknown[] = [];
  const template: ChatTemplate = {
    name: "t",
    tools: "hermes",
    render(_messages, options) {
      variables.push(options.variables);
      return { prompt: [], stop: [] };
    },
  };
  await post("/apply-template", { messages, chat_template_kwargs: { enable_thinking: false } }, { template });
  assert.deepEqual(variables, [{ enable_thinking: false }]);
  const refused = await post("/apply-template", { messages }, { template: { name: "x", render } });
  assert.deepEqual([refused.status, refused.body.error.param], [400, "messages"]);
});

Deno.test("POST /api/v1/token_check: counts as the engine does, for each prompt", async () => {
  const prompts = ["hi", "<s>hi", ""].flatMap((prompt) =>
    [2045, 2046].map((max_tokens) => ({ model: "org/model", prompt, max_tokens }))
  );
  const { status, body } = await post("/api/v1/token_check", { prompts });
  const row = (tokenCount: number, fits: boolean) => ({ fits, tokenCount, contextLength: 2048 });
  const expected = [row(3, true), row(3, false), row(3, true), row(3, false), row(1, true), row(1, true)];
  assert.deepEqual([status, body], [200, { prompts: expected }]);
});

Deno.test("what breaks the protocol is refused in the envelope", async () => {
  const prompt = { model: "x", prompt: "hi", max_tokens: 1 };
  const messages = [{ role: "user", content: "hi" }];
  await checkRefused("/tokenize", {}, [400, "invalid_value", "content"], /got nothing$/);
  await checkRefused("/tokenize", { content: "a", model: "x" }, [404, "model_not_found", "model"], /got "x"$/);
  await checkRefused("/detokenize", { tokens: [-1] }, [400, "invalid_value", "tokens[0]"], /got -1$/);
  await checkRefused("/detokenize", { tokens: [2 ** 31 - 1] }, [400, "invalid_value", null], /expected ids below/);
  await checkRefused("/detokenize", { tokens: [], model: "x" }, [404, "model_not_found", "model"], /got "x"$/);
  await checkRefused("/apply-template", { messages: [] }, [400, "invalid_value", "messages"], /got a list of 0$/);
  await checkRefused("/apply-template", { messages, model: "x" }, [404, "model_not_found", "model"], /got "x"$/);
  await checkRefused("/api/v1/token_check", { prompts: [] }, [400, "invalid_value", "prompts"], /got a list of 0$/);
  await checkRefused("/api/v1/token_check", { prompts: [prompt] }, [404, "model_not_found", "model"], /got "x"$/);
});

Deno.test("bodies are JSON of bounded size", async () => {
  for (const path of ["/tokenize", "/detokenize", "/apply-template", "/api/v1/token_check"]) {
    const { app } = testApp(events(done()), { maxBodyBytes: 10 });
    const large = await app.request(postRequest(path, { content: "x".repeat(10) }));
    assert.deepEqual([large.status, (await large.json()).error.code], [413, "request_too_large"]);
    const plain = await app.request(postRequest(path, {}, { headers: { "content-type": "text/plain" } }));
    assert.deepEqual([plain.status, (await plain.json()).error.code], [415, "unsupported_media_type"]);
  }
});
