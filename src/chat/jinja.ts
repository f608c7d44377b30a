/**
 * A template that a model file or a person brings along: Jinja, read and run by @huggingface/jinja under limits, with
 * the variables and functions that Hugging Face's chat templates expect.
 *
 * Absent here: documents, and everything else of Jinja that reaches outside the template.
 *
 * @module
 */

import { Environment, parse, tokenize } from "@huggingface/jinja";
import { withoutBos } from "./begin.ts";
import { guardTexts } from "./guard.ts";
import { BoundedInterpreter, type JinjaLimits, NODE_CHARS } from "./jinja_interpreter.ts";
import { type ChatMessage, ChatTemplateError, checkMessages } from "./message.ts";
import { notationOf, type ToolNotation } from "./notation.ts";
import type { ChatTemplate, RenderedPrompt, RenderOptions, TemplateModel } from "./template.ts";
import { THOUGHTS_BEGIN } from "./thoughts.ts";
import { type TemplateMessage, templateMessages, templateTool } from "./tool_values.ts";

/**
 * What an honest template needs, with much room: the longest known one has 20,000 characters, and a thousand messages
 * take about 50,000 steps.
 */
export const JINJA_LIMITS: JinjaLimits = {
  templateChars: 2 ** 18,
  spaces: 256,
  steps: 1_000_000,
  depth: 400,
  timeMs: 600,
  chars: 2 ** 22,
  totalChars: 2 ** 27,
};

/** Longest part of a foreign error that is repeated. */
const MAX_REASON = 300;
const MONTHS = "January February March April May June July August September October November December".split(" ");

/** What a Jinja template reads of a model. */
type Tokens = Pick<TemplateModel, "bosToken" | "eosToken" | "addsBos">;

/** Options of {@linkcode JinjaTemplate}. */
export interface JinjaOptions {
  /** Name of the template. Default `model`: the one inside the model file. */
  name?: string;
  /** Source of another template of the model, for conversations with tools. */
  toolUse?: string;
  /** Limits that differ from {@linkcode JINJA_LIMITS}. */
  limits?: Partial<JinjaLimits>;
  /** Milliseconds of a monotonic clock, for the time limit. */
  now?: () => number;
  /** What `strftime_now` takes as today. */
  today?: () => Date;
}

/** What a rendering is of, as the template sees it. */
interface Asked {
  messages: TemplateMessage[];
  /** Absent where there are none: templates ask whether it is there. */
  tools?: unknown[];
  variables: Readonly<Record<string, unknown>>;
}

/** A Jinja chat template. */
export class JinjaTemplate implements ChatTemplate {
  readonly name: string;
  readonly tools: ToolNotation | undefined;
  readonly thinks: boolean;
  readonly #toolUse: JinjaTemplate | undefined;
  readonly #program: ReturnType<typeof parse>;
  readonly #model: Tokens;
  readonly #limits: JinjaLimits;
  readonly #now: () => number;
  readonly #today: () => Date;

  /**
   * Parse `source`; `model` gives the begin and end tokens.
   *
   * @throws {ChatTemplateError} `invalid_template` or `limit`
   */
  constructor(source: string, model: Tokens, options: JinjaOptions = {}) {
    this.name = options.name ?? "model";
    this.#limits = { ...JINJA_LIMITS, ...options.limits };
    this.#now = options.now ?? (() => performance.now());
    this.#today = options.today ?? (() => new Date());
    this.#model = model;
    this.#program = parseSource(source, this.#limits);
    const { toolUse, ...others } = options;
    this.#toolUse = toolUse === undefined ? undefined : new JinjaTemplate(toolUse, model, others);
    this.tools = notationOf(toolUse ?? source);
    this.thinks = source.includes(THOUGHTS_BEGIN);
  }

  render(messages: readonly ChatMessage[], options: RenderOptions): RenderedPrompt {
    const { specialTokens, tools = [], variables = {} } = options;
    if (this.#toolUse !== undefined && tools.length > 0) return this.#toolUse.render(messages, options);
    checkMessages(messages);
    const asked: Asked = {
      messages: templateMessages(messages),
      ...(tools.length > 0 ? { tools: tools.map(templateTool) } : {}),
      variables,
    };
    const guarded = guardTexts(asked, specialTokens);
    // Roles are ours, and no text of anybody's.
    guarded.value.messages.forEach((message, index) => message.role = messages[index]!.role);
    return { prompt: guarded.split(withoutBos(this.#run(guarded.value), this.#model)), stop: [] };
  }

  #run(asked: Asked): string {
    try {
      const scope = this.#scope(asked);
      const interpreter = new BoundedInterpreter(scope, this.#limits, this.#now);
      return interpreter.evaluate(this.#program, scope).value as string;
    } catch (error) {
      throw asTemplateError(error, "failed", "rendering the chat template");
    }
  }

  #scope({ variables, ...asked }: Asked): Environment {
    const scope = new Environment();
    const { bosToken = "", eosToken = "" } = this.#model;
    const own = { ...asked, add_generation_prompt: true, bos_token: bosToken, eos_token: eosToken };
    const constants = { true: true, True: true, false: false, False: false, none: null, None: null };
    const maxElements = Math.floor(this.#limits.chars / NODE_CHARS);
    const functions = {
      raise_exception: raise,
      range: (...bounds: unknown[]) => range(bounds, maxElements),
      strftime_now: (format: unknown) => formatDate(this.#today(), format),
    };
    const all = { ...variables, ...constants, ...functions, ...own };
    for (const [name, value] of Object.entries(all)) scope.set(name, value);
    return scope;
  }
}

/** As Hugging Face's templates are read: without the line break after a block and the spaces before it. */
function parseSource(source: string, limits: JinjaLimits): ReturnType<typeof parse> {
  if (source.length > limits.templateChars) {
    throw overLimit(`expected at most ${limits.templateChars} characters, got ${source.length}`);
  }
  if (new RegExp(`\\s{${limits.spaces + 1}}`).test(source)) {
    throw overLimit(`expected at most ${limits.spaces} spaces in a row, got more`);
  }
  try {
    return parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
  } catch (error) {
    throw asTemplateError(error, "invalid_template", "reading the chat template");
  }
}

/** Jinja's `raise_exception`: how a template says that it does not take these messages. */
function raise(message: unknown): never {
  const reason = typeof message === "string" ? message.slice(0, MAX_REASON) : "no reason given";
  throw new ChatTemplateError("refused", `rendering the chat template: it refused the messages: ${reason}`);
}

/** Python's `range`, of bounded length. */
function range(bounds: readonly unknown[], maxElements: number): number[] {
  if (!bounds.every((bound) => Number.isSafeInteger(bound))) throw new Error("range() expects whole numbers");
  const [first, second, step = 1] = bounds as number[];
  const [start, stop] = second === undefined ? [0, first ?? 0] : [first!, second];
  if (step === 0) throw new Error("range() step must not be zero");
  const length = Math.max(Math.ceil((stop - start) / step), 0);
  if (length > maxElements) throw overLimit(`expected ranges of at most ${maxElements} numbers, got ${length}`);
  return Array.from({ length }, (_, index) => start + index * step);
}

/** The parts of `strftime` that templates use, in English wherever the server stands. */
function formatDate(date: Date, format: unknown): string {
  if (typeof format !== "string") throw new Error("strftime_now() expects a text");
  const pad = (value: number) => String(value).padStart(2, "0");
  const month = MONTHS[date.getMonth()]!;
  const fields: Record<string, string> = {
    "%Y": String(date.getFullYear()),
    "%m": pad(date.getMonth() + 1),
    "%d": pad(date.getDate()),
    "%b": month.slice(0, 3),
    "%B": month,
    "%H": pad(date.getHours()),
    "%M": pad(date.getMinutes()),
    "%S": pad(date.getSeconds()),
    "%%": "%",
  };
  return format.replace(/%[YmdbBHMS%]/g, (field) => fields[field]!);
}

function asTemplateError(error: unknown, code: "failed" | "invalid_template", action: string): ChatTemplateError {
  if (error instanceof ChatTemplateError) return error;
  // The stack or the longest string of the runtime: the template asked for too much.
  if (error instanceof RangeError) return overLimit(error.message, error);
  const reason = (error instanceof Error ? error.message : String(error)).slice(0, MAX_REASON);
  return new ChatTemplateError(code, `${action}: ${reason}`, { cause: error });
}

function overLimit(message: string, cause?: unknown): ChatTemplateError {
  return new ChatTemplateError("limit", `running the chat template: ${message}`, { cause });
}
