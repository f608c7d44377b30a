import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { checkFile, checkRooms, RUST, TYPESCRIPT } from "./check_rooms.ts";

/** Lines and reasons of all breaches. */
function check(path: string, text: string, expected: [line: number, reason: string][]): void {
  assertEquals(checkFile(path, text).map(({ line, reason }) => [line, reason]), expected);
}

Deno.test("a room may use itself, what lies below it, and the world outside", () => {
  check(
    "core-rs/src/model/llama.rs",
    "use std::fmt;\nuse crate::error::Result;\nuse crate::model::config::Config;",
    [],
  );
  check(
    "core-rs/src/load/mod.rs",
    "use crate::{\n    error::{Error, Result},\n    formats::gguf::Gguf,\n    model,\n};",
    [],
  );
  check("core-rs/src/engine/step.rs", "use super::request::Request;\nuse crate::MAX_TOKENS;", []);
  check("src/api/app.ts", 'import { Hono } from "hono";\nimport { runTurn } from "../sessions/turn.ts";', []);
  check(
    "src/main.ts",
    'import config from "../deno.json" with { type: "json" };\nimport { run } from "./cli/run.ts";',
    [],
  );
});

Deno.test("Rust: every way to write a wrong use is found", () => {
  const wrong: [number, string] = [2, "formats must not use model; it may use error"];
  for (
    const line of [
      "use crate::model::Llama;",
      "pub use crate :: model;",
      "use crate::{error::Result, model::{Config, Llama}};",
      "use crate::{\n    error::{Error, Result},\n    model,\n};",
      "fn f(x: &crate::model::Llama) {}",
      "use super::super::model::Llama;",
    ]
  ) check("core-rs/src/formats/gguf.rs", `\n${line}`, [wrong]);
  check("core-rs/src/error.rs", "use super::model::Llama;", [[
    1,
    "error must not use model; it may use no other room",
  ]]);
  check("core-rs/src/formats/gguf.rs", "use super::model;", []);
});

Deno.test("TypeScript: every way to write a wrong import is found", () => {
  const wrong: [number, string] = [2, "engine must not use api; it may use no other room"];
  for (
    const line of [
      'import { createApp } from "../api/app.ts";',
      'import type {\n  Log,\n} from "../api/log.ts";',
      'export * from "../api/app.ts";',
      'import "../api/app.ts";',
      'const app = await import("../api/app.ts");',
      'const worker = new URL("../api/worker.ts", import.meta.url);',
    ]
  ) {
    const [breach, ...more] = checkFile("src/engine/native.ts", `\n${line}`);
    assertEquals([breach?.reason, more.length], [wrong[1], 0], line);
  }
  check("src/sessions/turn.ts", 'import { run } from "../cli/run.ts";', [[
    1,
    "sessions must not use cli; it may use protocol, engine, chat",
  ]]);
  check("src/cli/run.ts", 'import "../main.ts";', [[
    1,
    "cli must not use main; it may use protocol, engine, chat, models, sessions, api, eval",
  ]]);
});

Deno.test("comments are no code", () => {
  check("core-rs/src/error.rs", "//! See `crate::model::Llama`.\n/* use crate::engine; */", []);
  check(
    "src/api/app.ts",
    '// import "../cli/run.ts";\n/**\n * Deno.serve is absent.\n */\nconst url = "http://x//y";',
    [],
  );
});

Deno.test("a new room needs a place", () => {
  check("src/attic/mod.ts", "", [[1, "unknown room attic; its place is a line in scripts/check_rooms.ts"]]);
  check("core-rs/src/gpu.rs", "", [[1, "unknown room gpu; its place is a line in scripts/check_rooms.ts"]]);
});

Deno.test("conditions on the machine stay in kernels and platform", () => {
  for (
    const condition of [
      '#[cfg(target_arch = "x86_64")]',
      '#[cfg(not(target_family = "wasm"))]',
      '#[cfg(all(test, target_os = "linux"))]',
      '#[cfg_attr(target_feature = "avx2", inline)]',
      'if cfg!(target_arch = "wasm32") {}',
      "#[cfg(unix)]",
    ]
  ) {
    check("core-rs/src/model/rope.rs", condition, [[
      1,
      `${condition}: code for one kind of machine belongs to kernels/ or platform/`,
    ]]);
    check("core-rs/src/kernels/x86.rs", condition, []);
    check("core-rs/src/platform/mod.rs", condition, []);
  }
  check("core-rs/src/model/rope.rs", "#[cfg(test)]\n#[cfg(debug_assertions)]", []);
});

Deno.test("the borders, and nothing else, are named for one kind of machine", () => {
  const condition = '#[cfg(target_family = "wasm")]';
  const wrong: [number, string][] = [[
    1,
    `${condition}: code for one kind of machine belongs to kernels/ or platform/`,
  ]];
  for (const border of ["ffi", "wasm"]) {
    check("core-rs/src/lib.rs", `${condition}\npub mod ${border};`, []);
    check("core-rs/src/load/mod.rs", `${condition}\npub mod ${border};`, wrong);
  }
  for (const next of ["pub mod engine;", "", "pub fn ffi() {}"]) {
    check("core-rs/src/lib.rs", `${condition}\n${next}`, wrong);
  }
  check("core-rs/src/lib.rs", condition, wrong);
});

Deno.test("the rooms that run anywhere do not name Deno, their tests may", () => {
  for (const room of ["api", "chat", "protocol", "sessions"]) {
    for (const line of ['Deno.env.get("X");', 'import { delay } from "node:timers";', 'import x from "hono/deno";']) {
      check(`src/${room}/a.ts`, line, [[1, `${line}: this code runs on any runtime`]]);
    }
    check(`src/${room}/a_test.ts`, 'Deno.env.get("X");', []);
  }
  check("src/cli/a.ts", 'Deno.env.get("X");', []);
  for (const file of ["src/edge.ts", "src/engine/wasm.ts", "src/engine/wasm_core.ts"]) {
    check(file, "Deno.cwd();", [[1, "Deno.cwd();: this code runs on any runtime"]]);
  }
  check("src/engine/open.ts", "Deno.cwd();", []);
});

Deno.test("one file alone loads the core", () => {
  check("src/cli/a.ts", "Deno.dlopen(path, {});", [[
    1,
    "Deno.dlopen(path, {});: only src/engine/native.ts loads the core",
  ]]);
  check("src/engine/native.ts", "Deno.dlopen(path, {});", []);
});

Deno.test("one file alone starts Workers, and one alone finds what wasm-bindgen made", () => {
  const [start, glue] = ["new Worker(url);", 'import * as glue from "../target/wasm/llamero.js";'];
  check("src/engine/wasm.ts", start, [[1, `${start}: only src/engine/wasm_link.ts starts Workers`]]);
  check("src/engine/wasm_link.ts", start, []);
  check("src/edge.ts", glue, [[1, `${glue}: generated files are found by src/engine/open.ts or handed in`]]);
  check("src/engine/open.ts", 'const glue = "llamero.js";', []);
});

Deno.test("the tables have no cycle", () => {
  for (const { rooms } of [RUST, TYPESCRIPT]) {
    const visit = (room: string, above: string[]): void => {
      assertEquals(above.includes(room), false, [...above, room].join(" uses "));
      for (const used of rooms[room] ?? []) visit(used, [...above, room]);
    };
    for (const room of Object.keys(rooms)) visit(room, []);
  }
});

Deno.test("this checkout keeps the rule", async () => {
  assertEquals(await checkRooms(join(import.meta.dirname!, "..")), []);
});
