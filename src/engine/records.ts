/**
 * Event records: the packed bytes a wait returns, decoded to values. Little-endian, one record after another:
 * `u32 len` (of the whole record, a multiple of 4), `u32 request` (0 is the engine itself), `u32 kind`,
 * `u32 payload_len`, payload, zero padding.
 *
 * Pure: no FFI, no queues. Lengths are checked before anything is read, so a wrong core gives a sentence.
 *
 * @module
 */

import {
  type ChosenLogprob,
  type Embedding,
  EngineError,
  type EngineErrorCode,
  type EngineStats,
  type GenerateEvent,
  type ModelDefaults,
  type ModelInfo,
  type TokenLogprob,
} from "./engine.ts";

/** Error names by code: the name of code `-n` is at `n - 1`, as `ErrorKind::code` in core-rs/src/error.rs has them. */
export const ERROR_NAMES: readonly EngineErrorCode[] = [
  "io",
  "invalid_format",
  "unsupported",
  "invalid_request",
  "context_overflow",
  "overloaded",
  "not_found",
  "closed",
  "internal",
  "insufficient_resources",
];

/** What the core writes as `kind` of an event record. */
export const RECORD_KIND = {
  loading: 1,
  ready: 2,
  failed: 3,
  text: 4,
  done: 5,
  error: 6,
  started: 7,
  logprobs: 8,
  promptLogprobs: 9,
  embedding: 10,
} as const;

const HEADER_BYTES = 16;
const FINISH_REASONS = ["stop", "length", "cancelled"] as const;

// ignoreBOM keeps a U+FEFF that the model wrote at the start of a piece.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** For tokens, which may be half a character. */
const lenient = new TextDecoder("utf-8", { ignoreBOM: true });
const LOGPROB_BYTES = 12;

/** Where the events of a batch go. */
export interface RecordSink {
  /** The weights are being read: `done` of `total` bytes. */
  loading(done: number, total: number): void;
  /** The model is loaded and can be described. */
  ready(): void;
  /** Loading failed, or the engine died. */
  failed(error: EngineError): void;
  /** A text or the end of a request. */
  event(request: number, event: GenerateEvent): void;
  /** A token of the reply to `request` that the next text is made of, and its probability. */
  logprobs(request: number, token: ChosenLogprob): void;
  /** The next token of the prompt; `null` for the first, which follows nothing. */
  promptLogprobs(request: number, token: ChosenLogprob | null): void;
  /** A request ended with a vector. */
  embedding(request: number, embedding: Embedding): void;
  /** A request failed. */
  error(request: number, error: EngineError): void;
}

/**
 * Decode the records of `bytes` in order into `sink`.
 *
 * @throws {EngineError} `internal` when the bytes break the layout.
 */
export function readRecords(bytes: Uint8Array, sink: RecordSink): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length;) {
    const left = bytes.length - at;
    if (left < HEADER_BYTES) throw malformed(`expected a header of ${HEADER_BYTES} bytes, got ${left}`);
    const length = view.getUint32(at, true);
    const payload = view.getUint32(at + 12, true);
    if (length % 4 !== 0 || length > left || payload > length - HEADER_BYTES) {
      throw malformed(`record length ${length} with payload ${payload} does not fit into ${left} bytes`);
    }
    const start = at + HEADER_BYTES;
    readRecord(
      view.getUint32(at + 4, true),
      view.getUint32(at + 8, true),
      bytes.subarray(start, start + payload),
      sink,
    );
    at += length;
  }
}

function readRecord(request: number, kind: number, payload: Uint8Array, sink: RecordSink): void {
  switch (kind) {
    case RECORD_KIND.text:
      return sink.event(request, readText(payload));
    case RECORD_KIND.logprobs: {
      const token = readLogprobs(payload);
      if (token === null) throw malformed("expected the probability of a token, got none");
      return sink.logprobs(request, token);
    }
    case RECORD_KIND.promptLogprobs:
      return sink.promptLogprobs(request, readLogprobs(payload));
    case RECORD_KIND.done:
      return sink.event(request, readDone(readJson(payload)));
    case RECORD_KIND.error:
      return sink.error(request, readError(readJson(payload)));
    case RECORD_KIND.loading:
      return readLoading(payload, sink);
    case RECORD_KIND.ready:
      return sink.ready();
    case RECORD_KIND.failed:
      return sink.failed(readError(readJson(payload)));
    case RECORD_KIND.started:
      return sink.event(request, readStarted(payload));
    case RECORD_KIND.embedding:
      return sink.embedding(request, readEmbedding(payload));
    default:
      throw malformed(`expected a kind of this table, got ${kind}`);
  }
}

function readStarted(payload: Uint8Array): GenerateEvent {
  if (payload.length !== 4) throw malformed(`expected a started payload of 4 bytes, got ${payload.length}`);
  return { type: "started", promptTokens: new DataView(payload.buffer, payload.byteOffset).getUint32(0, true) };
}

function readText(payload: Uint8Array): GenerateEvent {
  if (payload.length < 4) throw malformed(`expected a text payload of 4 bytes or more, got ${payload.length}`);
  const completionTokens = new DataView(payload.buffer, payload.byteOffset).getUint32(0, true);
  return { type: "text", text: readUtf8(payload.subarray(4)), completionTokens };
}

function readEmbedding(payload: Uint8Array): Embedding {
  if (payload.length < 4 || payload.length % 4 !== 0) {
    throw malformed(`expected an embedding payload of whole numbers of 4 bytes, got ${payload.length}`);
  }
  // A copy: the batch is a buffer that is used again. All machines that Deno runs on are little-endian.
  const values = new Float32Array(payload.slice(4).buffer);
  return { values, promptTokens: new DataView(payload.buffer, payload.byteOffset).getUint32(0, true) };
}

function readLogprobs(payload: Uint8Array): ChosenLogprob | null {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const entries: TokenLogprob[] = [];
  for (let at = 0; at < payload.length;) {
    const start = at + LOGPROB_BYTES;
    const end = start <= payload.length ? start + view.getUint32(at + 8, true) : Infinity;
    if (end > payload.length) throw malformed(`a log probability does not fit into ${payload.length - at} bytes`);
    const bytes = payload.slice(start, end);
    entries.push({
      id: view.getUint32(at, true),
      token: lenient.decode(bytes),
      bytes: [...bytes],
      logprob: view.getFloat32(at + 4, true),
    });
    at = end;
  }
  const [chosen, ...top] = entries;
  return chosen === undefined ? null : { ...chosen, top };
}

function readLoading(payload: Uint8Array, sink: RecordSink): void {
  if (payload.length !== 16) throw malformed(`expected a loading payload of 16 bytes, got ${payload.length}`);
  const view = new DataView(payload.buffer, payload.byteOffset);
  sink.loading(Number(view.getBigUint64(0, true)), Number(view.getBigUint64(8, true)));
}

function readDone(fields: Fields): GenerateEvent {
  return {
    type: "done",
    reason: oneOf(FINISH_REASONS, string(fields, "reason")),
    stop: optionalString(fields, "stop"),
    usage: { promptTokens: number(fields, "prompt_tokens"), completionTokens: number(fields, "completion_tokens") },
    timings: {
      queueMs: number(fields, "queue_ms"),
      prefillMs: number(fields, "prefill_ms"),
      decodeMs: number(fields, "decode_ms"),
    },
  };
}

/** A failure as the core writes it, `{"code", "message"}`. */
export function readError(fields: Fields): EngineError {
  return new EngineError(oneOf<EngineErrorCode>(ERROR_NAMES, string(fields, "code")), string(fields, "message"));
}

/** The model's description, as `llamero_describe` writes it. */
export function readModel(json: Uint8Array): ModelInfo {
  return readModelFields(readJson(json));
}

/** The same from JSON that has been parsed. */
export function readModelFields(fields: Fields): ModelInfo {
  return {
    name: string(fields, "name"),
    architecture: string(fields, "architecture"),
    contextLength: number(fields, "context_length"),
    vocabSize: number(fields, "vocab_size"),
    embeddingLength: number(fields, "embedding_length"),
    constrains: fields.constrains === true,
    parameters: number(fields, "parameters"),
    quantization: string(fields, "quantization"),
    chatTemplate: readChatTemplate(fields),
    bosToken: optionalString(fields, "bos_token"),
    eosToken: optionalString(fields, "eos_token"),
    addsBos: fields.adds_bos === true,
    specialTokens: strings(fields, "special_tokens"),
    device: string(fields, "device"),
    notMapped: optionalString(fields, "not_mapped"),
    defaults: readDefaults(fields),
  };
}

function readChatTemplate(fields: Fields): ModelInfo["chatTemplate"] {
  const value = fields.chat_template;
  if (!Array.isArray(value)) return optionalString(fields, "chat_template");
  return value.map((each) => {
    const source = object(each, "an element of chat_template");
    return { name: string(source, "name"), template: string(source, "template") };
  });
}

function readDefaults(fields: Fields): ModelDefaults | undefined {
  if (fields.defaults === undefined || fields.defaults === null) return undefined;
  const defaults = object(fields.defaults, "defaults");
  return {
    temperature: optionalNumber(defaults, "temperature"),
    topK: optionalNumber(defaults, "top_k"),
    topP: optionalNumber(defaults, "top_p"),
    minP: optionalNumber(defaults, "min_p"),
    repeatPenalty: optionalNumber(defaults, "repeat_penalty"),
    maxLength: optionalNumber(defaults, "max_length"),
  };
}

/** How busy the core is, as it writes it. */
export function readStats(json: Uint8Array): EngineStats {
  const fields = readJson(json);
  return {
    waiting: number(fields, "waiting"),
    running: number(fields, "running"),
    generatedTokens: number(fields, "generated_tokens"),
    proposedTokens: number(fields, "proposed_tokens"),
    acceptedTokens: number(fields, "accepted_tokens"),
    healthy: fields.healthy === true,
  };
}

/** A JSON object whose fields are not yet known to have the right types. */
export type Fields = Readonly<Record<string, unknown>>;

/** Parse UTF-8 JSON that must be an object. */
export function readJson(payload: Uint8Array): Fields {
  const text = readUtf8(payload);
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as Fields;
  } catch { /* reported below together with JSON that is not an object */ }
  throw malformed(`expected a JSON object, got ${JSON.stringify(text.slice(0, 40))}`);
}

/** The finite number under `key`. */
function number(fields: Fields, key: string): number {
  const value = fields[key];
  if (typeof value !== "number") throw malformed(`expected a number as ${key}, got ${typeof value}`);
  return value;
}

function optionalNumber(fields: Fields, key: string): number | undefined {
  return fields[key] === undefined || fields[key] === null ? undefined : number(fields, key);
}

function object(value: unknown, what: string): Fields {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
  throw malformed(`expected an object as ${what}, got ${value === null ? "null" : typeof value}`);
}

function string(fields: Fields, key: string): string {
  const value = fields[key];
  if (typeof value !== "string") throw malformed(`expected a text as ${key}, got ${typeof value}`);
  return value;
}

function optionalString(fields: Fields, key: string): string | undefined {
  return fields[key] === undefined || fields[key] === null ? undefined : string(fields, key);
}

function strings(fields: Fields, key: string): string[] {
  const value = fields[key];
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw malformed(`expected an array of texts as ${key}`);
}

function oneOf<T extends string>(known: readonly T[], value: string): T {
  const found = known.find((name) => name === value);
  if (found === undefined) throw malformed(`expected one of ${known.join(", ")}, got ${JSON.stringify(value)}`);
  return found;
}

function readUtf8(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw malformed("expected UTF-8 text");
  }
}

function malformed(what: string): EngineError {
  return new EngineError("internal", `reading event records: ${what}`);
}
