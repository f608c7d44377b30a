import assert from "node:assert/strict";
import config from "../../deno.json" with { type: "json" };
import { VERSION } from "./mod.ts";

Deno.test("the version is the package's", () => assert.equal(VERSION, config.version));
