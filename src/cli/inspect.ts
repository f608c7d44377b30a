/**
 * `llamero inspect`: what a model is, what it asks of this machine, and how a conversation would be put to it.
 *
 * @module
 */
import { format as formatBytes } from "@std/fmt/bytes";
import { ChatTemplateError, type ChosenTemplate, samplePrompt } from "../chat/mod.ts";
import { type ModelInfo, readModelFields } from "../engine/mod.ts";
import type { Deps } from "./deps.ts";
import { UsageError } from "./errors.ts";
import type { Parsed } from "./flags.ts";
import { adapters, locateModel } from "./model.ts";
import { BUILT_IN_SAMPLING } from "../sessions/sampling.ts";
import { wantedTemplate } from "./template.ts";

/** The core's report, as far as it is shown. */
interface Report {
  format: string;
  files: { name: string; bytes: number }[];
  layout?: string;
  release?: string;
  model: Record<string, unknown>;
  shape: Record<"block_count" | "embedding_length" | "feed_forward_length" | "head_count" | "head_count_kv", number>;
  rope_scaling?: string;
  groups: { name: string; type: string; tensors: number; parameters: number; bytes: number }[];
  vocabulary: string;
  memory: {
    weights: number;
    cache: { context: number; f32: number; f16: number; q8_0: number };
    working: number;
    needed: number;
    machine: { total: number; available: number };
    fits: boolean;
    advice?: string[];
  };
  notes: string[];
}

/** How a conversation would be put, or why that is not known. */
type Template = { name: string; source: string; reason: string; sample: string } | { error: string };

/** Column of the values. */
const VALUE_COLUMN = 12;

/** The command. */
export async function inspect(deps: Deps, { values, positionals }: Parsed): Promise<number> {
  if (positionals.length > 1) throw new UsageError(`llamero inspect: expected one model, got ${positionals.join(" ")}`);
  const { path, id } = await locateModel(deps, { ...values, model: positionals[0] ?? values.model! });
  const source = { path, lora: adapters(values) };
  const fields = await deps.runTask({ task: "inspect", source, context_length: values.context }, {});
  const report = fields as unknown as Report;
  const model = readModelFields(report.model);
  const name = model.name || id;
  const template = await templateOf(deps, { ...model, name }, id, values);
  deps.terminal.out(
    values.json
      ? `${JSON.stringify({ path, ...report, template })}\n`
      : `${describe({ ...model, name }, report, template)}\n`,
  );
  return 0;
}

async function templateOf(deps: Deps, model: ModelInfo, id: string, values: Parsed["values"]): Promise<Template> {
  try {
    const { template, source, reason }: ChosenTemplate = deps.selectTemplate(
      { ...model, aliases: [id] },
      await wantedTemplate(values),
    );
    const { specialTokens } = model;
    return {
      name: template.name,
      source,
      reason,
      sample: samplePrompt(template, { specialTokens }),
    };
  } catch (error) {
    if (error instanceof ChatTemplateError) return { error: error.message };
    throw error;
  }
}

function describe(model: ModelInfo, report: Report, template: Template): string {
  const { shape, memory } = report;
  const bytes = report.files.reduce((sum, file) => sum + file.bytes, 0);
  const files = report.files.length === 1 ? report.files[0]!.name : `${report.files.length} files`;
  const rows: [string, string | undefined][] = [
    ["format", `${report.format}: ${files}, ${formatBytes(bytes)}`],
    ["layout", report.layout],
    ["release", report.release],
    [
      "shape",
      `${shape.block_count} layers, width ${shape.embedding_length}, feed-forward ${shape.feed_forward_length}, ` +
      `${shape.head_count} heads (${shape.head_count_kv} for keys and values)`,
    ],
    [
      "context",
      `${model.contextLength} tokens${report.rope_scaling ? `, positions stretched: ${report.rope_scaling}` : ""}`,
    ],
    [
      "vocabulary",
      `${report.vocabulary}, ${model.vocabSize} tokens, begins with ${model.addsBos ? model.bosToken : "nothing"}, ` +
      `ends with ${model.eosToken ?? "nothing"}`,
    ],
    ["sampling", sampling(model)],
    ["template", "error" in template ? template.error : `${template.name}: ${template.reason}`],
  ];
  const groups = report.groups.map((group) =>
    `${group.name.padEnd(VALUE_COLUMN + 2)} ${group.type.padEnd(6)} ${String(group.tensors).padStart(4)} tensors ` +
    formatBytes(group.bytes).padStart(10)
  );
  return [
    `${model.name}: ${model.architecture}, ${count(model.parameters)} parameters, mostly ${model.quantization}`,
    ...rows.filter(([, value]) => value !== undefined).map(([label, value]) => row(label, value!)),
    ...groups.map((group, i) => row(i === 0 ? "weights" : "", group)),
    ...memoryRows(memory),
    ...report.notes.map((note) => row("note", note)),
    ...("error" in template
      ? []
      : ["", "a prompt of this model:", ...template.sample.split("\n").map((line) => `  | ${line}`)]),
  ].join("\n");
}

function memoryRows({ weights, cache, working, needed, machine, fits, advice = [] }: Report["memory"]): string[] {
  const [all, f32, f16, q8] = [needed, cache.f32, cache.f16, cache.q8_0].map((n) => formatBytes(n));
  return [
    row(
      "memory",
      `${all}: weights ${formatBytes(weights)}, cache of ${cache.context} tokens ${f16}, work ${formatBytes(working)}`,
    ),
    row("", `(the cache would take ${q8} with --kv q8_0, ${f32} in f32)`),
    row(
      "machine",
      `${formatBytes(machine.available)} of ${formatBytes(machine.total)} are free: ${
        fits ? "it fits" : "it does not fit whole"
      }`,
    ),
    ...advice.map((choice, i) => row(i === 0 ? "instead" : "", choice)),
  ];
}

/** How the flags spell what tokens are chosen by. */
const SAMPLING_NAMES = {
  temperature: "temperature",
  topK: "top-k",
  topP: "top-p",
  minP: "min-p",
  repeatPenalty: "repeat-penalty",
  maxLength: "tokens in all",
} as const;

/** What applies when a request says nothing: the model's own values, else the built-in ones. */
function sampling({ defaults = {} }: ModelInfo): string {
  const built: ModelInfo["defaults"] = BUILT_IN_SAMPLING;
  const keys = Object.keys(SAMPLING_NAMES) as (keyof typeof SAMPLING_NAMES)[];
  return keys.flatMap((key) => {
    const value = defaults[key] ?? built[key];
    const whose = defaults[key] === undefined ? "" : " (the model's)";
    return value === undefined ? [] : [`${SAMPLING_NAMES[key]} ${value}${whose}`];
  }).join(", ");
}

function row(label: string, value: string): string {
  return `  ${label.padEnd(VALUE_COLUMN)}${value}`;
}

function count(n: number): string {
  if (n >= 1e9) return `${(n / 1e9).toFixed(2)} billion`;
  return n >= 1e6 ? `${(n / 1e6).toFixed(1)} million` : String(n);
}
