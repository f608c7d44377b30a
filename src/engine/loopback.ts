/**
 * The core's C ABI played in JavaScript over a `FakeEngine`, so that the native engine can be tested without a core:
 * same symbols, same buffers, same records. Used from test files only.
 *
 * @module
 */

import {
  type ChosenLogprob,
  type Embedding,
  type EmbedRequest,
  EngineError,
  type EngineStats,
  type GenerateEvent,
  type GenerateRequest,
  type ModelDefaults,
  type ModelInfo,
  type TextEvent,
} from "./engine.ts";
import type { FakeEngine } from "./fake.ts";
import { ERROR_NAMES, RECORD_KIND } from "./records.ts";
import { SAMPLING_FIELDS, wireName } from "./request.ts";
import { ABI_VERSION, type Symbols } from "./symbols.ts";

const encoder = new TextEncoder();

/** One event record as the core writes it. */
export function packRecord(request: number, kind: number, payload: Uint8Array): Uint8Array {
  const length = 16 + Math.ceil(payload.length / 4) * 4;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  [length, request, kind, payload.length].forEach((word, index) => view.setUint32(index * 4, word, true));
  bytes.set(payload, 16);
  return bytes;
}

/** The payload of a record that carries JSON. */
export function packJson(value: unknown): Uint8Array {
  return encoder.encode(JSON.stringify(value));
}

/** The payload of a text record. */
export function packText(completionTokens: number, text: string): Uint8Array {
  const bytes = encoder.encode(`\0\0\0\0${text}`);
  new DataView(bytes.buffer).setUint32(0, completionTokens, true);
  return bytes;
}

/** The payload of a started record. */
export function packStarted(promptTokens: number): Uint8Array {
  return packText(promptTokens, "");
}

/** The payload of a loading record. */
export function packLoading(done: number, total: number): Uint8Array {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(done), true);
  new DataView(bytes.buffer).setBigUint64(8, BigInt(total), true);
  return bytes;
}

/** `ModelInfo` as the core writes it. */
export function packModel(model: ModelInfo): Uint8Array {
  return packJson({
    name: model.name,
    architecture: model.architecture,
    context_length: model.contextLength,
    vocab_size: model.vocabSize,
    embedding_length: model.embeddingLength,
    constrains: model.constrains,
    parameters: model.parameters,
    quantization: model.quantization,
    chat_template: model.chatTemplate,
    bos_token: model.bosToken,
    eos_token: model.eosToken,
    adds_bos: model.addsBos,
    special_tokens: model.specialTokens,
    device: model.device,
    not_mapped: model.notMapped,
    defaults: model.defaults && packDefaults(model.defaults),
  });
}

function packDefaults({ topK, topP, minP, repeatPenalty, maxLength, ...defaults }: ModelDefaults): unknown {
  return { ...defaults, top_k: topK, top_p: topP, min_p: minP, repeat_penalty: repeatPenalty, max_length: maxLength };
}

/** `EngineStats` as the core writes them. */
export function packStats({ generatedTokens, proposedTokens, acceptedTokens, ...stats }: EngineStats): Uint8Array {
  return packJson({
    ...stats,
    generated_tokens: generatedTokens,
    proposed_tokens: proposedTokens,
    accepted_tokens: acceptedTokens,
  });
}

/** A request's JSON as the fake engine takes it. */
export function readRequest(json: unknown): GenerateRequest {
  const { logit_bias, ...fields } = json as { logit_bias?: [number, number | null][] } & Record<string, unknown>;
  const given = (names: readonly string[]) =>
    Object.fromEntries(names.filter((name) => wireName(name) in fields).map((name) => [name, fields[wireName(name)]]));
  const logitBias = logit_bias?.map(([id, bias]) => [id, bias ?? -Infinity]);
  const sampling = { ...given(SAMPLING_FIELDS), ...(logitBias && { logitBias }) };
  const constraint = fields.constraint as { schema?: string } | undefined;
  const schema = constraint?.schema && { schema: JSON.parse(constraint.schema) };
  return {
    ...given(REQUEST_FIELDS),
    ...(constraint && { constraint: { ...constraint, ...schema } }),
    sampling,
  } as unknown as GenerateRequest;
}

const REQUEST_FIELDS: readonly (keyof GenerateRequest)[] = [
  "prompt",
  "promptIds",
  "maxTokens",
  "stop",
  "stopTokenIds",
  "minTokens",
  "ignoreEos",
  "logprobs",
  "promptLogprobs",
];

/** An embedding request's JSON as the fake engine takes it. */
export function readEmbedRequest(json: unknown): EmbedRequest {
  const { prompt, prompt_ids, pooling } = json as EmbedRequest & { prompt_ids?: number[] };
  return { prompt, promptIds: prompt_ids, pooling };
}

/** A core of one engine with id 1. */
export class LoopbackCore {
  /** Waits that have not been answered. */
  outstanding = 0;
  /** The JSON of the last `llamero_open`. */
  config: unknown;
  /** Calls of `llamero_close`. */
  closes = 0;
  /** Calls on another thread. */
  longCalls = 0;
  /** What the next `llamero_open` or `llamero_submit` answers with, when it is to fail. */
  refusal?: EngineError;
  readonly #fake: FakeEngine;
  readonly #records: Uint8Array[] = [];
  readonly #cancels = new Map<number, AbortController>();
  #wake?: () => void;
  #requests = 0;
  #closed = false;
  #lastError = "";

  /** A core that answers as `fake` does. */
  constructor(fake: FakeEngine) {
    this.#fake = fake;
  }

  /** The functions, as `dlopen` gives them. */
  readonly symbols: Symbols = {
    llamero_abi_version: () => ABI_VERSION,
    llamero_open: (config) => this.#refused() ?? this.#open(config as Uint8Array),
    llamero_start: (task) => this.#refused() ?? this.#open(task as Uint8Array),
    llamero_wait: (_engine, out) => this.#wait(out as Uint8Array),
    llamero_describe: (_engine, out) => this.#answer(() => packModel(this.#fake.model), out as Uint8Array),
    llamero_submit: (_engine, request) => this.#refused() ?? this.#submit(request as Uint8Array),
    llamero_embed: (_engine, request) => this.#refused() ?? this.#embed(request as Uint8Array),
    llamero_cancel: (_engine, request) => {
      this.#cancels.get(request)?.abort();
      return 0;
    },
    llamero_tokenize: (_engine, prompt, _length, out) =>
      this.#answer(() => this.#fake.encode(parse(prompt as Uint8Array) as string[]), out as Uint32Array),
    llamero_tokenize_long: (...call) => this.#elsewhere(() => this.symbols.llamero_tokenize(...call)),
    llamero_detokenize: (_engine, ids, _count, out) =>
      this.#answer(() => encoder.encode(this.#fake.decode([...ids as Uint32Array])), out as Uint8Array),
    llamero_detokenize_long: (...call) => this.#elsewhere(() => this.symbols.llamero_detokenize(...call)),
    llamero_stats: (_engine, out) => this.#answer(() => packStats(this.#fake.stats()), out as Uint8Array),
    llamero_last_error: (_engine, out) => this.#answer(() => encoder.encode(this.#lastError), out as Uint8Array),
    llamero_close: () => this.#close(),
  };

  /** Deliver bytes as events. */
  emit(record: Uint8Array): void {
    this.#records.push(record);
    this.#wake?.();
  }

  #open(config: Uint8Array): number {
    this.config = parse(config);
    return 1;
  }

  /** Sleeps until there is something; wakes with nothing when `emit` is given an empty record. */
  async #wait(out: Uint8Array): Promise<number> {
    this.outstanding++;
    if (this.#records.length === 0 && !this.#closed) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    this.outstanding--;
    if (this.#closed) return this.#fail(new EngineError("closed", "waiting: the engine is closed"));
    let [written, taken] = [0, 0];
    for (const record of this.#records) {
      if (written + record.length > out.length) break;
      out.set(record, written);
      written += record.length;
      taken++;
    }
    this.#records.splice(0, taken);
    return written;
  }

  #submit(json: Uint8Array): number {
    return this.#begin(async (id, signal) => {
      for await (const event of this.#fake.generate(readRequest(parse(json)), { signal })) {
        this.emit(packEvent(id, event));
      }
    });
  }

  #embed(json: Uint8Array): number {
    return this.#begin(async (id, signal) => {
      this.emit(packEmbedding(id, await this.#fake.embed(readEmbedRequest(parse(json)), { signal })));
    });
  }

  #begin(play: (id: number, signal: AbortSignal) => Promise<void>): number {
    const id = ++this.#requests;
    const controller = new AbortController();
    this.#cancels.set(id, controller);
    play(id, controller.signal).catch((error) => this.emit(packFailure(id, error)));
    return id;
  }

  async #elsewhere(call: () => number): Promise<number> {
    this.longCalls++;
    await Promise.resolve();
    return call();
  }

  async #close(): Promise<number> {
    this.closes++;
    this.#closed = true;
    this.#wake?.();
    await this.#fake.close();
    return 0;
  }

  /** Write an answer whose length is returned, if it fits. */
  #answer(make: () => ArrayLike<number>, out: Uint8Array | Uint32Array): number {
    try {
      const answer = make();
      if (answer.length <= out.length) out.set(answer);
      return answer.length;
    } catch (error) {
      return this.#fail(error as EngineError);
    }
  }

  #refused(): number | undefined {
    const refusal = this.refusal;
    this.refusal = undefined;
    return refusal && this.#fail(refusal);
  }

  #fail(error: EngineError): number {
    this.#lastError = error.message;
    return -1 - ERROR_NAMES.indexOf(error.code);
  }
}

/** The record of a vector. */
export function packEmbedding(id: number, { values, promptTokens }: Embedding): Uint8Array {
  const payload = new Uint8Array(4 + values.byteLength);
  new DataView(payload.buffer).setUint32(0, promptTokens, true);
  payload.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 4);
  return packRecord(id, RECORD_KIND.embedding, payload);
}

/** The record of a request's failure. */
export function packFailure(id: number, error: unknown): Uint8Array {
  const { code, message } = error as EngineError;
  return packRecord(id, RECORD_KIND.error, packJson({ code, message }));
}

/** The record of an event of request `id`. */
export function packEvent(id: number, event: GenerateEvent): Uint8Array {
  if (event.type === "started") return packRecord(id, RECORD_KIND.started, packStarted(event.promptTokens));
  if (event.type === "text") return packTextEvent(id, event);
  const { reason, stop, usage, timings } = event;
  return packRecord(
    id,
    RECORD_KIND.done,
    packJson({
      reason,
      stop,
      prompt_tokens: usage.promptTokens,
      completion_tokens: usage.completionTokens,
      queue_ms: timings.queueMs,
      prefill_ms: timings.prefillMs,
      decode_ms: timings.decodeMs,
    }),
  );
}

/** A text, behind the probabilities that it takes along. */
function packTextEvent(id: number, event: TextEvent): Uint8Array {
  const { completionTokens, text, logprobs = [], promptLogprobs = [] } = event;
  const records = [
    ...promptLogprobs.map((token) => packRecord(id, RECORD_KIND.promptLogprobs, packLogprobs(token))),
    ...logprobs.map((token) => packRecord(id, RECORD_KIND.logprobs, packLogprobs(token))),
    packRecord(id, RECORD_KIND.text, packText(completionTokens, text)),
  ];
  return Uint8Array.from(records.flatMap((record) => [...record]));
}

/** The payload of a record of log probabilities. */
export function packLogprobs(chosen: ChosenLogprob | null): Uint8Array {
  const entries = chosen === null ? [] : [chosen, ...chosen.top];
  return Uint8Array.from(entries.flatMap(({ id, logprob, bytes }) => {
    const head = new DataView(new ArrayBuffer(12));
    head.setUint32(0, id, true);
    head.setFloat32(4, logprob, true);
    head.setUint32(8, bytes.length, true);
    return [...new Uint8Array(head.buffer), ...bytes];
  }));
}

function parse(json: Uint8Array): unknown {
  return JSON.parse(new TextDecoder().decode(json));
}
