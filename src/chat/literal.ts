/**
 * A prompt that whoever asks has already rendered: it goes to the model as it stands.
 *
 * Absent here on purpose: the guard. Whoever writes a whole prompt means the special tokens in it, so they are recognised.
 *
 * @module
 */

import { withoutBos } from "./begin.ts";
import type { ChatTemplate, TemplateModel } from "./template.ts";

/** The contents of the messages and nothing else. */
export function literalTemplate(model: Pick<TemplateModel, "bosToken" | "addsBos">): ChatTemplate {
  return {
    name: "literal",
    render(messages) {
      return { prompt: [withoutBos(messages.map(({ content }) => content).join(""), model)], stop: [] };
    },
  };
}
