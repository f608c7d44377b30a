/**
 * The built-in templates, and our Jinja, against prompts that FastChat and PyPI Jinja2 made: byte for byte.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { JinjaTemplate } from "../src/chat/jinja.ts";
import type { ChatMessage } from "../src/chat/mod.ts";
import { FORMATS } from "../src/chat/templates.ts";
import { TurnTemplate } from "../src/chat/turns.ts";
import golden from "./golden/prompts.json" with { type: "json" };

const CONVERSATIONS = golden.conversations as unknown as Record<string, ChatMessage[]>;
const JINJA: Record<string, { bos: string; source: string }> = golden.jinja;

for (const { template, by, conversation, prompt } of golden.prompts) {
  Deno.test(`${template}, ${conversation}: as ${by} writes it`, () => {
    const messages = CONVERSATIONS[conversation]!;
    const format = FORMATS.find(({ name }) => name === template)!;
    assertEquals(new TurnTemplate(format).render(messages, { specialTokens: [] }).prompt, [prompt]);
    if (by !== "Jinja") return;
    const { bos, source } = JINJA[template]!;
    const jinja = new JinjaTemplate(source, { bosToken: bos, eosToken: "</s>", addsBos: true });
    assertEquals(jinja.render(messages, { specialTokens: [] }).prompt, [prompt]);
  });
}

Deno.test("every built-in template has golden prompts", () => {
  const checked = new Set(golden.prompts.map(({ template }) => template));
  assertEquals(FORMATS.map(({ name }) => name).filter((name) => !checked.has(name)), []);
});
