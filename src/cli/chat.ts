/**
 * `llamero chat`: one reply to a prompt or to piped text, or a conversation on a terminal.
 *
 * Absent here on purpose: templates and generation (a turn is the one of sessions/, the same as over HTTP).
 *
 * @module
 */
import type { ChatMessage } from "../chat/mod.ts";
import type { Deps } from "./deps.ts";
import { EXIT_INTERRUPTED, UsageError } from "./errors.ts";
import type { FlagValues, Parsed } from "./flags.ts";
import { loadModel, locateModel } from "./model.ts";
import { converse } from "./repl.ts";
import { opening, Speaker } from "./speaker.ts";
import { chooseTemplate, wantedTemplate } from "./template.ts";

/** Stands for the piped text among the words of a prompt. */
const STDIN_WORD = "-";

/** The command. */
export async function chat(deps: Deps, { values, positionals }: Parsed): Promise<number> {
  const prompt = await readPrompt(deps, positionals);
  const wanted = await wantedTemplate(values);
  const model = await locateModel(deps, values);
  await using engine = await loadModel(deps, model, values);
  const template = chooseTemplate(deps, engine, model, { wanted, quiet: values.quiet });
  const speaker = new Speaker(deps, { engine, template, values, modelId: model.id });
  return prompt === undefined ? await converse(deps, speaker, values) : await replyOnce(deps, speaker, prompt, values);
}

/** The prompt of a single reply; undefined when a conversation is wanted. */
async function readPrompt({ terminal }: Deps, words: readonly string[]): Promise<string | undefined> {
  if (words.length === 0 && terminal.inIsTerminal) return undefined;
  const wantsInput = words.length === 0 || words.includes(STDIN_WORD);
  const input = wantsInput ? (await terminal.readAll()).replace(/\r?\n$/, "") : "";
  // Piped text keeps its lines; words of the command line are one line.
  const prompt = words.length === 0 ? input : joinWords(words, input);
  if (prompt.trim() === "") throw new UsageError("llamero chat: expected a prompt, got an empty text");
  return prompt;
}

function joinWords(words: readonly string[], input: string): string {
  return words.map((word) => word === STDIN_WORD ? `\n${input}\n` : word).join(" ").replaceAll(/ ?\n ?/g, "\n").trim();
}

async function replyOnce(deps: Deps, speaker: Speaker, prompt: string, values: FlagValues): Promise<number> {
  const stop = new AbortController();
  const leave = Promise.withResolvers<"left">();
  using _signals = deps.terminal.onSignal(["SIGINT"], () => {
    if (stop.signal.aborted) leave.resolve("left");
    stop.abort();
  });
  const messages: ChatMessage[] = [...opening(values), { role: "user", content: prompt }];
  const outcome = await Promise.race([speaker.reply(messages, stop.signal), leave.promise]);
  if (outcome === "left" || outcome.reason === "cancelled") return EXIT_INTERRUPTED;
  return 0;
}
