/**
 * Long work in the core: describing, converting, merging model files, measuring the machine. A task is started, waited for like an engine that
 * loads, and leaves one JSON value.
 *
 * Absent here: what the work means (the core's `TaskConfig`), and people.
 *
 * @module
 */
import { EngineError, type LoadProgress } from "./engine.ts";
import { EVENT_BUFFER_BYTES, lastError, loadLibrary, readAnswer, size } from "./native.ts";
import { type Fields, readJson, readRecords, type RecordSink } from "./records.ts";
import type { Symbols } from "./symbols.ts";

/** How long one wait sleeps when nothing happens; an abort is noticed after it at the latest. */
const WAIT_TIMEOUT_MS = 200;

/** A model on disk, with what is added to its weights. */
export interface ModelSource {
  /** A model's folder, or one of its files. */
  path: string;
  /** The model that `path` is the difference to. */
  base?: string | undefined;
  /** Folders of adapters to merge, in order. */
  lora?: readonly string[] | undefined;
}

/** What to do; the names are the core's. */
export type Task =
  | { task: "inspect"; source: ModelSource; context_length?: number | undefined }
  | {
    task: "convert";
    source: ModelSource;
    out: string;
    file_type: string;
    format: "gguf" | "safetensors";
    overwrite?: boolean | undefined;
  }
  | { task: "cache"; source: ModelSource; folder: string; file_type: string }
  | { task: "machine" };

/** Options of {@linkcode runTask}. */
export interface TaskOptions {
  /** Ends the work; what was written can be taken up again. */
  signal?: AbortSignal | undefined;
  onProgress?: (progress: LoadProgress) => void;
  /** The functions of the core, or the path of its library. */
  core: Symbols | string;
}

/**
 * Do the work and return its result.
 *
 * @throws {EngineError} what the core says went wrong; the signal's reason when it was aborted.
 */
export async function runTask(task: Task, { core, signal, onProgress }: TaskOptions): Promise<Fields> {
  signal?.throwIfAborted();
  const symbols = typeof core === "string" ? loadLibrary(core) : core;
  const config = new TextEncoder().encode(JSON.stringify(task));
  const id = symbols.llamero_start(config, size(config));
  if (id < 0) throw lastError(symbols, 0, id);
  try {
    await finished(symbols, id, { signal, onProgress });
    return readJson(readAnswer((out) => check(symbols, id, symbols.llamero_describe(id, out, size(out)))));
  } finally {
    await symbols.llamero_close(id);
  }
}

async function finished(
  symbols: Symbols,
  id: number,
  { signal, onProgress }: Pick<TaskOptions, "signal" | "onProgress">,
): Promise<void> {
  let ended = false;
  let failure: EngineError | undefined;
  const sink: RecordSink = {
    loading: (done, total) => onProgress?.({ done, total }),
    ready: () => ended = true,
    failed: (error) => failure = error,
    event: unexpected,
    embedding: unexpected,
    logprobs: unexpected,
    promptLogprobs: unexpected,
    error: unexpected,
  };
  const buffer = new Uint8Array(EVENT_BUFFER_BYTES);
  while (!ended) {
    const written = await symbols.llamero_wait(id, buffer, size(buffer), WAIT_TIMEOUT_MS);
    readRecords(buffer.subarray(0, check(symbols, id, written)), sink);
    if (failure !== undefined) throw failure;
    signal?.throwIfAborted();
  }
}

function check(symbols: Symbols, id: number, result: number): number {
  if (result < 0) throw lastError(symbols, id, result);
  return result;
}

function unexpected(): never {
  throw new EngineError("internal", "waiting for a task: expected progress, got an event of a request");
}
