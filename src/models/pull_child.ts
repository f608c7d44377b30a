/**
 * A process of its own for the tests of pull.ts: pulls the entry in its first argument into the folder in its second
 * and says on standard output what a person would see.
 *
 * @module
 */
import type { CatalogueEntry } from "./catalogue.ts";
import { pull } from "./pull.ts";
import { createReporter } from "./progress.ts";

if (import.meta.main) {
  const [entry, dir] = Deno.args;
  const write = (text: string) => void Deno.stdout.writeSync(new TextEncoder().encode(text));
  const reporter = createReporter({ style: "lines", write });
  await pull(JSON.parse(entry ?? "") as CatalogueEntry, { dir: dir ?? "", reporter });
  write("pulled\n");
}
