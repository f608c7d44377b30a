/**
 * A prompt that whoever asks has already rendered: it goes to the model as it stands.
 *
 * Absent here on purpose: the guard. Whoever writes a whole prompt means the special tokens in it, so they are recognised.
 *
 * @module
 */

import type { ChatTemplate, TemplateModel } from "./template.ts";

/** The contents of the messages and nothing else. */
export function literalTemplate({ bosToken, addsBos }: Pick<TemplateModel, "bosToken" | "addsBos">): ChatTemplate {
  return {
    name: "literal",
    render(messages) {
      const text = messages.map(({ content }) => content).join("");
      // Both the writer and the engine would begin the prompt with it.
      const doubled = addsBos && bosToken && text.startsWith(bosToken);
      return { prompt: [doubled ? text.slice(bosToken.length) : text], stop: [] };
    },
  };
}
