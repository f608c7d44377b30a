/**
 * The whole service in one object for runtimes at the edge: the HTTP application over the core as WebAssembly, in the
 * thread that answers. No files, no Workers, no names of any one runtime.
 *
 *     import * as glue from "./llamero.js";
 *     import wasm from "./llamero_bg.wasm";
 *     const weights = () => fetch("https://models.example/SmolLM2-135M-Instruct.Q4_1.gguf");
 *     export default createEdge({ glue, wasm, weights, modelId: "smollm2", hosts: ["chat.example"] });
 *
 * A piece of work keeps the thread busy for its time (a chunk of a prompt, or a token); between two, others get a turn.
 *
 * Absent here: WebSockets, whose upgrade each runtime does its own way.
 *
 * @module
 */

// What Node 20, and runtimes of its age, do not have yet; elsewhere these do nothing.
import "core-js/actual/map/get-or-insert-computed.js";
import "core-js/actual/map/group-by.js";
import "core-js/actual/promise/with-resolvers.js";
import "core-js/actual/typed-array/from-hex.js";
import "core-js/actual/typed-array/to-base64.js";
import "core-js/actual/typed-array/to-hex.js";
import { createApp } from "./api/app.ts";
import type { GuardOptions } from "./api/guard.ts";
import type { KeyRing } from "./api/keys.ts";
import { failure, type Log, logFailures } from "./api/log.ts";
import { selectTemplate, type WantedTemplate } from "./chat/mod.ts";
import { EngineError, type LoadOptions } from "./engine/engine.ts";
import { WasmEngine, type Weights } from "./engine/wasm.ts";
import type { Glue } from "./engine/wasm_core.ts";
import { localLink } from "./engine/wasm_link.ts";
import { errorEnvelope } from "./protocol/mod.ts";
import type { TurnDefaults } from "./sessions/turn.ts";

export type { Glue, Weights };

/** A model file: its bytes, a response that has a length, or a stream whose length is known. */
export type WeightSource = Uint8Array | Response | Weights;

/** The parts of an edge service, and the host names under which it is reached: all but local ones are refused. */
export interface EdgeOptions extends LoadOptions, GuardOptions {
  /** The generated `llamero.js`. */
  glue: Glue;
  /** The generated `llamero_bg.wasm`, compiled where the runtime does that ahead. */
  wasm: WebAssembly.Module | BufferSource;
  /** The model file. What can be read only once ends with the first trap of the core; a function can be asked again. */
  weights: WeightSource | (() => WeightSource | Promise<WeightSource>);
  /** The name under which the model is served. */
  modelId: string;
  /** The chat template, by name or as Jinja; default: the model's own, or one that its name asks for. */
  template?: WantedTemplate;
  /** Sampling and length for what requests leave open. */
  defaults?: TurnDefaults;
  /** Takes what an operator may want to know. Default: failures on standard error. */
  log?: Log;
  /** Who may use the service; missing: everybody. */
  keys?: KeyRing;
}

/** Answers requests, as edge runtimes want it exported. */
export interface Edge {
  fetch(request: Request): Promise<Response>;
}

type App = ReturnType<typeof createApp>;

/** What a client learns when there is no model: the application itself answers all other failures. */
const NOT_LOADED = {
  message: "the model could not be loaded; the server's log has the reason",
  type: "server_error",
  code: "model_not_loaded",
  param: null,
};

/** A service that loads its model at the first request; when that fails, at the next. */
export function createEdge(options: EdgeOptions): Edge {
  const { log = logFailures } = options;
  const source = sourceOf(options.weights);
  let loading: Promise<App> | undefined;
  return {
    async fetch(request) {
      const app = loading ??= load(options, source);
      try {
        return await (await app).fetch(request);
      } catch (error) {
        if (loading === app) loading = undefined;
        log(failure("", error));
        return Response.json(errorEnvelope(NOT_LOADED), { status: 503 });
      }
    },
  };
}

async function load(options: EdgeOptions, source: () => Promise<Weights>): Promise<App> {
  const { glue, wasm, modelId, defaults, log, hosts, origins, keys } = options;
  const module = wasm instanceof WebAssembly.Module ? wasm : await WebAssembly.compile(wasm);
  const engine = await WasmEngine.open({ ...options, connect: localLink(glue, module), weights: source });
  try {
    const { template } = selectTemplate({ ...engine.model, aliases: [modelId] }, options.template);
    return createApp({ engine, template, defaults, modelId, log, hosts, origins, keys });
  } catch (error) {
    await engine.close();
    throw error;
  }
}

/** Weights that can be opened as often as their source can. */
function sourceOf(weights: EdgeOptions["weights"]): () => Promise<Weights> {
  if (typeof weights === "function") return async () => toWeights(await weights());
  let taken = false;
  // deno-lint-ignore require-await -- failures reach the caller as rejections
  return async () => {
    if (taken && !(weights instanceof Uint8Array)) {
      throw new EngineError("io", "reading the weights: expected a source that can be opened again, got a stream");
    }
    taken = true;
    return toWeights(weights);
  };
}

function toWeights(source: WeightSource): Weights {
  if (source instanceof Uint8Array) return { stream: streamOf(source), bytes: source.length };
  if (!(source instanceof Response)) return source;
  const { body, status } = source;
  const bytes = Number(source.headers.get("content-length") ?? NaN);
  if (status !== 200 || body === null || !Number.isSafeInteger(bytes)) {
    throw new EngineError("io", `fetching the weights: expected status 200 and a length, got status ${status}`);
  }
  return { stream: body, bytes };
}

function streamOf(bytes: Uint8Array): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      controller.enqueue(bytes);
      controller.close();
    },
  });
}
