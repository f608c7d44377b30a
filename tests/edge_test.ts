/** The edge service on the real core as WebAssembly, in Deno and in Node. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { createEdge, type Edge } from "../src/edge.ts";
import { loadWasm, NO_WASM, testUnless, TINY_MODEL, WASM_FILES } from "./support.ts";

const BODY = { model: "tiny", messages: [{ role: "user", content: "Hello!" }], temperature: 0, max_tokens: 24 };
const OLDEST_NODE = 20;

/** What the model says, according to a stream that has ended well. */
function contentOf(stream: string): string {
  const lines = stream.trimEnd().split("\n\n");
  assert.equal(lines.pop(), "data: [DONE]", stream);
  return lines.map((line) => JSON.parse(line.replace(/^data: /, "")).choices[0]?.delta.content ?? "").join("");
}

function request(body: unknown): Request {
  const headers = { "content-type": "application/json" };
  return new Request("http://localhost/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body) });
}

async function openEdge(): Promise<Edge> {
  const { glue, module } = await loadWasm();
  return createEdge({ glue, wasm: module, weights: await Deno.readFile(TINY_MODEL), modelId: "tiny" });
}

testUnless([NO_WASM], "edge: the same words streamed and whole", async () => {
  const edge = await openEdge();
  const streamed = contentOf(await (await edge.fetch(request({ ...BODY, stream: true }))).text());
  const whole = await (await edge.fetch(request(BODY))).json();
  assert.equal(whole.choices[0].message.content, streamed);
  assert.ok(streamed.length > 0);
});

testUnless([NO_WASM, await whyNoNode()], "edge: answers in Node with the same words", async () => {
  const edge = await openEdge();
  const expected = contentOf(await (await edge.fetch(request({ ...BODY, stream: true }))).text());
  const dir = await Deno.makeTempDir();
  try {
    await output(Deno.execPath(), ["bundle", "--quiet", "-o", `${dir}/edge.mjs`, fileOf("../src/edge.ts")]);
    // Node takes the ending for the kind of module.
    await Deno.copyFile(WASM_FILES.glue, `${dir}/llamero.mjs`);
    const args = [fileOf("./edge_node.mjs"), `${dir}/edge.mjs`, `${dir}/llamero.mjs`, WASM_FILES.module, TINY_MODEL];
    assert.equal(contentOf(await output("node", args, JSON.stringify({ ...BODY, stream: true }))), expected);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

function fileOf(path: string): string {
  return fileURLToPath(new URL(path, import.meta.url));
}

async function whyNoNode(): Promise<string | undefined> {
  const version = await output("node", ["--version"]).catch(() => "none");
  const major = Number(/^v(\d+)\./.exec(version)?.[1] ?? 0);
  return major >= OLDEST_NODE ? undefined : `expected node ${OLDEST_NODE} or newer on PATH, got ${version.trim()}`;
}

async function output(program: string, args: string[], input = ""): Promise<string> {
  const child = new Deno.Command(program, { args, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
