/**
 * Engines: the interface, its errors, and how to open one.
 *
 * @module
 */

export * from "./engine.ts";
export type { LoadProgress } from "./native.ts";
export { libraryPath, openEngine, type OpenEngineOptions } from "./open.ts";
