/**
 * From `--chat-template` to a template: the name of one, or a file of the person's own. A template that the model's name
 * has chosen is said, since it is a guess.
 *
 * @module
 */
import { basename } from "node:path";
import { type ChatTemplate, ChatTemplateError, TEMPLATE_NAMES, type WantedTemplate } from "../chat/mod.ts";
import type { Engine } from "../engine/mod.ts";
import type { Deps } from "./deps.ts";
import { CommandError, UsageError } from "./errors.ts";
import { readSmallFile } from "./files.ts";
import type { FlagValues } from "./flags.ts";
import type { LocatedModel } from "./model.ts";

/** What the flag asks for. A name goes before a file; `./llama-2` is a file. */
export async function wantedTemplate({ "chat-template": value }: FlagValues): Promise<WantedTemplate | undefined> {
  if (value === undefined || TEMPLATE_NAMES.includes(value)) return value;
  return { name: basename(value), text: await readSmallFile(value, (got) => unusable(value, got)) };
}

/** The template for a loaded model. */
export function chooseTemplate(
  { selectTemplate, terminal }: Deps,
  { model }: Engine,
  { id }: LocatedModel,
  { wanted, quiet }: { wanted: WantedTemplate | undefined; quiet: boolean | undefined },
): ChatTemplate {
  try {
    const { template, source, reason } = selectTemplate({ ...model, aliases: [id] }, wanted);
    const guessed = `llamero: using the chat template ${template.name}, because the model has none and ${reason}\n`;
    if (source === "name" && !quiet) terminal.err(guessed);
    return template;
  } catch (cause) {
    if (!(cause instanceof ChatTemplateError)) throw cause;
    throw new CommandError(`${cause.message} (--chat-template)`, { cause });
  }
}

function unusable(path: string, got: string): UsageError {
  const names = TEMPLATE_NAMES.join(", ");
  return new UsageError(`--chat-template: expected one of ${names}, or a file with Jinja, got ${got}: ${path}`);
}
