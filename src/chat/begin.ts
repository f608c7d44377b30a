/**
 * The begin-of-sequence token in front of a prompt: templates and people write it, and engines put it there by
 * themselves.
 *
 * @module
 */

import type { TemplateModel } from "./template.ts";

/** A text for an engine, without the begin token that the engine would write a second time. */
export function withoutBos(text: string, { addsBos, bosToken }: Pick<TemplateModel, "addsBos" | "bosToken">): string {
  return addsBos && bosToken && text.startsWith(bosToken) ? text.slice(bosToken.length) : text;
}
