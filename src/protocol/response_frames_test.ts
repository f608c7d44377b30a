import assert from "node:assert/strict";
import { type ClientFrame, ProtocolError, receiveFrame } from "./mod.ts";

const create = { type: "response.create", model: "m", input: "hi" };

function parse(frame: unknown): ClientFrame {
  return receiveFrame(JSON.stringify(frame)).read();
}

function checkRefused(frame: unknown, param: string | null, message: RegExp): void {
  const text = typeof frame === "string" ? frame : JSON.stringify(frame);
  assert.throws(() => receiveFrame(text).read(), (error) => {
    assert(error instanceof ProtocolError, String(error));
    assert.equal(error.param, param, error.message);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("response.create: the request, its lane, what becomes of it without its socket", () => {
  const frame = parse({ ...create, stream: true });
  assert(frame.type === "response.create");
  assert.deepEqual([frame.streamId, frame.onDisconnect, frame.request.generate], [undefined, "cancel", true]);
  const other = parse({ ...create, stream_id: "a", on_disconnect: "continue", generate: false });
  assert(other.type === "response.create");
  assert.deepEqual([other.streamId, other.onDisconnect, other.request.generate], ["a", "continue", false]);
});

Deno.test("response.cancel, response.resume, session.update", () => {
  const [responseId, all] = ["resp_1", { type: "response.resume", responseId: "resp_1", startingAfter: -1 }];
  assert.deepEqual(parse({ type: "response.cancel", response_id: responseId }), {
    type: "response.cancel",
    responseId,
  });
  assert.deepEqual(parse({ type: "response.resume", response_id: responseId }), all);
  const rest = { type: "response.resume", response_id: responseId, starting_after: 7 };
  assert.deepEqual(parse(rest), { ...all, startingAfter: 7 });
  const session = { type: "session.update", api_key: "k", heartbeat_ms: 1000 };
  assert.deepEqual(parse(session), { type: "session.update", apiKey: "k", heartbeatMs: 1000 });
  assert.partialDeepStrictEqual(parse({ type: "session.update", heartbeat_ms: 0 }), { heartbeatMs: 0 });
});

Deno.test("refused frames name the field", () => {
  checkRefused("{", null, /^request: expected JSON, got "\{": /);
  checkRefused("3", null, /expected an object, got 3$/);
  checkRefused({}, "type", /expected "response.create" or .*, got nothing$/);
  checkRefused({ type: "response.steer" }, "type", /got "response.steer"$/);
  checkRefused({ ...create, stream_id: 3 }, "stream_id", /got 3$/);
  checkRefused({ ...create, on_disconnect: "x" }, "on_disconnect", /got "x"$/);
  checkRefused({ ...create, background: true }, "background", /on_disconnect "continue"/);
  checkRefused({ ...create, temperature: 3 }, "temperature", /got 3$/);
  checkRefused({ type: "response.cancel" }, "response_id", /got nothing$/);
  for (const starting_after of [-2, 0.5, "1", 2 ** 53]) {
    checkRefused({ type: "response.resume", response_id: "r", starting_after }, "starting_after", /-1 to/);
  }
  for (const heartbeat_ms of [-1, 1, 999, 600_001, "1000"]) {
    checkRefused(
      { type: "session.update", heartbeat_ms },
      "heartbeat_ms",
      /expected (0 or )?an integer from .* to 600000/,
    );
  }
});

Deno.test("the refusal of a frame can name its lane", () => {
  const received = receiveFrame(JSON.stringify({ ...create, stream_id: "a", temperature: 3 }));
  assert.equal(received.streamId, "a");
  assert.throws(() => received.read(), { param: "temperature" });
});
