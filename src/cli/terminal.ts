/**
 * The terminal as the commands see it: two outputs, one input, signals and the environment. Tests hand in another one.
 *
 * @module
 */
import type { ReadEnv } from "../models/cache.ts";
import type { ProgressStyle } from "../models/progress.ts";
import { CommandError } from "./errors.ts";

/** Most bytes that are taken from a pipe as a prompt; far above any context. */
export const MAX_INPUT_BYTES = 16 << 20;

/** Signals that commands care about. */
export type Signal = "SIGINT" | "SIGTERM" | "SIGHUP";

/** Everything between a command and the person or script that runs it. */
export interface Terminal {
  /** Write text to standard output as it is. */
  out(text: string): void;
  /** Write text to standard error as it is. */
  err(text: string): void;
  /** Whether a person may be typing. */
  readonly inIsTerminal: boolean;
  /** Whether standard error is seen by a person. */
  readonly errIsTerminal: boolean;
  /** Width of the terminal in characters. */
  columns(): number;
  /** Reads an environment variable; what may not be read is not set. */
  env: ReadEnv;
  /** One line without its end, or undefined at the end of the input. */
  readLine(): Promise<string | undefined>;
  /** All that is left of the input. */
  readAll(): Promise<string>;
  /** Call `handler` at each of these signals, instead of dying, until the result is disposed. */
  onSignal(signals: readonly Signal[], handler: () => void): Disposable;
}

/** How progress is shown on this terminal. */
export function progressStyle(terminal: Terminal, quiet = false): ProgressStyle {
  return quiet ? "quiet" : terminal.errIsTerminal ? "bar" : "lines";
}

/** `text` in a fainter colour where colours are seen and wanted (see no-color.org). */
export function faint(terminal: Terminal, text: string): string {
  const plain = !terminal.errIsTerminal || Boolean(terminal.env("NO_COLOR")) || terminal.env("TERM") === "dumb";
  return plain ? text : `\x1b[2m${text}\x1b[22m`;
}

/** The terminal of this process. */
export function systemTerminal(): Terminal {
  return new SystemTerminal();
}

const DEFAULT_COLUMNS = 80;
const READ_BYTES = 1 << 16;

class SystemTerminal implements Terminal {
  readonly inIsTerminal = Deno.stdin.isTerminal();
  readonly errIsTerminal = Deno.stderr.isTerminal();
  readonly #encoder = new TextEncoder();
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  readonly #buffer = new Uint8Array(READ_BYTES);
  #pending = "";
  #ended = false;

  out(text: string): void {
    writeAll(Deno.stdout, this.#encoder.encode(text));
  }

  err(text: string): void {
    writeAll(Deno.stderr, this.#encoder.encode(text));
  }

  columns(): number {
    try {
      return Deno.consoleSize().columns || DEFAULT_COLUMNS;
    } catch {
      return DEFAULT_COLUMNS;
    }
  }

  env(name: string): string | undefined {
    const { state } = Deno.permissions.querySync({ name: "env", variable: name });
    return state === "granted" ? Deno.env.get(name) : undefined;
  }

  async readLine(): Promise<string | undefined> {
    for (;;) {
      const end = this.#pending.indexOf("\n");
      if (end >= 0) {
        const line = this.#pending.slice(0, end).replace(/\r$/, "");
        this.#pending = this.#pending.slice(end + 1);
        return line;
      }
      if (!await this.#readMore()) return this.#takePending() || undefined;
    }
  }

  async readAll(): Promise<string> {
    while (await this.#readMore());
    return this.#takePending();
  }

  onSignal(signals: readonly Signal[], handler: () => void): Disposable {
    for (const signal of signals) Deno.addSignalListener(signal, handler);
    return {
      [Symbol.dispose]() {
        for (const signal of signals) Deno.removeSignalListener(signal, handler);
      },
    };
  }

  #takePending(): string {
    const text = this.#pending;
    this.#pending = "";
    return text;
  }

  /** False at the end of the input. A terminal can go on after its end (Ctrl-D); a pipe cannot. */
  async #readMore(): Promise<boolean> {
    if (this.#ended) return false;
    const n = await Deno.stdin.read(this.#buffer);
    this.#ended = n === null && !this.inIsTerminal;
    this.#pending += this.#decode(n === null ? undefined : this.#buffer.subarray(0, n));
    if (this.#pending.length > MAX_INPUT_BYTES) {
      throw new CommandError(`reading standard input failed: expected at most ${MAX_INPUT_BYTES} bytes, got more`);
    }
    return n !== null;
  }

  #decode(bytes: Uint8Array | undefined): string {
    try {
      return bytes ? this.#decoder.decode(bytes, { stream: true }) : this.#decoder.decode();
    } catch {
      throw new CommandError("reading standard input failed: expected UTF-8 text, got other bytes");
    }
  }
}

function writeAll(file: { writeSync(bytes: Uint8Array): number }, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
}
