/**
 * A terminal and parts for tests of the commands: nothing real but the code under test.
 *
 * @module
 */
import type { ChatTemplate } from "../chat/mod.ts";
import { EngineError } from "../engine/engine.ts";
import { FakeEngine, type FakeOptions } from "../engine/fake.ts";
import { MemoryStore } from "../sessions/memory_store.ts";
import type { Deps, OpenOptions } from "./deps.ts";
import { run } from "./run.ts";
import type { Signal, Terminal } from "./terminal.ts";

/** A terminal that is typed on and read by a test. */
export class FakeTerminal implements Terminal {
  inIsTerminal = true;
  errIsTerminal = false;
  readonly environment: Record<string, string> = { HOME: "/home/nobody" };
  readonly #out: string[] = [];
  readonly #err: string[] = [];
  readonly #lines: string[] = [];
  readonly #handlers = new Map<Signal, Set<() => void>>();
  readonly #waiters = new Set<() => void>();
  #ended = false;

  /** Everything on standard output so far. */
  get output(): string {
    return this.#out.join("");
  }

  /** Everything on standard error so far. */
  get errors(): string {
    return this.#err.join("");
  }

  out(text: string): void {
    this.#out.push(text);
    this.#changed();
  }

  err(text: string): void {
    this.#err.push(text);
    this.#changed();
  }

  columns(): number {
    return 80;
  }

  env(name: string): string | undefined {
    return this.environment[name];
  }

  /** Type lines. */
  type(...lines: string[]): this {
    this.#lines.push(...lines);
    this.#changed();
    return this;
  }

  /** Ctrl-D, or the end of a pipe. */
  end(): this {
    this.#ended = true;
    this.#changed();
    return this;
  }

  async readLine(): Promise<string | undefined> {
    await this.until(() => this.#lines.length > 0 || this.#ended);
    return this.#lines.shift();
  }

  async readAll(): Promise<string> {
    await this.until(() => this.#ended);
    return this.#lines.splice(0).map((line) => `${line}\n`).join("");
  }

  onSignal(signals: readonly Signal[], handler: () => void): Disposable {
    for (const signal of signals) this.#handlersOf(signal).add(handler);
    return {
      [Symbol.dispose]: () => {
        for (const signal of signals) this.#handlersOf(signal).delete(handler);
      },
    };
  }

  /** Send a signal; tells whether anybody listened (else the process would have died). */
  signal(signal: Signal): boolean {
    const handlers = [...this.#handlersOf(signal)];
    for (const handler of handlers) handler();
    return handlers.length > 0;
  }

  /** Waits until something that was written or typed makes `condition` true. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.add(resolve));
  }

  #handlersOf(signal: Signal): Set<() => void> {
    return this.#handlers.getOrInsertComputed(signal, () => new Set());
  }

  #changed(): void {
    for (const resolve of this.#waiters) resolve();
    this.#waiters.clear();
  }
}

/** A command line with its surroundings. */
export interface Stage {
  terminal: FakeTerminal;
  deps: Deps;
  engine: FakeEngine;
  /** What engines were opened with. */
  opened: OpenOptions[];
  /** Run a command line and give its exit code. */
  run(...args: string[]): Promise<number>;
}

/** Surroundings whose engine is fake; `over` replaces parts. */
export function stage(options: FakeOptions = {}, over: Partial<Deps> = {}): Stage {
  const terminal = new FakeTerminal();
  const engine = new FakeEngine({ reply: "Hello, you!", ...options });
  const opened: OpenOptions[] = [];
  const deps: Deps = {
    terminal,
    version: "1.2.3",
    openEngine: (options) => {
      opened.push(options);
      return Promise.resolve(engine);
    },
    selectTemplate: () => ({ template: ECHO, source: "model", reason: "tests use it" }),
    openStore: () => Promise.resolve(new MemoryStore()),
    createHandler: () => () => new Response("fake"),
    pull: (entry, { dir }) => Promise.resolve(`${dir}/${entry.file}`),
    runTask: () => Promise.reject(new EngineError("io", "no task is expected")),
    runPeer: () => Promise.reject(new Deno.errors.NotFound("python")),
    runSelf: () => Promise.reject(new Error("no process is expected")),
    keepBusy: () => ({ [Symbol.asyncDispose]: () => Promise.resolve() }),
    runTests: () => Promise.resolve(0),
    now: () => performance.now(),
    peakBytes: () => 1e9,
    ...over,
  };
  return { terminal, deps, engine, opened, run: (...args) => run(args, deps) };
}

/** Start a server and wait until it says where it is. */
export async function started(on: Stage, ...args: string[]): Promise<{ url: string; running: Promise<number> }> {
  const running = on.run(...args);
  const url = () => /https?:\/\/[^ "/]+/.exec(on.terminal.output)?.[0];
  await Promise.race([on.terminal.until(() => url() !== undefined), running]);
  const found = url();
  if (found === undefined) throw new Error(`serving ended: ${on.terminal.errors}`);
  return { url: found, running };
}

/** A template that shows messages as they are. */
const ECHO: ChatTemplate = {
  name: "echo",
  render: (messages) => ({ prompt: messages.map(({ role, content }) => `${role}: ${content}\n`), stop: [] }),
};
