/**
 * The Worker of a core: the first message says what to run, all others are commands for its loop.
 *
 * Absent here: any decision; the loop is wasm_core.ts, the other end is wasm_link.ts.
 *
 * @module
 */

import { type Command, CoreLoop, type Glue, type TakeReport } from "./wasm_core.ts";

/** The first message. */
export interface WorkerStart {
  /** Address of the generated glue. */
  glue: string;
  module: WebAssembly.Module;
}

/** What of a Worker's global scope is used; the types that Deno checks with are those of a window. */
interface WorkerScope {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: unknown, transfer: Transferable[]): void;
}

const scope = globalThis as unknown as WorkerScope;
let loop: Promise<CoreLoop | undefined> | undefined;

scope.onmessage = async ({ data }) => {
  if (loop === undefined) loop = start(data as WorkerStart);
  // Messages that come while the glue is being loaded keep their order.
  else (await loop)?.handle(data as Command);
};

const report: TakeReport = (report, transfer = []) => scope.postMessage(report, transfer);

/** The loop, or a report of why there is none. */
async function start({ glue, module }: WorkerStart): Promise<CoreLoop | undefined> {
  try {
    return new CoreLoop(await import(glue) as Glue, module, report);
  } catch (error) {
    report({ type: "trap", message: error instanceof Error ? error.message : String(error) });
  }
}
