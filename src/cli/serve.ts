/**
 * `llamero serve`: one model over HTTP until a signal comes, and then an orderly end with a deadline.
 *
 * Absent here on purpose: routes (api/), and what keys and addresses are (keys.ts, listen.ts).
 *
 * @module
 */
import { delay } from "@std/async/delay";
import { ANYBODY } from "../api/caller.ts";
import type { KeyRing } from "../api/keys.ts";
import { jsonLine, type LogEntry, printable } from "../api/log.ts";
import type { Engine } from "../engine/engine.ts";
import { replyDefaults, requestLimits } from "./defaults.ts";
import type { Deps, Handler } from "./deps.ts";
import type { FlagValues, Parsed } from "./flags.ts";
import { KEY_VARIABLE, keyRing, reloadKeys } from "./keys.ts";
import { type Address, addressOf, allowed, exposure, onAddress, serverUrl, tryAddress } from "./listen.ts";
import { openStore } from "./store.ts";
import { loadModel, type LocatedModel, locateModel } from "./model.ts";
import { chooseTemplate, wantedTemplate } from "./template.ts";
import type { Terminal } from "./terminal.ts";

/** How long connections may take to close after the last reply, in milliseconds. */
const CLOSE_MS = 1_000;
/** What is said with `--quiet` as well. */
const LOUD = ["failure", "warning"];
/** How often a server that stops looks for running replies, in milliseconds. */
const POLL_MS = 50;

/** The command. */
export async function serve(deps: Deps, { values }: Parsed): Promise<number> {
  const keys = await keyRing(deps.terminal, values);
  const address = await addressOf(values, keys !== undefined);
  const access = {
    keys,
    requestLimits: requestLimits(values),
    logPrompts: values["log-prompts"] ?? false,
    ...allowed(values, address),
  };
  tryAddress(address);
  const wanted = await wantedTemplate(values);
  await using store = await openStore(deps, values);
  const model = await locateModel(deps, values);
  await using engine = await loadModel(deps, model, values);
  const template = chooseTemplate(deps, engine, model, { wanted, quiet: values.quiet });
  const log = (entry: LogEntry) => logTo(deps.terminal, entry, values);
  const named = { modelId: model.id, aliases: [model.file] };
  const closing = new AbortController();
  const work = new Set<Promise<unknown>>();
  const parts = {
    engine,
    template,
    defaults: replyDefaults(values),
    ...named,
    ...access,
    store,
    log,
    closing: closing.signal,
    onWork: (one: Promise<unknown>) => {
      work.add(one);
      void one.finally(() => work.delete(one));
    },
  };
  const handler = await deps.createHandler(parts);
  await serveUntilSignal(deps, { address, handler, engine, model, values, closing, work, keys });
  return 0;
}

interface Serving {
  address: Address;
  handler: Handler;
  engine: Engine;
  model: LocatedModel;
  values: FlagValues;
  closing: AbortController;
  /** What is to end before the process does. */
  work: ReadonlySet<Promise<unknown>>;
  keys: KeyRing | undefined;
}

async function serveUntilSignal({ terminal }: Deps, serving: Serving) {
  const { address, handler, engine, model, values, closing, work, keys } = serving;
  const asked = Promise.withResolvers<void>();
  const hurry = new AbortController();
  let signals = 0;
  using _signals = terminal.onSignal(["SIGINT", "SIGTERM"], () => signals++ === 0 ? asked.resolve() : hurry.abort());
  using _reload = reloading(terminal, keys, values);
  const server = onAddress(
    address,
    () => Deno.serve({ ...address, onListen: () => {} }, handler),
  );
  for (const warning of exposure(address, keys !== undefined)) {
    say(terminal, values, { event: "warning", warning }, warning);
  }
  const url = serverUrl(server.addr as Deno.NetAddr, address);
  announce(terminal, { url, model, keyed: keys !== undefined }, values);
  await Promise.race([asked.promise, server.finished]);
  closing.abort();
  const drainMs = values.drain! * 1000;
  say(terminal, values, { event: "stopping" }, "stopping; a second signal stops at once");
  await stopServer(server, engine, { work, drainMs, hurry: hurry.signal });
  say(terminal, values, { event: "stopped" }, "stopped");
}

/** Reads the key file again at SIGHUP; without one, that signal ends the process as it always does. */
function reloading(terminal: Terminal, keys: KeyRing | undefined, values: FlagValues): Disposable | undefined {
  if (keys === undefined || values.keys === undefined) return undefined;
  return terminal.onSignal(["SIGHUP"], async () => {
    try {
      const count = await reloadKeys(keys, terminal, values);
      say(terminal, values, { event: "keys", keys: count }, `keys in force: ${count}`);
    } catch (error) {
      const message = `the keys stay as they were: ${error instanceof Error ? error.message : error}`;
      say(terminal, values, { event: "failure", message }, message);
    }
  });
}

/**
 * No new connections, and no new requests on old ones; running replies get time to end, then they are cancelled, and an
 * error event says so at the end of their streams, and responses that are kept are kept as they ended. A connection that is still open after that ends with the process.
 */
async function stopServer(
  server: Deno.HttpServer,
  engine: Engine,
  { work, drainMs, hurry }: { work: ReadonlySet<Promise<unknown>>; drainMs: number; hurry: AbortSignal },
): Promise<void> {
  const finished = server.shutdown();
  const deadline = AbortSignal.any([hurry, AbortSignal.timeout(drainMs)]);
  while (!deadline.aborted && isBusy(engine)) await pause(POLL_MS, deadline);
  await engine.close();
  await Promise.race([Promise.all([finished, ...work]), pause(CLOSE_MS, hurry)]);
}

function isBusy(engine: Engine): boolean {
  const { healthy, running, waiting } = engine.stats();
  return healthy && running + waiting > 0;
}

/** Waits for `ms`, or less when `signal` aborts. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, { signal }).catch(() => {});
}

interface Served {
  url: string;
  model: LocatedModel;
  keyed: boolean;
}

function announce(terminal: Terminal, { url, model: { id }, keyed }: Served, { json }: FlagValues): void {
  if (json) return terminal.out(`${JSON.stringify({ event: "listening", url, model: id })}\n`);
  const body = JSON.stringify({ model: id, messages: [{ role: "user", content: "Hello" }], stream: true });
  terminal.out(`serving ${id} at ${url} (Ctrl-C stops)

curl -N ${url}/v1/chat/completions -H 'content-type: application/json' \\${
    keyed ? `\n  -H "authorization: Bearer $${KEY_VARIABLE}" \\` : ""
  }
  -d '${body.replaceAll("'", "'\\''")}'

`);
}

/** Tell an operator: a sentence, or an object with `--json`. Neither begins another line, whatever a client sent. */
function say(terminal: Terminal, { json, quiet }: FlagValues, entry: Record<string, unknown>, sentence: string): void {
  if (quiet && !LOUD.includes(String(entry.event))) return;
  terminal.err(`${json ? jsonLine(entry) : `llamero: ${printable(sentence).replaceAll("\n", "\n  ")}`}\n`);
}

function logTo(terminal: Terminal, entry: LogEntry, values: FlagValues): void {
  say(terminal, values, { ...entry }, logSentence(entry));
}

function logSentence(entry: LogEntry): string {
  if (entry.event === "failure") return entry.stack ?? entry.message;
  const { key, ms, outcome, promptTokens = 0, completionTokens = 0, prompts, replies } = entry;
  const what = entry.event === "request" ? `${entry.method} ${entry.path} ${entry.status}` : "reply";
  const parts = [
    what,
    `${Math.round(ms)} ms`,
    ...key === ANYBODY.name ? [] : [key],
    ...outcome === undefined ? [] : [`${promptTokens} + ${completionTokens} tokens`, outcome],
    ...prompts === undefined ? [] : [JSON.stringify({ prompts, replies })],
  ];
  return parts.join(", ");
}
