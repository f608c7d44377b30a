import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { delay } from "@std/async/delay";
import type { EngineError } from "../engine/engine.ts";
import { createApp } from "../api/app.ts";
import type { LogEntry } from "../api/log.ts";
import { MemoryStore } from "../sessions/memory_store.ts";
import type { Store } from "../sessions/store.ts";
import type { HandlerParts } from "./deps.ts";
import { type Stage, stage, started } from "./test_support.ts";

const ARGS = ["serve", "--model", "dir/toy's.gguf", "--port", "0", "--store", "memory"];

const REQUEST = {
  event: "request",
  requestId: "r",
  key: "anybody",
  method: "GET",
  status: 200,
  headMs: 1,
  ms: 1.4,
} as const;

function start(on: Stage, ...more: string[]): Promise<{ url: string; running: Promise<number> }> {
  return started(on, ...ARGS, ...more);
}

Deno.test("it says where it is and how to ask, answers, and ends with a signal", async () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const parts: HandlerParts[] = [];
    const on = stage({}, {
      createHandler: (given) => {
        parts.push(given);
        return () => new Response("here");
      },
    });
    const { url, running } = await start(on);
    assertEquals(await (await fetch(url)).text(), "here");
    assertEquals([parts[0]?.modelId, parts[0]?.aliases, parts[0]?.engine], ["toy's", ["toy's.gguf"], on.engine]);
    assertStringIncludes(on.terminal.output, `serving toy's at ${url} (Ctrl-C stops)\n\ncurl -N ${url}/v1/chat/`);
    assertStringIncludes(on.terminal.output, `-d '{"model":"toy'\\''s","messages"`);
    on.terminal.signal(signal);
    assertEquals(await running, 0);
    assertMatch(on.terminal.errors, /stopping; a second signal stops at once\nllamero: stopped\n$/);
  }
});

Deno.test("flags for sampling and length are what requests leave open", async () => {
  const parts: HandlerParts[] = [];
  const on = stage({}, {
    createHandler: (given) => {
      parts.push(given);
      return () => new Response();
    },
  });
  const { running } = await start(on, "--temperature", "0", "--top-p", "0.9", "--max-tokens", "30");
  on.terminal.signal("SIGINT");
  await running;
  assertEquals(JSON.parse(JSON.stringify(parts[0]?.defaults)), {
    sampling: { temperature: 0, topP: 0.9 },
    maxTokens: 30,
  });
});

Deno.test("flags for limits reach the application", async () => {
  const parts: HandlerParts[] = [];
  const on = stage({}, {
    createHandler: (given) => {
      parts.push(given);
      return () => new Response();
    },
  });
  const { running } = await start(on, "--limit-tokens", "9", "--limit-choices", "2", "--request-timeout", "1.5");
  on.terminal.signal("SIGINT");
  await running;
  assertEquals(parts[0]?.requestLimits, { maxTokens: 9, maxChoices: 2, timeoutMs: 1500 });
});

Deno.test("a running reply may end after the signal", async () => {
  const on = stage({ reply: "one two three four five", tokenMs: 30 }, {
    createHandler: ({ engine }) => async () => {
      let text = "";
      for await (const event of engine.generate({ prompt: ["x"] })) if (event.type === "text") text += event.text;
      return new Response(text);
    },
  });
  const { url, running } = await start(on);
  const answer = fetch(url).then((response) => response.text());
  while (on.engine.stats().running === 0) await delay(5);
  on.terminal.signal("SIGTERM");
  assertEquals([await answer, await running], ["one two three four five", 0]);
});

/** A stage whose handler is the real application. */
function served(fake: Parameters<typeof stage>[0]): Stage {
  return stage(fake, {
    createHandler: (parts) => {
      const app = createApp(parts);
      return (request) => app.fetch(request);
    },
  });
}

function chat(url: string): Promise<Response> {
  const body = JSON.stringify({ model: "toy's", messages: [{ role: "user", content: "hi" }], stream: true });
  return fetch(`${url}/v1/chat/completions`, { method: "POST", headers: { "content-type": "application/json" }, body });
}

Deno.test("after the deadline a stream ends with an error event", async () => {
  const on = served({ reply: "one two three", tokenMs: 60_000 });
  const { url, running } = await start(on, "--chat-template", "vicuna-v1.1", "--drain", "0.2");
  const stream = await chat(url);
  while (on.engine.stats().running === 0) await delay(5);
  on.terminal.signal("SIGTERM");
  const text = await stream.text();
  assertEquals(await running, 0);
  const last = JSON.parse(text.trim().split("\n\n").at(-1)!.replace(/^data: /, ""));
  assertEquals(last.error.code, "closed");
});

Deno.test("a response in the background is kept as it ended before the store is closed", async () => {
  const kept = new MemoryStore();
  let closed = false;
  const slow: Store = {
    get: (key) => kept.get(key),
    async commit(write) {
      await delay(50);
      assertEquals(closed, false);
      return await kept.commit(write);
    },
    async [Symbol.asyncDispose]() {
      await delay(0);
      closed = true;
    },
  };
  const on = stage({ reply: "one two three", tokenMs: 60_000 }, {
    openStore: () => Promise.resolve(slow),
    createHandler: (parts) => {
      const app = createApp(parts);
      return (request) => app.fetch(request);
    },
  });
  const { url, running } = await start(on, "--store", "there", "--drain", "0");
  const body = JSON.stringify({ model: "toy's", input: "hi", background: true });
  const headers = { "content-type": "application/json" };
  const { id } = await (await fetch(`${url}/v1/responses`, { method: "POST", headers, body })).json();
  while (on.engine.stats().running === 0) await delay(5);
  on.terminal.signal("SIGTERM");
  assertEquals(await running, 0);
  const entry = await kept.get<{ response: { status: string } }>(["responses", "anybody", id]);
  assertEquals([entry?.value.response.status, closed], ["failed", true]);
});

Deno.test("a second signal does not wait for replies", async () => {
  const on = stage({ reply: "one two three", tokenMs: 60_000 }, {
    createHandler: ({ engine }) => async (request) => {
      try {
        for await (const _ of engine.generate({ prompt: ["x"] }, { signal: request.signal }));
        return new Response("whole");
      } catch (error) {
        return new Response((error as EngineError).code);
      }
    },
  });
  const { url, running } = await start(on);
  const answer = fetch(url).then((response) => response.text(), () => "cut");
  while (on.engine.stats().running === 0) await delay(5);
  on.terminal.signal("SIGINT");
  on.terminal.signal("SIGINT");
  assertEquals(await running, 0);
  assertEquals(["closed", "cut"].includes(await answer), true);
});

Deno.test("a port in use is a sentence, found before a model is loaded", async () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { terminal, opened, run } = stage();
  assertEquals(await run("serve", "--model", "toy.gguf", "--port", String(taken.addr.port)), 1);
  assertEquals(opened.length, 0);
  assertEquals(
    terminal.errors,
    `llamero: listening on 127.0.0.1 port ${taken.addr.port} failed: the port is in use; choose another with --port\n`,
  );
});

Deno.test("--json: objects for programs; --quiet: failures alone", async () => {
  const on = stage({}, {
    createHandler: ({ log }) => () => {
      log({ ...REQUEST, path: "/" });
      log({ event: "failure", requestId: "r", message: "bad" });
      return new Response();
    },
  });
  const ask = async (...more: string[]) => {
    const { url, running } = await start(on, ...more);
    await (await fetch(url)).body?.cancel();
    on.terminal.signal("SIGINT");
    await running;
    return { url, errors: on.terminal.errors };
  };
  const { url, errors } = await ask("--json");
  assertEquals(JSON.parse(on.terminal.output), { event: "listening", url, model: "toy's" });
  const events = errors.trimEnd().split("\n").map((line) => JSON.parse(line).event);
  assertEquals(events, ["request", "failure", "stopping", "stopped"]);
});

/** What a server says that logs these entries. */
async function logged(flags: string[], entries: LogEntry[]): Promise<string[]> {
  const on = stage({}, {
    createHandler: ({ log }) => () => {
      for (const entry of entries) log(entry);
      return new Response();
    },
  });
  const { url, running } = await start(on, ...flags);
  await (await fetch(url)).body?.cancel();
  const { errors } = on.terminal;
  on.terminal.signal("SIGINT");
  await running;
  return errors.trimEnd().split("\n");
}

Deno.test("the log tells who, tokens and outcome; nothing in it begins a line or moves a terminal", async () => {
  const facts = { outcome: "stop", promptTokens: 3, completionTokens: 2 };
  const hostile = "a\r\nllamero: forged\x1b[2J\x9b31m\u202e";
  const entries: LogEntry[] = [
    { ...REQUEST, ...facts, path: "/x", key: "alice" },
    { event: "reply", requestId: "r", key: "bob", ms: 2, ...facts, outcome: "left" },
    { ...REQUEST, ...facts, path: "/x", prompts: ["hi"], replies: ["ho"] },
    { event: "failure", requestId: hostile, message: hostile, stack: hostile },
  ];
  const escaped = "a\\u000d\n  llamero: forged\\u001b[2J\\u009b31m\\u202e";
  assertEquals(await logged([], entries), [
    "llamero: GET /x 200, 1 ms, alice, 3 + 2 tokens, stop",
    "llamero: reply, 2 ms, bob, 3 + 2 tokens, left",
    'llamero: GET /x 200, 1 ms, 3 + 2 tokens, stop, {"prompts":["hi"],"replies":["ho"]}',
    ...`llamero: ${escaped}`.split("\n"),
  ]);
  const lines = await logged(["--json"], entries);
  assertEquals(lines.map((line) => JSON.parse(line)), JSON.parse(JSON.stringify(entries)));
  // deno-lint-ignore no-control-regex -- they are what is looked for
  assertEquals(lines.filter((line) => /[\x00-\x1f\x7f-\x9f\u202e]/.test(line)), []);
});

Deno.test("the log in words, and none with --quiet but failures", async () => {
  for (
    const [flags, expected] of [[[], "llamero: GET /x 200, 1 ms\nllamero: bad\n"], [
      ["--quiet"],
      "llamero: bad\n",
    ]] as const
  ) {
    const on = stage({}, {
      createHandler: ({ log }) => () => {
        log({ ...REQUEST, path: "/x" });
        log({ event: "failure", requestId: "r", message: "bad" });
        return new Response();
      },
    });
    const { url, running } = await start(on, ...flags);
    await (await fetch(url)).body?.cancel();
    const errors = on.terminal.errors;
    on.terminal.signal("SIGINT");
    await running;
    assertEquals(errors, expected);
  }
});
