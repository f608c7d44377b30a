/**
 * Engines: the interface, its errors, and how to open one.
 *
 * @module
 */

export * from "./engine.ts";
export { type ModelSource, runTask, type Task, type TaskOptions } from "./task.ts";
export { readModelFields } from "./records.ts";
export { ENGINE_NAMES, type EngineName, libraryPath, openEngine, type OpenEngineOptions, wasmPath } from "./open.ts";
