/**
 * Which template a model gets. A model without one is an error that lists the choices: a template that does not fit
 * works badly without ever saying so.
 *
 * @module
 */

import { JinjaTemplate } from "./jinja.ts";
import { ChatTemplateError } from "./message.ts";
import type { ChatTemplate, TemplateModel } from "./template.ts";
import { VICUNA_V1_1 } from "./templates/vicuna_v1_1.ts";
import { TurnTemplate } from "./turns.ts";

/** The name that stands for the template inside the model file. */
export const MODEL_TEMPLATE = "model";

const BUILT_IN = [VICUNA_V1_1];

/** Every name that {@linkcode selectTemplate} takes. */
export const TEMPLATE_NAMES: readonly string[] = [MODEL_TEMPLATE, ...BUILT_IN.map(({ name }) => name)];

/**
 * The template named `name`; without a name the model's own, else one that the model's name asks for.
 *
 * @throws {ChatTemplateError} when there is none, or the model's own cannot be parsed.
 */
export function selectTemplate(model: TemplateModel, name?: string): ChatTemplate {
  if (name !== undefined) return named(model, name);
  if (model.chatTemplate !== undefined) return new JinjaTemplate(model.chatTemplate, model);
  if (/vicuna/i.test(model.name)) return new TurnTemplate(VICUNA_V1_1);
  throw new ChatTemplateError(
    "no_template",
    `choosing a chat template: ${model.name} has none of its own; name one of ${TEMPLATE_NAMES.slice(1).join(", ")}`,
  );
}

function named(model: TemplateModel, name: string): ChatTemplate {
  const format = BUILT_IN.find((format) => format.name === name);
  if (format !== undefined) return new TurnTemplate(format);
  if (name !== MODEL_TEMPLATE) {
    throw new ChatTemplateError(
      "unknown_template",
      `choosing a chat template: expected one of ${TEMPLATE_NAMES.join(", ")}, got ${name}`,
    );
  }
  if (model.chatTemplate !== undefined) return new JinjaTemplate(model.chatTemplate, model);
  throw new ChatTemplateError("no_template", `choosing a chat template: ${model.name} has none of its own`);
}
