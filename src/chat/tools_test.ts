import assert from "node:assert/strict";
import { JinjaTemplate } from "./jinja.ts";
import type { ChatMessage, Tool } from "./message.ts";
import { notationOf } from "./notation.ts";
import { plainMessages, renderChat } from "./plain_tools.ts";
import { selectTemplate } from "./select.ts";
import { FORMATS } from "./templates.ts";
import { TurnTemplate } from "./turns.ts";

const MODEL = { bosToken: "<s>", eosToken: "</s>", addsBos: true };
const WEATHER: Tool = {
  name: "weather",
  description: "of a city",
  parameters: { type: "object", properties: { city: { type: "string" } } },
};
const CALLED: readonly ChatMessage[] = [
  { role: "user", content: "Rain?" },
  {
    role: "assistant",
    content: "",
    reasoning: "look",
    toolCalls: [{ id: "call00001", name: "weather", arguments: '{"city": "Bonn"}' }],
  },
  { role: "tool", content: "dry", toolCallId: "call00001" },
];

/** What a template writes, in parts. */
function render(source: string, messages = CALLED, options = {}): string[] {
  return new JinjaTemplate(source, MODEL).render(messages, { specialTokens: ["</s>"], ...options }).prompt;
}

Deno.test("templates see tools, calls, results and thoughts as Hugging Face writes them", () => {
  assert.deepEqual(JSON.parse(render("{{ messages | tojson }}").join("")), [
    { role: "user", content: "Rain?" },
    {
      role: "assistant",
      content: "",
      reasoning_content: "look",
      tool_calls: [{ id: "call00001", type: "function", function: { name: "weather", arguments: { city: "Bonn" } } }],
    },
    { role: "tool", content: "dry", tool_call_id: "call00001", name: "weather" },
  ]);
  const { name, description, parameters } = WEATHER;
  const tools = [WEATHER, { name: "now" }];
  assert.deepEqual(JSON.parse(render("{{ tools | tojson }}", CALLED, { tools }).join("")), [
    { type: "function", function: { name, description, parameters } },
    { type: "function", function: { name: "now", parameters: { type: "object", properties: {} } } },
  ]);
  const defined = "{{ tools is defined }} {{ 'tool_calls' in messages[0] }}";
  assert.deepEqual(render(defined), ["false false"]);
  assert.deepEqual(render(defined, CALLED, { tools: [] }), ["false false"]);
});

Deno.test("arguments that are no object stay the text that they are", () => {
  for (const args of ["{oops", '"text"', "5", "null", ""]) {
    const messages: ChatMessage[] = [
      { role: "assistant", content: "", toolCalls: [{ id: "1", name: "f", arguments: args }] },
    ];
    assert.equal(render("{{ messages[0].tool_calls[0].function.arguments }}", messages).join(""), args);
  }
});

Deno.test("variables reach a template and hide none of ours", () => {
  const variables = { enable_thinking: false, messages: "no", bos_token: "no", range: "no", true: 0, __proto__: 1 };
  const source = "{{ enable_thinking }} {{ messages | length }} {{ bos_token }} {{ range(2) | length }} {{ true }}";
  assert.deepEqual(render(source, CALLED, { variables }), ["false 3 <s> 2 true"]);
});

Deno.test("special tokens stay text in calls, results, descriptions, schemas, thoughts and variables", () => {
  const nasty = "a</s>b";
  const messages: ChatMessage[] = [
    {
      role: "assistant",
      content: "",
      reasoning: nasty,
      toolCalls: [
        { id: nasty, name: nasty, arguments: `{"${nasty}": "\\u003c/s>"}` },
        { id: "2", name: "f", arguments: `{${nasty}` },
      ],
    },
    { role: "tool", content: nasty, toolCallId: nasty },
  ];
  const tools: Tool[] = [{ name: nasty, description: nasty, parameters: { [nasty]: [nasty] } }];
  const source = "{{ messages | tojson }}{{ tools | tojson }}{{ v }}</s>";
  const parts = render(source, messages, { tools, variables: { v: nasty } });
  assert.equal(parts.join("").match(/<\/s>/g)!.length, 15);
  assert.deepEqual(parts.filter((part) => part.includes("</s>")), ["/s>b</s>"]);
  for (const format of FORMATS.filter(({ name }) => name === "chatml" || name === "raw")) {
    const { prompt } = renderChat(new TurnTemplate(format), messages, { specialTokens: ["</s>"], tools });
    assert(prompt.every((part) => !part.includes("</s>")), format.name);
    assert(prompt.length > 7);
  }
});

Deno.test("calls that are nested without end are refused, or text", () => {
  const deep = `{"a": ${"[".repeat(100_000)}${"]".repeat(100_000)}}`;
  const messages: ChatMessage[] = [
    { role: "assistant", content: "", toolCalls: [{ id: "1", name: "f", arguments: deep }] },
  ];
  assert.throws(() => render("x", messages), { code: "invalid_message" });
  assert(renderChat(new TurnTemplate(FORMATS[4]), messages, { specialTokens: [] }).prompt[0]!.includes(deep));
});

Deno.test("how templates write calls, by what is in them", () => {
  const cases = [
    ["{{ tools }}<tool_call>", "hermes"],
    ["<tool_call>", undefined],
    ["{{ tools }}<tool_call><function=f>", undefined],
    ["{{ tools }}[TOOL_CALLS]", "mistral"],
    ["{{ tools }}[TOOL_CALLS]f[ARGS]", undefined],
    ["{{ tools }}<tool_call><invoke name=", undefined],
    [`{{ tools }}'"parameters": '`, undefined],
    [`{{ tools }}'"parameters": 'ipython`, "llama"],
    [`ipython{{ tools }}'"parameters": '`, "llama"],
    ["{{ tools }}", undefined],
    ["{{ my_tools }}<tool_call>", undefined],
  ] as const;
  for (const [source, expected] of cases) assert.equal(notationOf(source), expected, source);
});

Deno.test("a model's template for tools is taken where there are tools", () => {
  const chatTemplate = [{ name: "default", template: "plain" }, {
    name: "tool_use",
    template: "<tool_call>{{ tools | length }}",
  }];
  const { template } = selectTemplate({ name: "m", chatTemplate, ...MODEL });
  assert.equal(template.tools, "hermes");
  assert.deepEqual(template.render(CALLED, { specialTokens: [], tools: [WEATHER] }).prompt, ["<tool_call>1"]);
  assert.deepEqual(template.render(CALLED, { specialTokens: [] }).prompt, ["plain"]);
});

Deno.test("tools in plain text: functions behind the system text, calls in replies, results as one user turn", () => {
  const messages: ChatMessage[] = [
    ...CALLED,
    { role: "tool", content: "18 °C" },
    { role: "user", content: "And Köln?" },
    { role: "assistant", content: "a", toolCalls: [{ id: "1", name: "f", arguments: "oops" }] },
  ];
  assert.deepEqual(plainMessages(messages), [
    { role: "user", content: "Rain?" },
    {
      role: "assistant",
      content: '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>',
      reasoning: "look",
    },
    {
      role: "user",
      content: "<tool_response>\ndry\n</tool_response>\n<tool_response>\n18 °C\n</tool_response>\nAnd Köln?",
    },
    { role: "assistant", content: 'a\n<tool_call>\n{"name": "f", "arguments": "oops"}\n</tool_call>' },
  ]);
  const vicuna = new TurnTemplate(FORMATS[0]);
  const { prompt } = renderChat(vicuna, CALLED, { specialTokens: [], tools: [WEATHER] });
  assert(prompt[0]!.startsWith(`${FORMATS[0].system.text}\n\n# Tools\n`));
  assert(prompt[0]!.endsWith("</tool_call></s>USER: <tool_response>\ndry\n</tool_response> ASSISTANT:"));
  assert.equal(prompt[0]!.match(/"description":"of a city"/g)!.length, 1);
  const own = renderChat(vicuna, [{ role: "system", content: "Be brief." }, ...CALLED], {
    specialTokens: [],
    tools: [WEATHER],
  });
  assert(own.prompt[0]!.startsWith("Be brief.\n\n# Tools\n"));
});

Deno.test("a template that refuses a system text gets the functions in front of the first message", () => {
  const source = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}" +
    "{{ m.role }}:{{ m.content }}\n{% endfor %}";
  const template = new JinjaTemplate(source, MODEL);
  const [prompt] = renderChat(template, CALLED, { specialTokens: [], tools: [WEATHER] }).prompt;
  assert(prompt!.startsWith("user:# Tools\n"));
  assert.equal(prompt!.match(/weather/g)!.length, 2);
  assert(prompt!.includes("</tool_call>\n\nRain?\nassistant:<tool_call>"), prompt);
  const own: ChatMessage[] = [{ role: "system", content: "Be brief." }, ...CALLED];
  assert.throws(() => renderChat(template, own, { specialTokens: [], tools: [WEATHER] }), { code: "refused" });
  assert.throws(() => renderChat(template, own, { specialTokens: [] }), { code: "refused" });
});

Deno.test("templates with tools of their own get the conversation as it is", () => {
  const template = new JinjaTemplate("{{ tools | length }}<tool_call>{{ messages[2].role }}", MODEL);
  assert.deepEqual(renderChat(template, CALLED, { specialTokens: [], tools: [WEATHER] }).prompt, ["1<tool_call>tool"]);
});
