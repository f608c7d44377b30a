import assert from "node:assert/strict";
import { check, identified, inputSchema, itemId, ProtocolError, type ProtocolErrorCode, userMessage } from "./mod.ts";

function checkRefused(
  input: unknown,
  param: string | null,
  message: RegExp,
  code: ProtocolErrorCode = "invalid_value",
) {
  assert.throws(() => check(inputSchema, input), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.deepEqual([error.param, error.code], [param, code], error.message);
    assert.match(error.message, message);
    return true;
  });
}

const message = { type: "message", role: "user", status: "completed", content: [{ type: "input_text", text: "a" }] };

Deno.test("each way of writing a message has one form; ids of others and unknown fields are left behind", () => {
  const part = { type: "input_text", text: "a", detail: "x" };
  const ways = [
    "a",
    [{ role: "user", content: "a" }],
    [{ type: "message", role: "user", content: [part] }],
    [{ id: "msg_1", type: "message", role: "user", status: null, content: [{ type: "text", text: "a" }] }],
  ];
  for (const way of ways) assert.deepEqual(check(inputSchema, way), [message]);
  const said = { type: "output_text", text: "b", annotations: [{ type: "url_citation" }], logprobs: [] };
  const reply = {
    id: "msg_2",
    role: "assistant",
    status: "incomplete",
    content: [said, { type: "refusal", refusal: "no" }],
  };
  assert.deepEqual(check(inputSchema, [reply]), [{
    type: "message",
    role: "assistant",
    status: "incomplete",
    content: [{ type: "output_text", text: "b", annotations: [] }, { type: "refusal", refusal: "no" }],
  }]);
});

Deno.test("calls, their results, thoughts and references", () => {
  const call = { type: "function_call", call_id: "call_1", name: "f", arguments: '{"a":1}' };
  const output = [{ type: "input_text", text: "x" }, { type: "input_text", text: "y" }];
  const items = [
    { ...call, id: "fc_1" },
    { type: "function_call_output", call_id: "call_1", output },
    { id: "rs_1", type: "reasoning", summary: [], encrypted_content: null },
    { id: "msg_1" },
    { type: "item_reference", id: "msg_2" },
  ];
  assert.deepEqual(check(inputSchema, items), [
    { ...call, status: "completed" },
    { type: "function_call_output", call_id: "call_1", output: "xy", status: "completed" },
    { type: "reasoning", summary: [], content: [], status: "completed" },
    { type: "item_reference", id: "msg_1" },
    { type: "item_reference", id: "msg_2" },
  ]);
});

Deno.test("an item that is kept has an id that shows its kind", () => {
  const { id, ...body } = identified(userMessage("a"), "7");
  assert.deepEqual([id, body], ["msg_7", message]);
  assert.equal(itemId("function_call_output", "7"), "fco_7");
});

Deno.test("refused items name the field", () => {
  checkRefused("", null, /expected a text or a list of at most 4096 items, got ""$/);
  checkRefused(3, null, /got 3$/);
  checkRefused([3], "[0]", /expected an object, got 3$/);
  checkRefused([{}], "[0].type", /expected "message", .* or "item_reference", got nothing$/);
  checkRefused([{ type: 3 }], "[0].type", /got 3$/);
  checkRefused([{ role: "tool", content: "a" }], "[0].role", /expected "user", .*, got "tool"$/);
  checkRefused([{ role: "user" }], "[0].content", /expected a well-formed text or a list of text parts, got nothing$/);
  checkRefused([{ role: "user", content: [] }], "[0].content", /got a list of 0$/);
  checkRefused([{ role: "user", content: "\ud800" }], "[0].content", /well-formed/);
  checkRefused([{ role: "user", content: "a", status: "done" }], "[0].status", /got "done"$/);
  checkRefused([{ type: "function_call", call_id: "c", name: "f", arguments: {} }], "[0].arguments", /got an object$/);
  checkRefused([{ type: "function_call", call_id: "", name: "f", arguments: "" }], "[0].call_id", /1 to 256/);
  checkRefused([{ type: "function_call", call_id: "c", name: "f".repeat(129), arguments: "" }], "[0].name", /1 to 128/);
  checkRefused([{ type: "function_call_output", call_id: "c", output: null }], "[0].output", /got null$/);
  checkRefused([{ type: "item_reference", id: "x".repeat(257) }], "[0].id", /1 to 256/);
  checkRefused(Array.from({ length: 4097 }, () => message), null, /4096 items, got a list of 4097$/);
});

Deno.test("media and other items are refused as not supported, and nothing is fetched", () => {
  const images = [{ type: "input_image", image_url: "http://169.254.169.254/" }];
  const media =
    /expected "input_text" or "text", got "input_image"; images, files and audio are not supported, .* fetched$/;
  checkRefused([{ role: "user", content: images }], "[0].content[0].type", media, "unsupported_value");
  const output = [{ type: "input_file", file_url: "file:///etc/passwd" }];
  const result = { type: "function_call_output", call_id: "c", output };
  checkRefused([result], "[0].output[0].type", /got "input_file"; images, files/, "unsupported_value");
  checkRefused([{ type: "computer_call" }], "[0].type", /got "computer_call"; other items/, "unsupported_value");
  const audio = [{ role: "assistant", content: [{ type: "output_audio" }] }];
  checkRefused(audio, "[0].content[0].type", /"output_audio"; other parts/, "unsupported_value");
});
