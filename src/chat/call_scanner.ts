/**
 * The JSON object of one call, character by character: its name, and its arguments as soon as they come.
 *
 * `{"name": "f", "arguments": {...}}`, with `parameters` for arguments as Llama says it, `id` and `type` beside them. Any
 * other field, an unknown name and what is no JSON at all make it no call. Inside the arguments only texts and brackets
 * are followed: a model's mistake there is for whoever runs the function.
 *
 * @module
 */

type Phase = "open" | "key" | "colon" | "value" | "next" | "over";

/** Fields of a call; those without a meaning here are passed over. */
const FIELDS: Readonly<Record<string, "name" | "arguments" | "other">> = {
  name: "name",
  arguments: "arguments",
  parameters: "arguments",
  id: "other",
  type: "other",
};

/** What a scanner tells. */
export interface CallSink {
  /** A call begins. */
  called(name: string): void;
  /** A piece of its arguments. */
  argued(text: string): void;
}

/** Scans one object. */
export class CallScanner {
  readonly #tools: readonly string[];
  readonly #sink: CallSink;
  #phase: Phase = "open";
  /** Whether a list began before the object. */
  #listed = false;
  #field = "";
  /** The text of the current key or value. */
  #token = "";
  #depth = 0;
  #quoted = false;
  #escaped = false;
  #name: string | undefined;
  #args: string | undefined;
  /** Whether the sink knows of the call. */
  announced = false;

  /** A scanner of an object that calls one of `tools`. */
  constructor(tools: readonly string[], sink: CallSink) {
    this.#tools = tools;
    this.#sink = sink;
  }

  /** How many characters of `text` belong to the object, and whether it goes on, is over, or is no call after all. */
  push(text: string): { length: number; state: "more" | "over" | "broken" } {
    let passed = 0;
    for (let at = 0; at < text.length; at++) {
      const streaming = this.#streaming;
      if (!this.#step(text[at]!)) return { length: at, state: "broken" };
      if (!streaming) passed = this.#streaming ? at : at + 1;
      else if (!this.#streaming) this.#pass(text.slice(passed, passed = at + 1));
      if (this.#phase === "over") return { length: at + 1, state: "over" };
    }
    if (this.#streaming) this.#pass(text.slice(passed));
    return { length: text.length, state: "more" };
  }

  /** Whether arguments are passed on as they come. */
  get #streaming(): boolean {
    return this.announced && this.#phase === "value" && this.#depth > 0 && FIELDS[this.#field] === "arguments";
  }

  #pass(text: string): void {
    if (text !== "") this.#sink.argued(text);
  }

  /** Takes one character; false when it cannot stand here. */
  #step(char: string): boolean {
    if (this.#phase === "value" || this.#phase === "key" && this.#token !== "") return this.#value(char);
    if (/\s/.test(char)) return true;
    switch (this.#phase) {
      case "open":
        if (char === "[" && !this.#listed) return this.#listed = true;
        this.#phase = "key";
        return char === "{";
      case "key":
        return char === '"' ? this.#value(char) : char === "}" && this.#close();
      case "colon":
        this.#phase = "value";
        return char === ":";
      case "next":
        if (char === "}") return this.#close();
        this.#phase = "key";
        return char === ",";
      default:
        return false;
    }
  }

  /** One more character of a key or a value. */
  #value(char: string): boolean {
    if (this.#token === "" && /\s/.test(char)) return true;
    if (this.#token === "") return this.#begin(char);
    const scalar = this.#depth === 0 && !this.#quoted;
    if (scalar && /[\s,}\]]/.test(char)) return this.#end() && this.#step(char);
    if (!this.#streaming) this.#token += char;
    this.#follow(char);
    return scalar || this.#depth > 0 || this.#quoted || this.#end();
  }

  #begin(char: string): boolean {
    if (!/["{[\w-]/.test(char)) return false;
    this.#token = char;
    this.#follow(char);
    if (char === "{" && FIELDS[this.#field] === "arguments" && this.#name !== undefined) this.#announce();
    return true;
  }

  /** Follows texts and brackets. */
  #follow(char: string): void {
    if (this.#escaped) this.#escaped = false;
    else if (this.#quoted && char === "\\") this.#escaped = true;
    else if (char === '"') this.#quoted = !this.#quoted;
    else if (!this.#quoted && (char === "{" || char === "[")) this.#depth++;
    else if (!this.#quoted && (char === "}" || char === "]")) this.#depth--;
  }

  /** A key or value is whole. */
  #end(): boolean {
    const token = this.#token;
    this.#token = "";
    this.#depth = 0;
    this.#quoted = false;
    if (this.#phase === "key") return this.#key(textOf(token));
    this.#phase = "next";
    switch (FIELDS[this.#field]) {
      case "name":
        this.#name = textOf(token);
        return this.#name !== undefined && this.#tools.includes(this.#name);
      case "arguments":
        this.#args = this.announced ? "" : token;
        return true;
      default:
        return true;
    }
  }

  #key(key: string | undefined): boolean {
    this.#phase = "colon";
    if (key === undefined || !Object.hasOwn(FIELDS, key)) return false;
    this.#field = key;
    const seen = { name: this.#name, arguments: this.#args, other: undefined }[FIELDS[key]!];
    return seen === undefined;
  }

  #close(): boolean {
    this.#phase = "over";
    if (this.#name === undefined) return false;
    if (this.announced) return true;
    this.#announce();
    this.#pass(argumentsOf(this.#args));
    return true;
  }

  #announce(): void {
    this.announced = true;
    this.#sink.called(this.#name!);
  }
}

/** Some models write the arguments as a text with JSON in it, or nothing at all. */
function argumentsOf(raw: string | undefined): string {
  if (raw === undefined || raw === "null") return "{}";
  return raw.startsWith('"') ? textOf(raw) || "{}" : raw;
}

function textOf(token: string): string | undefined {
  try {
    const value: unknown = JSON.parse(token);
    return typeof value === "string" ? value : undefined;
  } catch {
    return undefined;
  }
}
