/**
 * The C ABI of the core as Deno's FFI sees it: one table, used by the loader and by the tests that stand in for the
 * core. Conventions: results below zero are error codes, buffers belong to the caller, engines and requests are ids.
 *
 * Absent here: loading, decoding, any behaviour.
 *
 * @module
 */

/** The ABI this side is written for; the library must report the same number. */
export const ABI_VERSION = 4;

/** The symbol that is looked up first, alone: it exists in every version, so a wrong one can be named. */
export const VERSION_SYMBOL = {
  /** () -> ABI version */
  llamero_abi_version: { parameters: [], result: "u32" },
} as const;

const TOKENIZE = { parameters: ["i32", "buffer", "usize", "buffer", "usize"], result: "i32" } as const;
const DETOKENIZE = TOKENIZE;

/**
 * Every symbol of the library. Calls that may block are nonblocking: `wait` sleeps until there are events, `close`
 * joins the engine thread, and two more read long texts on another thread. All others return at once.
 */
export const SYMBOLS = {
  ...VERSION_SYMBOL,
  /** (config JSON, bytes) -> engine id; loading goes on in the engine's thread */
  llamero_open: { parameters: ["buffer", "usize"], result: "i32" },
  /** (task JSON, bytes) -> id for `wait`, `describe` (the result) and `close`; the work goes on in a thread */
  llamero_start: { parameters: ["buffer", "usize"], result: "i32" },
  /** (engine, out, capacity, timeout in ms) -> bytes of event records, 0 on timeout */
  llamero_wait: { parameters: ["i32", "buffer", "usize", "u32"], result: "i32", nonblocking: true },
  /** (engine, out JSON, capacity) -> bytes of the model's description, once it is ready; written when they fit */
  llamero_describe: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  /** (engine, request JSON, bytes) -> request id */
  llamero_submit: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  /** (engine, embedding request JSON, bytes) -> request id */
  llamero_embed: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  /** (engine, request) -> 0, also when the request has ended */
  llamero_cancel: { parameters: ["i32", "i32"], result: "i32" },
  /** (engine, JSON array of parts, bytes, out u32 ids, capacity in ids) -> ids needed; written when they fit */
  llamero_tokenize: TOKENIZE,
  /** The same on a thread of its own: tens of microseconds more, but the event loop goes on. */
  llamero_tokenize_long: { ...TOKENIZE, name: "llamero_tokenize", nonblocking: true },
  /** (engine, u32 ids, count, out UTF-8, capacity) -> bytes needed; written when they fit */
  llamero_detokenize: DETOKENIZE,
  /** The same on a thread of its own. */
  llamero_detokenize_long: { ...DETOKENIZE, name: "llamero_detokenize", nonblocking: true },
  /** (engine, out JSON, capacity) -> bytes needed; written when they fit */
  llamero_stats: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  /** (engine, or 0 for open; out UTF-8, capacity) -> bytes of the last failed call's sentence; written when they fit */
  llamero_last_error: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  /** (engine) -> 0; idempotent; ends the outstanding wait with the code of `closed` */
  llamero_close: { parameters: ["i32"], result: "i32", nonblocking: true },
} as const;

/** The loaded functions. */
export type Symbols = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];
