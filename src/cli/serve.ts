/**
 * `llamero serve`: one model over HTTP until a signal comes, and then an orderly end with a deadline.
 *
 * Absent here on purpose: routes (api/), keys, and therefore serving other machines.
 *
 * @module
 */
import { delay } from "@std/async/delay";
import type { LogEntry } from "../api/log.ts";
import type { Engine } from "../engine/engine.ts";
import { replyDefaults } from "./defaults.ts";
import type { Deps, Handler } from "./deps.ts";
import { CommandError, UsageError } from "./errors.ts";
import type { FlagValues, Parsed } from "./flags.ts";
import { openStore } from "./store.ts";
import { loadModel, type LocatedModel, locateModel } from "./model.ts";
import { chooseTemplate, wantedTemplate } from "./template.ts";
import type { Terminal } from "./terminal.ts";

/** Addresses that only this machine reaches. */
const LOOPBACK = ["127.0.0.1", "::1", "localhost"];
/** How long connections may take to close after the last reply, in milliseconds. */
const CLOSE_MS = 1_000;
/** How often a server that stops looks for running replies, in milliseconds. */
const POLL_MS = 50;

/** The command. */
export async function serve(deps: Deps, { values }: Parsed): Promise<number> {
  const address = { hostname: loopback(values.host!), port: values.port! };
  // Found out before the model is loaded, not after.
  onAddress(address, () => Deno.listen(address).close());
  const wanted = await wantedTemplate(values);
  await using store = await openStore(deps, values);
  const model = await locateModel(deps, values);
  await using engine = await loadModel(deps, model, values);
  const template = chooseTemplate(deps, engine, model, { wanted, quiet: values.quiet });
  const log = (entry: LogEntry) => logTo(deps.terminal, entry, values);
  const named = { modelId: model.id, aliases: [model.file] };
  const closing = new AbortController();
  const parts = { engine, template, defaults: replyDefaults(values), ...named, store, log, closing: closing.signal };
  const handler = deps.createHandler(parts);
  await serveUntilSignal(deps, { address, handler, engine, model, values, closing });
  return 0;
}

interface Address {
  hostname: string;
  port: number;
}

interface Serving {
  address: Address;
  handler: Handler;
  engine: Engine;
  model: LocatedModel;
  values: FlagValues;
  closing: AbortController;
}

async function serveUntilSignal({ terminal }: Deps, { address, handler, engine, model, values, closing }: Serving) {
  const asked = Promise.withResolvers<void>();
  const hurry = new AbortController();
  let signals = 0;
  using _signals = terminal.onSignal(["SIGINT", "SIGTERM"], () => signals++ === 0 ? asked.resolve() : hurry.abort());
  const server = onAddress(
    address,
    () => Deno.serve({ ...address, onListen: () => {} }, handler),
  );
  announce(terminal, serverUrl(server.addr as Deno.NetAddr), model, values);
  await Promise.race([asked.promise, server.finished]);
  closing.abort();
  const drainMs = values.drain! * 1000;
  say(terminal, values, { event: "stopping" }, "stopping; a second signal stops at once");
  await stopServer(server, engine, { drainMs, hurry: hurry.signal });
  say(terminal, values, { event: "stopped" }, "stopped");
}

/**
 * No new connections, and no new requests on old ones; running replies get time to end, then they are cancelled, and an
 * error event says so at the end of their streams. A connection that is still open after that ends with the process.
 */
async function stopServer(
  server: Deno.HttpServer,
  engine: Engine,
  { drainMs, hurry }: { drainMs: number; hurry: AbortSignal },
): Promise<void> {
  const finished = server.shutdown();
  const deadline = AbortSignal.any([hurry, AbortSignal.timeout(drainMs)]);
  while (!deadline.aborted && isBusy(engine)) await pause(POLL_MS, deadline);
  await engine.close();
  await Promise.race([finished, pause(CLOSE_MS, hurry)]);
}

function isBusy(engine: Engine): boolean {
  const { healthy, running, waiting } = engine.stats();
  return healthy && running + waiting > 0;
}

/** Waits for `ms`, or less when `signal` aborts. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, { signal }).catch(() => {});
}

function loopback(host: string): string {
  const name = host.replace(/^\[(.*)\]$/, "$1");
  if (LOOPBACK.includes(name)) return name;
  throw new UsageError(
    `--host: expected an address of this machine alone (${LOOPBACK.join(", ")}), got "${host}"; ` +
      "serving other machines needs keys, which llamero does not have yet",
  );
}

/** Trouble with an address as a sentence. */
function onAddress<T>({ hostname, port }: Address, listen: () => T): T {
  try {
    return listen();
  } catch (error) {
    const reason = addressTrouble(error);
    if (!reason) throw error;
    throw new CommandError(`listening on ${hostname} port ${port} failed: ${reason}`, { cause: error });
  }
}

function addressTrouble(error: unknown): string | undefined {
  if (error instanceof Deno.errors.AddrInUse) return "the port is in use; choose another with --port";
  if (error instanceof Deno.errors.AddrNotAvailable) return "this machine does not have that address";
  if (error instanceof Deno.errors.PermissionDenied) {
    return "no permission; ports below 1024 belong to the system, choose another with --port";
  }
  return undefined;
}

function serverUrl({ hostname, port }: Deno.NetAddr): string {
  return `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

function announce(terminal: Terminal, url: string, { id }: LocatedModel, { json }: FlagValues): void {
  if (json) return terminal.out(`${JSON.stringify({ event: "listening", url, model: id })}\n`);
  const body = JSON.stringify({ model: id, messages: [{ role: "user", content: "Hello" }], stream: true });
  terminal.out(`serving ${id} at ${url} (Ctrl-C stops)

curl -N ${url}/v1/chat/completions -H 'content-type: application/json' \\
  -d '${body.replaceAll("'", "'\\''")}'

`);
}

/** Tell an operator: a sentence, or an object with `--json`. */
function say(terminal: Terminal, { json, quiet }: FlagValues, entry: Record<string, unknown>, sentence: string): void {
  if (quiet && entry.event !== "failure") return;
  terminal.err(`${json ? JSON.stringify(entry) : `llamero: ${sentence}`}\n`);
}

function logTo(terminal: Terminal, entry: LogEntry, values: FlagValues): void {
  say(terminal, values, { ...entry }, logSentence(entry));
}

function logSentence(entry: LogEntry): string {
  switch (entry.event) {
    case "request":
      return `${entry.method} ${entry.path} ${entry.status}, ${Math.round(entry.ms)} ms`;
    case "reply":
      return `reply ${entry.outcome}, ${entry.promptTokens ?? 0} + ${entry.completionTokens ?? 0} tokens`;
    case "failure":
      return entry.stack ?? entry.message;
  }
}
