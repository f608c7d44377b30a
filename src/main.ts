/**
 * Where the real parts are joined: engine, templates, HTTP application, terminal, programs of the machine. Everything
 * else gets its parts handed in.
 *
 * @module
 */
import { upgradeWebSocket } from "hono/deno";
import { fileURLToPath } from "node:url";
import config from "../deno.json" with { type: "json" };
import { createApp } from "./api/app.ts";
import { Metrics } from "./api/metrics.ts";
import { tracer } from "./api/trace.ts";
import { selectTemplate } from "./chat/mod.ts";
import type { Deps, Finished } from "./cli/deps.ts";
import { run } from "./cli/run.ts";
import { systemTerminal } from "./cli/terminal.ts";
import { libraryPath, openEngine, runTask } from "./engine/mod.ts";
import { pull } from "./models/pull.ts";
import { KvStore } from "./sessions/kv_store.ts";

/** The parts of this program. */
function realDeps(): Deps {
  return {
    terminal: systemTerminal(),
    version: config.version,
    openEngine,
    selectTemplate,
    runTask: (task, options) => runTask(task, { ...options, core: libraryPath() }),
    openStore: async (place) => new KvStore(await Deno.openKv(place)),
    createHandler: (parts) => {
      const metrics = new Metrics(parts);
      const observers = [metrics, tracer(parts.modelId)];
      const app = createApp({ ...parts, observers, routes: [metrics.route], upgradeWebSocket });
      return (request, info) => app.fetch(request, info);
    },
    pull,
    runPeer,
    runTests,
    now: () => performance.now(),
    residentBytes: () => Deno.memoryUsage().rss,
  };
}

async function runPeer(python: string, args: readonly string[]): Promise<Finished> {
  const script = scriptPath("llama_cpp_bench.py");
  const { code, stdout, stderr } = await new Deno.Command(python, { args: [script, ...args], stdin: "null" }).output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

async function runTests(args: readonly string[]): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), { args: ["run", "-A", scriptPath("test.ts"), ...args] }).spawn();
  return (await child.status).code;
}

function scriptPath(name: string): string {
  return fileURLToPath(new URL(`../scripts/${name}`, import.meta.url));
}

if (import.meta.main) Deno.exit(await run(Deno.args, realDeps()));
