import assert from "node:assert/strict";
import { errorBody } from "./dialects.ts";

Deno.test("each API's failures in its own words, OpenAI's elsewhere", () => {
  const wire = { message: "m", type: "t", param: null, code: "c" };
  const details = { error_code: "c", param: null };
  const bodies: Record<string, unknown> = {
    "/api/chat": { error: "m" },
    "/api/nothing": { error: "m" },
    "/generate": { error: "m", error_type: "validation" },
    "/generate_stream": { error: "m", error_type: "validation" },
    "/v1/messages": { type: "error", error: { type: "not_found_error", message: "m", details }, request_id: "r" },
    "/v1/messages/x": { type: "error", error: { type: "not_found_error", message: "m", details }, request_id: "r" },
  };
  for (const [path, body] of Object.entries(bodies)) assert.deepEqual(errorBody(path, 404, wire, "r"), body, path);
  for (const path of ["/api", "/api/v1/token_check", "/v1/api/chat", "/generates", "/v1/messagesx", "/healthz"]) {
    assert.deepEqual(errorBody(path, 404, wire, "r"), { error: wire }, path);
  }
});
