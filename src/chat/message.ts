/**
 * Chat messages, and the one error of this room.
 *
 * Absent here: how messages become a prompt, history, wire formats.
 *
 * @module
 */

/** Who speaks; `tool` is the result of a call. */
export type ChatRole = "system" | "user" | "assistant" | "tool";

/** One message of a conversation. */
export interface ChatMessage {
  readonly role: ChatRole;
  readonly content: string;
  /** The functions that an assistant's message calls. */
  readonly toolCalls?: readonly ToolCall[];
  /** Which call a tool's message answers. */
  readonly toolCallId?: string;
  /** Of an assistant's message: what it thought before it spoke. */
  readonly reasoning?: string;
}

/** A function that the model may call. */
export interface Tool {
  readonly name: string;
  readonly description?: string;
  /** JSON schema of the arguments, an object; absent: none. */
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** Whether arguments are held to the schema while they are generated. */
  readonly strict?: boolean;
}

/** A call of a function. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON. */
  readonly arguments: string;
}

/** Which functions the model must or may call; an object names the one that it must. */
export type ToolChoice = "none" | "auto" | "required" | { readonly name: string };

/**
 * Stable names of template failures.
 *
 * The caller can act on `invalid_message`, `invalid_order`, `unguardable` and `refused` (the template's own
 * `raise_exception`); `no_template` and `unknown_template` are choices of whoever started the program; the others say
 * that the template itself is broken or hostile.
 */
export type ChatTemplateErrorCode =
  | "invalid_message"
  | "invalid_order"
  | "unguardable"
  | "refused"
  | "no_template"
  | "unknown_template"
  | "invalid_template"
  | "failed"
  | "limit";

/** Messages could not be rendered: a stable code and a sentence. */
export class ChatTemplateError extends Error {
  override readonly name = "ChatTemplateError";
  /** What went wrong, as far as a caller can act on it. */
  readonly code: ChatTemplateErrorCode;

  /** A failure with its stable `code` and a sentence. */
  constructor(code: ChatTemplateErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Most messages of one conversation. */
export const MAX_MESSAGES = 4096;

const ROLES: readonly string[] = ["system", "user", "assistant", "tool"] satisfies ChatRole[];

/**
 * Check what every template needs: at least one message, known roles, texts; calls and thoughts only where the assistant
 * speaks.
 *
 * @throws {ChatTemplateError} `invalid_message`
 */
export function checkMessages(messages: readonly ChatMessage[]): void {
  if (messages.length < 1 || messages.length > MAX_MESSAGES) {
    throw invalid(`checking messages: expected 1 to ${MAX_MESSAGES}, got ${messages.length}`);
  }
  messages.forEach(checkMessage);
}

/** Types promise nothing here: messages also come from callers that no compiler has seen. */
function checkMessage(message: ChatMessage, index: number): void {
  const { role, content, toolCalls, toolCallId, reasoning } = message as Record<keyof ChatMessage, unknown>;
  const refuse = (expected: string, got: unknown) =>
    invalid(`checking messages[${index}]: expected ${expected}, got ${String(got).slice(0, 40)}`);
  if (typeof role !== "string" || !ROLES.includes(role)) throw refuse(`role ${ROLES.join(", ")}`, role);
  if (typeof content !== "string") throw refuse("content as text", typeof content);
  for (const [name, text, owner] of [["toolCallId", toolCallId, "tool"], ["reasoning", reasoning, "assistant"]]) {
    if (text !== undefined && typeof text !== "string") throw refuse(`${name} as text`, typeof text);
    if (text !== undefined && role !== owner) throw refuse(`${name} of role ${owner} only`, role);
  }
  if (toolCalls === undefined) return;
  if (role !== "assistant") throw refuse("toolCalls of role assistant only", role);
  if (!Array.isArray(toolCalls) || !toolCalls.every(isCall)) throw refuse("toolCalls as a list of calls", "others");
}

function isCall(call: unknown): call is ToolCall {
  const { id, name, arguments: args } = Object(call) as Record<string, unknown>;
  return [id, name, args].every((text) => typeof text === "string");
}

/**
 * Check the order that a template with fixed turns needs: system first if at all, then user and assistant in turn,
 * the last one from the user.
 *
 * @throws {ChatTemplateError} `invalid_order`
 */
export function checkTurns(messages: readonly ChatMessage[]): void {
  const first = messages[0]?.role === "system" ? 1 : 0;
  for (let index = first; index < messages.length; index++) {
    const expected = (index - first) % 2 === 0 ? "user" : "assistant";
    const got = messages[index]!.role;
    if (got !== expected) throw disorder(index, expected, got);
  }
  const last = messages.at(-1)?.role;
  if (last !== "user") throw disorder(messages.length, "user", last === undefined ? "nothing" : "the end");
}

function invalid(message: string): ChatTemplateError {
  return new ChatTemplateError("invalid_message", message);
}

function disorder(index: number, expected: ChatRole, got: string): ChatTemplateError {
  return new ChatTemplateError("invalid_order", `checking messages[${index}]: expected role ${expected}, got ${got}`);
}
