/**
 * The two ways to a core's loop: in a Worker, whose work leaves the caller's event loop free, and in the caller's own
 * thread for runtimes without Workers.
 *
 * @module
 */

import { type Command, CoreLoop, type Glue, type TakeReport } from "./wasm_core.ts";
import type { WorkerStart } from "./wasm_worker.ts";

/** A way to one loop. Commands are handled in order. */
export interface CoreLink {
  post(command: Command): void;
  /** End the loop at once; no reports follow. */
  close(): void;
}

/** Starts a loop that reports to `take`. */
export type Connect = (take: TakeReport) => CoreLink;

/** Loops in Workers of their own, each with a fresh instance of `module`. `glue` is the address of the generated glue. */
export function workerLink(glue: string, module: WebAssembly.Module): Connect {
  return function connectWorker(take) {
    const worker = new Worker(new URL("./wasm_worker.ts", import.meta.url), { type: "module", name: "llamero-core" });
    worker.onmessage = ({ data }) => take(data);
    worker.onerror = (event) => {
      // Else it would end the process.
      event.preventDefault();
      take({ type: "trap", message: event.message });
    };
    worker.postMessage({ glue, module } satisfies WorkerStart);
    return { post: (command) => postTo(worker, command), close: () => worker.terminate() };
  };
}

/** Bytes are cut out and given away: a view would take a copy of the whole buffer that it looks at with it. */
function postTo(worker: Worker, command: Command): void {
  if (command.call !== "push") return worker.postMessage(command);
  const argument = command.argument.slice();
  worker.postMessage({ ...command, argument }, [argument.buffer]);
}

/**
 * Loops in this thread. They share the glue's one instance, and with it its memory: a trap of one is a trap of all.
 * A fresh instance after it needs glue that can be reset.
 */
export function localLink(glue: Glue, module: WebAssembly.Module): Connect {
  return function connectHere(take) {
    let open = true;
    const loop = new CoreLoop(glue, module, (report) => open && take(report));
    return {
      post: (command) => loop.handle(command),
      close() {
        open = false;
        loop.stop();
      },
    };
  };
}
