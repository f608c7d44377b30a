/**
 * A client of the edge service in Node: `node edge_node.mjs EDGE GLUE MODULE MODEL` prints the body of one streamed chat
 * completion. EDGE is src/edge.ts as one JavaScript file; the request comes from standard input.
 */
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const [edge, glue, module, model] = process.argv.slice(2);
const { createEdge } = await import(pathToFileURL(edge));
const service = createEdge({
  glue: await import(pathToFileURL(glue)),
  wasm: await readFile(module),
  weights: await readFile(model),
  modelId: "tiny",
});
const response = await service.fetch(
  new Request("http://localhost/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: await text(process.stdin),
  }),
);
process.stdout.write(await response.text());
