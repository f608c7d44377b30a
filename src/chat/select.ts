/**
 * Which template a model gets: the one asked for, else the model's own, else one that its name and vocabulary ask for,
 * and why. A model for which none is known is an error that lists the choices: a template that does not fit works badly
 * without ever saying so.
 *
 * Absent here: reading files.
 *
 * @module
 */

import { JinjaTemplate } from "./jinja.ts";
import { type ChatMessage, ChatTemplateError } from "./message.ts";
import type {
  ChatTemplate,
  ChosenTemplate,
  NamedTemplate,
  RenderOptions,
  TemplateFile,
  TemplateModel,
  WantedTemplate,
} from "./template.ts";
import { type FormatName, FORMATS } from "./templates.ts";
import { TurnTemplate } from "./turns.ts";

/** The name that stands for the template inside the model file. */
export const MODEL_TEMPLATE = "model";

/** Every name that {@linkcode selectTemplate} takes. */
export const TEMPLATE_NAMES: readonly string[] = [MODEL_TEMPLATE, ...FORMATS.map(({ name }) => name)];

/** What one rule asks of a model; all that is there must hold. */
interface Rule {
  template: FormatName;
  /** Matches one of the model's names in lower case, with one hyphen for spaces and underscores. */
  name?: RegExp;
  architecture?: RegExp;
  /** The vocabulary has more tokens than this. */
  vocabAbove?: number;
  /** A special token of the vocabulary. */
  token?: string;
}

/** The first that holds decides. */
const RULES: readonly Rule[] = [
  { template: "vicuna-v1.1", name: /vicuna.*(v1[.-][1-9]|-1\.[1-9])/ },
  { template: "vicuna-v0", name: /vicuna.*-v(0|1\.0)/ },
  // Llama's 32000 and a padding token: what v0 weights were trained with.
  { template: "vicuna-v0", name: /vicuna/, vocabAbove: 32000 },
  { template: "vicuna-v1.1", name: /vicuna|longchat/ },
  // Before Zephyr's format, TinyLlama's chat models had others, one of them ChatML.
  { template: "zephyr", name: /zephyr|tinyllama.*chat(?!.*v0\.[1-5])/ },
  { template: "llama-2", name: /llama-?v?2.*chat|code-?llama.*instruct/ },
  { template: "llama-3", name: /llama-?v?3.*(instruct|chat)/ },
  { template: "mistral", name: /mi[sx]tral.*instruct/ },
  { template: "gemma", name: /gemma.*(-it\b|instruct)/ },
  { template: "gemma", architecture: /^gemma/ },
  // The second Chinese Alpaca has Llama 2's format.
  { template: "alpaca", name: /alpaca(?!-?2)/ },
  { template: "koala", name: /koala/ },
  { template: "chatml", token: "<|im_start|>" },
];

/**
 * The template that is `wanted`; else the model's own, else one that its name and vocabulary ask for.
 *
 * @throws {ChatTemplateError} when there is none, or its source cannot be parsed.
 */
export function selectTemplate(model: TemplateModel, wanted?: WantedTemplate): ChosenTemplate {
  if (typeof wanted === "string") return { template: named(model, wanted), source: "flag", reason: "it is asked for" };
  if (wanted !== undefined) return { template: fromFile(model, wanted), source: "flag", reason: "it is asked for" };
  if (model.chatTemplate !== undefined) {
    return { template: ownTemplate(model), source: "model", reason: "the model brings it along" };
  }
  for (const rule of RULES) {
    const reason = reasonOf(rule, model);
    if (reason !== undefined) return { template: builtIn(rule.template)!, source: "name", reason };
  }
  throw none(`${model.name} has none of its own, and its name tells none; ${CHOICES}`);
}

const CHOICES = `name one of ${TEMPLATE_NAMES.slice(1).join(", ")}, or a file with Jinja`;

/** What {@linkcode samplePrompt} shows. */
const SAMPLE: readonly ChatMessage[] = [
  { role: "user", content: "Hello!" },
  { role: "assistant", content: "Hi!" },
  { role: "user", content: "How are you?" },
];

/** What a template makes of two short turns, to show people. */
export function samplePrompt(template: ChatTemplate, options: RenderOptions = { specialTokens: [] }): string {
  return template.render(SAMPLE, options).prompt.join("");
}

function named(model: TemplateModel, name: string): ChatTemplate {
  if (name === MODEL_TEMPLATE) return ownTemplate(model);
  const template = builtIn(name);
  if (template !== undefined) return template;
  throw new ChatTemplateError(
    "unknown_template",
    `choosing a chat template: expected one of ${TEMPLATE_NAMES.join(", ")}, got ${name}`,
  );
}

function builtIn(name: string): ChatTemplate | undefined {
  const format = FORMATS.find((format) => format.name === name);
  return format && new TurnTemplate(format);
}

function ownTemplate(model: TemplateModel): ChatTemplate {
  if (model.chatTemplate === undefined) throw none(`${model.name} has none of its own; ${CHOICES}`);
  return jinja(model.chatTemplate, model, model.name);
}

function fromFile(model: TemplateModel, { name, text }: TemplateFile): ChatTemplate {
  // tokenizer_config.json and chat_template.json of Hugging Face's folders hold the template as a field.
  const json = parseObject(text);
  if (json !== undefined && !isTemplate(json.chat_template)) {
    throw none(`expected ${name} to be Jinja or JSON with a chat_template, got JSON without one`);
  }
  return jinja(json === undefined ? text : json.chat_template as string | NamedTemplate[], model, name, name);
}

/** A template of `owner`, or several of which one may be for tools. */
function jinja(
  source: string | readonly NamedTemplate[],
  model: TemplateModel,
  owner: string,
  name?: string,
): ChatTemplate {
  const toolUse = typeof source === "string" ? undefined : source.find(({ name }) => name === "tool_use")?.template;
  return new JinjaTemplate(sourceOf(source, owner), model, { name, toolUse });
}

/** Jinja that begins with a bracket is no JSON either, so trying is enough. */
function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value as Record<string, unknown> : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a value of unknown origin is Jinja, or a list of named templates. */
function isTemplate(value: unknown): value is string | NamedTemplate[] {
  const isNamed = (each: unknown) => {
    const { name, template } = Object(each) as Record<string, unknown>;
    return typeof name === "string" && typeof template === "string";
  };
  return typeof value === "string" || Array.isArray(value) && value.every(isNamed);
}

/** Of several templates the one named `default`, or the only one: the others are for tools and the like. */
function sourceOf(template: string | readonly NamedTemplate[], owner: string): string {
  if (typeof template === "string") return template;
  const chosen = template.find(({ name }) => name === "default") ?? (template.length === 1 ? template[0] : undefined);
  if (chosen !== undefined) return chosen.template;
  const names = template.map(({ name }) => name).join(", ");
  throw none(`expected ${owner} to have one named default, got ${names || "an empty list"}`);
}

/** Why a rule holds for a model, if it does. */
function reasonOf(rule: Rule, model: TemplateModel): string | undefined {
  const { vocabSize = 0, architecture, specialTokens = [] } = model;
  const name = [model.name, ...model.aliases ?? []].find((name) => rule.name?.test(plain(name)));
  if (rule.name !== undefined && name === undefined) return undefined;
  if (rule.architecture !== undefined && !rule.architecture.test(architecture ?? "")) return undefined;
  if (rule.vocabAbove !== undefined && vocabSize <= rule.vocabAbove) return undefined;
  if (rule.token !== undefined && !specialTokens.includes(rule.token)) return undefined;
  const reasons = [
    name && `it is called ${JSON.stringify(name)}`,
    rule.architecture && `its architecture is ${architecture}`,
    rule.vocabAbove && `its vocabulary of ${vocabSize} tokens is above ${rule.vocabAbove}`,
    rule.token && `its vocabulary has ${rule.token}`,
  ];
  return reasons.filter(Boolean).join(" and ");
}

function plain(name: string): string {
  return name.toLowerCase().replace(/[\s_-]+/g, "-");
}

function none(what: string): ChatTemplateError {
  return new ChatTemplateError("no_template", `choosing a chat template: ${what}`);
}
