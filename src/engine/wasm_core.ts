/**
 * The loop that drives a core in WebAssembly, wherever it runs: in a Worker, or in the caller's own thread where a
 * runtime has none. Commands come in as plain objects, reports go out as plain objects, so that both ways are one code.
 *
 * Between two pieces of work the loop gives way to the event loop, so that a command waits for one piece at most.
 *
 * Absent here: the generated glue (it is handed in), Workers, what events mean, any one runtime's names.
 *
 * @module
 */

import { EngineError, type EngineErrorCode } from "./engine.ts";

/** Longest time in milliseconds that the loop gives way by messages alone. */
const TIMER_AFTER_MS = 10;

/** The class that wasm-bindgen generates. Failures are thrown as text, JSON of `{"code", "message"}`; all else is a trap. */
export interface WasmCore {
  /** Take in the next bytes of the model file. */
  push(chunk: Uint8Array): void;
  /** All bytes are there: the model's description as JSON. */
  finish(): string;
  /** Queue a request (JSON); gives its id. */
  submit(request: string): number;
  /** Queue a text that is to become a vector (JSON); gives its id. */
  embed(request: string): number;
  cancel(request: number): void;
  /** One piece of work, a chunk of a prompt or a token; false when there was none. */
  step(): boolean;
  /** Event records since the last call, as records.ts reads them. */
  events(): Uint8Array;
  /** Ids of a prompt, a JSON array of its parts. */
  tokenize(prompt: string): Uint32Array;
  detokenize(ids: Uint32Array): string;
  /** How busy the core is, as JSON. */
  stats(): string;
  free(): void;
}

/** The generated module around the class. It holds one instance of the WebAssembly module, shared by all objects. */
export interface Glue {
  /** Makes the instance; does nothing when there is one. */
  initSync(input: { module: WebAssembly.Module }): unknown;
  WasmEngine: new (config: string) => WasmCore;
  /** The text of the panic that ended the instance, if one did. */
  panic_text?(): string | undefined;
  /** Replaces the instance by a fresh one. */
  __wbg_reset_state?(): void;
}

/** What may be asked of a loop: the argument and the answer of each call. */
export interface CoreCalls {
  open: { argument: string; answer: void };
  push: { argument: Uint8Array; answer: void };
  finish: { argument: undefined; answer: string };
  submit: { argument: string; answer: number };
  embed: { argument: string; answer: number };
  cancel: { argument: number; answer: void };
  tokenize: { argument: string; answer: Uint32Array };
  detokenize: { argument: Uint32Array; answer: string };
}

/** Calls after which there is work to do. */
const QUEUING: ReadonlySet<keyof CoreCalls> = new Set(["submit", "embed"]);

/** A call, with the number that its answer will bear. */
export type Command = {
  [K in keyof CoreCalls]: { ticket: number; call: K; argument: CoreCalls[K]["argument"] };
}[keyof CoreCalls];

/** What a loop says. */
export type Report =
  | { type: "answer"; ticket: number; answer: CoreCalls[keyof CoreCalls]["answer"] }
  | { type: "refusal"; ticket: number; failure: string }
  | { type: "events"; records: Uint8Array; stats: string }
  /** The instance is lost; nothing follows. */
  | { type: "trap"; message: string };

/** Takes reports; `transfer` lists buffers that the loop gives away. */
export type TakeReport = (report: Report, transfer?: Transferable[]) => void;

/** One core and its loop. */
export class CoreLoop {
  readonly #glue: Glue;
  readonly #report: TakeReport;
  #core?: WasmCore;
  #lost = false;
  #stepping = false;
  #stats = "";

  /** A loop over an instance of `module`; `open` makes the core in it. */
  constructor(glue: Glue, module: WebAssembly.Module, report: TakeReport) {
    instantiate(glue, module);
    this.#glue = glue;
    this.#report = report;
  }

  /** Do as `command` says and report its answer. */
  handle(command: Command): void {
    if (this.#lost) return;
    const { ticket } = command;
    try {
      this.#report({ type: "answer", ticket, answer: this.#perform(command) });
      if (QUEUING.has(command.call) || command.call === "cancel") this.#flush();
    } catch (error) {
      if (typeof error === "string") this.#report({ type: "refusal", ticket, failure: error });
      else this.#lose(error);
    }
    if (QUEUING.has(command.call)) void this.#run();
  }

  /** Free the core; nothing is reported any more. */
  stop(): void {
    if (!this.#lost) this.#core?.free();
    this.#core = undefined;
    this.#lost = true;
  }

  #perform(command: Command): CoreCalls[keyof CoreCalls]["answer"] {
    switch (command.call) {
      case "open":
        this.#core = new this.#glue.WasmEngine(command.argument);
        return;
      case "push":
        return this.#opened.push(command.argument);
      case "finish":
        return this.#opened.finish();
      case "submit":
        return this.#opened.submit(command.argument);
      case "embed":
        return this.#opened.embed(command.argument);
      case "cancel":
        return this.#opened.cancel(command.argument);
      case "tokenize":
        return this.#opened.tokenize(command.argument);
      case "detokenize":
        return this.#opened.detokenize(command.argument);
    }
  }

  get #opened(): WasmCore {
    if (this.#core === undefined) throw new Error("a call before the core was opened");
    return this.#core;
  }

  /** Work until there is nothing to do. */
  async #run(): Promise<void> {
    if (this.#stepping) return;
    this.#stepping = true;
    const turns = new Turns();
    do await turns.next(); while (this.#step());
    turns.close();
    this.#stepping = false;
  }

  #step(): boolean {
    if (this.#lost) return false;
    try {
      const worked = this.#opened.step();
      this.#flush();
      return worked;
    } catch (error) {
      this.#lose(error);
      return false;
    }
  }

  /** Report what has happened, if anything has. */
  #flush(): void {
    const records = this.#opened.events();
    const stats = this.#opened.stats();
    if (records.length === 0 && stats === this.#stats) return;
    this.#stats = stats;
    this.#report({ type: "events", records, stats }, [records.buffer as ArrayBuffer]);
  }

  /** After a trap the memory is in no known state: the core is not even freed. */
  #lose(error: unknown): void {
    this.#lost = true;
    this.#core = undefined;
    spoiled.add(this.#glue);
    const message = this.#glue.panic_text?.() ?? (error instanceof Error ? error.message : String(error));
    this.#report({ type: "trap", message });
  }
}

/** Glue whose instance has trapped. */
const spoiled = new WeakSet<Glue>();

function instantiate(glue: Glue, module: WebAssembly.Module): void {
  if (spoiled.has(glue)) {
    if (glue.__wbg_reset_state === undefined) {
      throw new EngineError(
        "internal",
        "starting the WebAssembly core again: its glue holds the instance that trapped",
      );
    }
    glue.__wbg_reset_state();
    spoiled.delete(glue);
  }
  glue.initSync({ module });
}

/**
 * Turns of the event loop. A message to oneself is the cheap way (10 to 20 us), but Deno hands over 128 of them before
 * it looks at anything else, commands to a Worker included (measured with 2.9.6). A timer lets everything in and costs
 * 1 to 2 ms, so it is taken when some time has passed, which is after every token of all but the smallest models.
 */
class Turns {
  readonly #channel = new MessageChannel();
  #timed = performance.now();

  /** Resolves when others had their turn. */
  async next(): Promise<void> {
    if (performance.now() - this.#timed < TIMER_AFTER_MS) return await this.#message();
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    this.#timed = performance.now();
  }

  #message(): Promise<void> {
    return new Promise((resolve) => {
      this.#channel.port1.onmessage = () => resolve();
      this.#channel.port2.postMessage(undefined);
    });
  }

  /** Lets the process end. */
  close(): void {
    this.#channel.port1.close();
    this.#channel.port2.close();
  }
}

/** A refusal's text as an error. */
export function readRefusal(failure: string): EngineError {
  try {
    const { code, message } = JSON.parse(failure) as { code: EngineErrorCode; message: string };
    if (typeof code === "string" && typeof message === "string") return new EngineError(code, message);
  } catch { /* reported below together with JSON of another shape */ }
  return new EngineError("internal", `calling the WebAssembly core: it failed with ${failure}`);
}
