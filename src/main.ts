/**
 * Where the real parts are joined: engine, templates, HTTP application, terminal, programs of the machine. Everything
 * else gets its parts handed in.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import config from "../deno.json" with { type: "json" };
import { selectTemplate } from "./chat/mod.ts";
import type { Deps, Finished, Handler, HandlerParts } from "./cli/deps.ts";
import { run } from "./cli/run.ts";
import { systemTerminal } from "./cli/terminal.ts";
import { libraryPath, openEngine, runTask } from "./engine/mod.ts";
import { KvStore } from "./sessions/kv_store.ts";

/** The parts of this program. */
function realDeps(): Deps {
  return {
    terminal: systemTerminal(),
    version: config.version,
    openEngine: (options) => openEngine({ ...options, cpu: Deno.env.get("LLAMERO_CPU") || undefined }),
    selectTemplate,
    runTask: (task, options) => runTask(task, { ...options, core: libraryPath() }),
    openStore: async (place) => new KvStore(await Deno.openKv(place)),
    createHandler,
    pull: async (entry, options) => await (await import("./models/pull.ts")).pull(entry, options),
    runPeer: (python, args) => runProgram(python, [scriptPath("llama_cpp_bench.py"), ...args]),
    runSelf: (args) => runProgram(Deno.execPath(), [...DENO_RUN, ...args]),
    keepBusy,
    runTests,
    now: () => performance.timeOrigin + performance.now(),
    peakBytes,
  };
}

/** The HTTP application, which nothing but serving waits for: it is half of what there is to load. */
async function createHandler(parts: HandlerParts): Promise<Handler> {
  const [{ createApp }, { Metrics }, { tracer }, { upgradeWebSocket }] = await Promise.all([
    import("./api/app.ts"),
    import("./api/metrics.ts"),
    import("./api/trace.ts"),
    import("hono/deno"),
  ]);
  const metrics = new Metrics(parts);
  const observers = [metrics, tracer(parts.modelId)];
  const app = createApp({ ...parts, observers, routes: [metrics.route], upgradeWebSocket });
  return (request, info) => app.fetch(request, info);
}

/** How this program is started. What it may do is decided for the one that the user starts (scripts/llamero). */
const DENO_RUN = ["run", "--quiet", "-A", "--config", inCheckout("deno.json"), inCheckout("src/main.ts")];
/** Ends with its parent, whatever ended that. */
const BUSY = "const parent = Deno.ppid; while (Deno.ppid === parent) for (let i = 0; i < 1e8; i++);";

async function runProgram(program: string, args: readonly string[]): Promise<Finished> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args: [...args], stdin: "null" }).output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

function keepBusy(): AsyncDisposable {
  const [stdin, stdout, stderr] = ["null", "null", "null"] as const;
  const child = new Deno.Command(Deno.execPath(), { args: ["eval", BUSY], stdin, stdout, stderr }).spawn();
  return {
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.status;
    },
  };
}

/** Linux says it; elsewhere what is held now must do. */
function peakBytes(): number {
  if (Deno.build.os !== "linux") return Deno.memoryUsage().rss;
  const [, kibibytes] = /^VmHWM:\s*(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/self/status"))!;
  return Number(kibibytes) * 1024;
}

async function runTests(args: readonly string[]): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), { args: ["run", "-A", scriptPath("test.ts"), ...args] }).spawn();
  return (await child.status).code;
}

function scriptPath(name: string): string {
  return inCheckout(`scripts/${name}`);
}

function inCheckout(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}

if (import.meta.main) Deno.exit(await run(Deno.args, realDeps()));
