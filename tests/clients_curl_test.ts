/**
 * A real curl against the application behind a real listener. Skipped where there is none.
 *
 * @module
 */

import assert from "node:assert/strict";
import { serveFake, until } from "./served.ts";

const ignore = !await runs("curl", "--version");
const json = ["-H", "content-type: application/json"];
const messages = [{ role: "user", content: "hi" }];

async function runs(program: string, ...args: string[]): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args, stdout: "null", stderr: "null" }).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function curl(...args: string[]): Promise<string> {
  const command = new Deno.Command("curl", { args: ["--silent", "--show-error", ...args] });
  const { stdout, stderr } = await command.output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

Deno.test({
  name: "curl: a reply, whole and streamed",
  ignore,
  async fn() {
    await using served = serveFake({ reply: "one two" });
    const url = `http://${served.host}/v1/chat/completions`;
    const ask = async (fields: object) =>
      await curl("--no-buffer", url, ...json, "-d", JSON.stringify({ model: "fake", messages, ...fields }));
    assert.equal(JSON.parse(await ask({})).choices[0].message.content, "one two");
    const lines = (await ask({ stream: true })).trim().split("\n\n");
    assert.equal(lines.at(-1), "data: [DONE]");
    const chunks = lines.slice(0, -1).map((line) => JSON.parse(line.replace(/^data: /, "")));
    assert.equal(chunks.map(({ choices: [choice] }) => choice.delta.content ?? "").join(""), "one two");
  },
});

Deno.test({
  name: "curl: the events of a message in Anthropic's API, over a request in chunks",
  ignore,
  async fn() {
    await using served = serveFake({ reply: "one two" });
    const body = JSON.stringify({ model: "fake", max_tokens: 9, messages, stream: true });
    const chunked = ["-H", "transfer-encoding: chunked", "-H", "anthropic-version: 2023-06-01"];
    const text = await curl("-N", `http://${served.host}/v1/messages`, ...json, ...chunked, "-d", body);
    assert.match(text, /^event: message_start\n/);
    assert.match(text, /event: message_stop\ndata: \{"type":"message_stop"\}\n\n$/);
  },
});

Deno.test({
  name: "curl: a refusal has its status, and --fail sees it",
  ignore,
  async fn() {
    await using served = serveFake();
    const url = `http://${served.host}/v1/chat/completions`;
    const shown = await curl("-w", " %{http_code}", url, ...json, "-d", "{oops");
    assert.match(shown, /"code":"invalid_json"\}\} 400$/);
    assert.match(await curl("--fail", url, ...json, "-d", "{oops"), /returned error: 400/);
    assert.match(await curl("-w", " %{http_code}", url, "-d", "{}"), /expected application\/json.* 415$/);
    assert.match(await curl("-I", `http://${served.host}/healthz`), /^HTTP\/1.1 200 OK\r\n/);
  },
});

Deno.test({
  name: "curl: its end is the end of the reply",
  ignore,
  async fn() {
    await using served = serveFake({ tokenMs: 5, reply: Array(1000).fill("word ") });
    const body = JSON.stringify({ model: "fake", messages, stream: true });
    const args = ["-sN", `http://${served.host}/v1/chat/completions`, ...json, "-d", body];
    const child = new Deno.Command("curl", { args, stdout: "piped" }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    child.kill("SIGKILL");
    await reader.cancel();
    await child.status;
    await until(() => served.engine.stats().running === 0);
    assert(served.engine.stats().generatedTokens < 1000);
  },
});
