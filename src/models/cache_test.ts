import { assertEquals, assertThrows } from "@std/assert";
import { modelsDir, parseModelRef } from "./cache.ts";
import { CATALOGUE, DEFAULT_MODEL, findModel } from "./catalogue.ts";
import { ModelError } from "./error.ts";

Deno.test("the cache folder follows LLAMERO_CACHE, then XDG, then HOME", () => {
  const check = (env: Record<string, string>, expected: string) =>
    assertEquals(modelsDir((name) => env[name]), expected);
  check({ LLAMERO_CACHE: "/a", XDG_CACHE_HOME: "/b", HOME: "/c" }, "/a/models");
  check({ LLAMERO_CACHE: "", XDG_CACHE_HOME: "/b", HOME: "/c" }, "/b/llamero/models");
  check({ XDG_CACHE_HOME: "relative", HOME: "/c" }, "/c/.cache/llamero/models");
  assertThrows(() => modelsDir(() => undefined), ModelError, "set LLAMERO_CACHE, XDG_CACHE_HOME or HOME");
});

Deno.test("--model is a path or a known name", () => {
  for (const path of ["./x", "/a/b", "missing.GGUF", ".", "model_state.pdparams", "m.safetensors.index.json"]) {
    assertEquals(parseModelRef(path), { kind: "path", path });
  }
  assertEquals(parseModelRef("SmolLM2-135M-Instruct"), { kind: "entry", entry: findModel(DEFAULT_MODEL)! });
  for (const name of ["llama-9", ""]) {
    assertThrows(
      () => parseModelRef(name),
      ModelError,
      `opening model "${name}" failed: expected a path (with a slash in it, such as ./${name}) or one of: ${DEFAULT_MODEL}`,
    );
  }
});

Deno.test("the catalogue is consistent", () => {
  assertEquals(new Set(CATALOGUE.map((entry) => entry.id)).size, CATALOGUE.length);
  assertEquals(new Set(CATALOGUE.map((entry) => entry.file)).size, CATALOGUE.length);
  for (const entry of CATALOGUE) {
    assertEquals(/^[0-9a-f]{64}$/.test(entry.sha256), true, entry.id);
    assertEquals(entry.id, entry.id.toLowerCase());
    assertEquals(entry.sources.length > 0, true);
  }
});
