/**
 * What the commands need from outside. `main.ts` hands in the real parts, tests hand in others.
 *
 * @module
 */
import type { ChatTemplate, ChosenTemplate, TemplateModel, WantedTemplate } from "../chat/mod.ts";
import type { Engine, EngineName, Speculate, Task, TaskOptions } from "../engine/mod.ts";
import type { CatalogueEntry } from "../models/catalogue.ts";
import type { PullOptions } from "../models/pull.ts";
import type { KeyRing } from "../api/keys.ts";
import type { RequestLimits } from "../api/limits.ts";
import type { Log } from "../api/log.ts";
import type { Store } from "../sessions/store.ts";
import type { TurnDefaults } from "../sessions/turn.ts";
import type { Terminal } from "./terminal.ts";

/** What to load. */
export interface OpenOptions {
  /** Path of the model's folder, or of one of its files. */
  model: string;
  /** Folders of adapters to merge. */
  lora?: readonly string[] | undefined;
  /** A smaller model that guesses ahead. */
  draft?: string | undefined;
  speculate?: Speculate | undefined;
  contextLength?: number | undefined;
  engine?: EngineName | undefined;
  /** Where the model runs, such as `cuda:0`. */
  device?: string | undefined;
  /** How conversations keep keys and values, such as `q8_0`. */
  kv?: string | undefined;
  /** A folder where packed weights are kept. */
  packed?: string | undefined;
  /** Told when `auto` takes the slower engine: a sentence with the reason. */
  onFallback?: (sentence: string) => void;
  onProgress?: (progress: { done: number; total: number }) => void;
}

/** The parts of the HTTP application that are known once a model is loaded. */
export interface HandlerParts {
  engine: Engine;
  template: ChatTemplate;
  /** For what requests leave open. */
  defaults: TurnDefaults;
  /** The name under which the model is served. */
  modelId: string;
  /** Other names for it. */
  aliases: readonly string[];
  /** Where conversations and responses are kept. */
  store: Store;
  log: Log;
  /** Aborted when the server stops. */
  closing: AbortSignal;
  /** Told of work that may go on when its request is over. */
  onWork: (work: Promise<unknown>) => void;
  /** Who may use the server; missing: everybody. */
  keys: KeyRing | undefined;
  /** Whether prompts and replies are logged. */
  logPrompts: boolean;
  /** What every request may take. */
  requestLimits: RequestLimits;
  /** Names under which the server is reached. */
  hosts: readonly string[];
  /** Origins of web pages that may use it. */
  origins: readonly string[];
}

/** Answers an HTTP request. */
export type Handler = (request: Request, info: Deno.ServeHandlerInfo) => Response | Promise<Response>;

/** A program that was run to its end. */
export interface Finished {
  code: number;
  stdout: string;
  stderr: string;
}

/** The parts that commands are joined with. */
export interface Deps {
  terminal: Terminal;
  version: string;
  openEngine(options: OpenOptions): Promise<Engine>;
  /** The chat template that is wanted, or the one that suits the model, and why. */
  selectTemplate(model: TemplateModel, wanted?: WantedTemplate): ChosenTemplate;
  /** Work with model files: describe, convert, merge. */
  runTask(task: Task, options: Omit<TaskOptions, "core">): Promise<Readonly<Record<string, unknown>>>;
  /** The store in a database file, or under a URL. */
  openStore(place: string): Promise<Store>;
  createHandler(parts: HandlerParts): Handler | Promise<Handler>;
  pull(entry: CatalogueEntry, options: PullOptions): Promise<string>;
  /** Time the same work in llama.cpp: runs the script of that name in `scripts/` under a Python. */
  runPeer(python: string, args: readonly string[]): Promise<Finished>;
  /** This program again, in a process of its own. */
  runSelf(args: readonly string[]): Promise<Finished>;
  /** Another process that computes without end on one core, until it is disposed. */
  keepBusy(): AsyncDisposable;
  /** Run the tests of the checkout and give their exit code. */
  runTests(args: readonly string[]): Promise<number>;
  /** Milliseconds since 1970; it does not go back while the process lives. */
  now(): number;
  /** The most bytes of memory that this process has held. */
  peakBytes(): number;
}
