/**
 * A conversation on a terminal. Line editing is the terminal's own, so a Ctrl-C is a signal: during a reply it stops
 * the reply, and while nothing is generated, or when the stop takes too long, it leaves.
 *
 * Questions and remarks go to standard error, replies to standard output.
 *
 * @module
 */
import { type ChatMessage, ChatTemplateError } from "../chat/mod.ts";
import { EngineError } from "../engine/engine.ts";
import type { Deps } from "./deps.ts";
import type { FlagValues } from "./flags.ts";
import { opening, type Speaker } from "./speaker.ts";
import { faint, type Terminal } from "./terminal.ts";

const ASK = "\n> ";
const ASK_ON = ". ";

const HELP = `/help          this text
/reset         forget the conversation
/system TEXT   what the model is told before the conversation; without TEXT nothing
/exit          leave (also Ctrl-D)
A \\ at the end of a line goes on in the next one. Ctrl-C stops a reply; with no reply running it leaves.
A line that begins with a space is never a command.`;

/** Talk until the person leaves; gives the exit code. */
export async function converse(deps: Deps, speaker: Speaker, values: FlagValues): Promise<number> {
  const conversation = new Conversation(deps.terminal, speaker, values);
  using _signals = deps.terminal.onSignal(["SIGINT"], () => conversation.interrupt());
  await conversation.run();
  return 0;
}

class Conversation {
  readonly #terminal: Terminal;
  readonly #speaker: Speaker;
  readonly #quiet: boolean;
  readonly #left = Promise.withResolvers<undefined>();
  #messages: ChatMessage[];
  #isLeaving = false;
  /** Stops the reply that is being generated. */
  #stop: AbortController | undefined;

  constructor(terminal: Terminal, speaker: Speaker, values: FlagValues) {
    this.#terminal = terminal;
    this.#speaker = speaker;
    this.#quiet = values.quiet ?? false;
    this.#messages = opening(values);
  }

  /** What Ctrl-C does. */
  interrupt(): void {
    if (this.#stop && !this.#stop.signal.aborted) return this.#stop.abort();
    this.#terminal.err("\n");
    this.#leave();
  }

  async run(): Promise<void> {
    const { name, quantization, device, contextLength } = this.#speaker.engine.model;
    this.#remark(`${name} (${quantization}, ${device}), ${contextLength} tokens of context. /help shows commands.`);
    while (!this.#isLeaving) {
      const text = await this.#ask();
      if (text === undefined) return;
      const [, command, argument] = /^\/([a-z]+)(?:\s+(.*))?$/s.exec(text.trimEnd()) ?? [];
      if (command !== undefined) this.#command(command, argument?.trim());
      else if (text.trim() !== "") await this.#turn(text.trim());
    }
  }

  /** What the person says, or undefined when they leave. */
  async #ask(): Promise<string | undefined> {
    const lines: string[] = [];
    for (;;) {
      this.#terminal.err(lines.length === 0 ? ASK : ASK_ON);
      const line = await Promise.race([this.#terminal.readLine(), this.#left.promise]);
      if (line === undefined) {
        if (!this.#isLeaving) this.#terminal.err("\n");
        return undefined;
      }
      lines.push(line.replace(/\\$/, ""));
      if (!line.endsWith("\\")) return lines.join("\n");
    }
  }

  #command(command: string, argument: string | undefined): void {
    switch (command) {
      case "exit":
      case "quit":
      case "bye":
        return this.#leave();
      case "reset":
        this.#messages = this.#messages.filter((message) => message.role === "system");
        return this.#remark("the conversation is forgotten");
      case "system":
        this.#messages = this.#messages.filter((message) => message.role !== "system");
        if (argument) this.#messages.unshift({ role: "system", content: argument });
        return this.#remark(argument ? "the system text is set" : "there is no system text now");
      case "help":
        return this.#remark(HELP);
      default:
        return this.#remark(`unknown command /${command}; /help shows them`);
    }
  }

  async #turn(text: string): Promise<void> {
    const asked: ChatMessage = { role: "user", content: text };
    const stop = this.#stop = new AbortController();
    try {
      const reply = await Promise.race([
        this.#speaker.reply([...this.#messages, asked], stop.signal),
        this.#left.promise,
      ]);
      if (!reply) return;
      // A stopped reply stays in the conversation: the person has read it. Where nothing was said, nothing was asked.
      if (reply.messages.at(-1)?.role === "assistant") this.#messages = [...reply.messages];
      if (reply.reason === "cancelled") this.#remark("(stopped)");
      if (reply.reason === "length") this.#remark("(the reply reached the limit of tokens)");
    } catch (error) {
      this.#recover(error);
    } finally {
      this.#stop = undefined;
    }
  }

  /** A request that the engine refuses is no reason to lose the conversation; a dead engine is. */
  #recover(error: unknown): void {
    const refused = error instanceof EngineError || error instanceof ChatTemplateError;
    if (!refused || !this.#speaker.engine.stats().healthy) throw error;
    const advice = error.code === "context_overflow" ? "; /reset makes room" : "";
    this.#terminal.err(`llamero: ${error.message}${advice}\n`);
  }

  #leave(): void {
    this.#isLeaving = true;
    this.#left.resolve(undefined);
  }

  #remark(text: string): void {
    if (!this.#quiet) this.#terminal.err(`${faint(this.#terminal, text)}\n`);
  }
}
