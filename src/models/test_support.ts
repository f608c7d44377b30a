/**
 * Things that several tests of this room need: a hub that misbehaves on demand, zip archives, a reporter that keeps
 * what it was told.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { CatalogueEntry, Source } from "./catalogue.ts";
import type { Reporter } from "./progress.ts";

/** Bytes that no two positions of a test file can be mistaken for each other in. */
export function testBytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0, x = seed; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

/** SHA-256 in hexadecimal. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** A catalogue entry for `bytes`. */
export function entryFor(bytes: Uint8Array, sources: readonly Source[]): CatalogueEntry {
  return { id: "toy", summary: "a toy", file: "toy.gguf", bytes: bytes.length, sha256: sha256(bytes), sources };
}

/** How a `Hub` treats one request; each missing field means good behaviour. */
export interface Manner {
  /** Answer with this status and nothing else. */
  status?: number;
  /** Send this many bytes of the body, then break the connection. */
  cutAfter?: number;
  /** Send this many bytes of the body, then nothing more. */
  stallAfter?: number;
  /** Never answer. */
  mute?: boolean;
  /** Ignore `Range`. */
  noRange?: boolean;
  /** Wait between pieces of the body. */
  slowMs?: number;
  /** Claim to continue at this byte, whatever was asked for. */
  wrongStart?: number;
}

/** A local server of one file. */
export class Hub implements AsyncDisposable {
  /** The `Range` header of each request so far, or null. */
  readonly ranges: (string | null)[] = [];
  /** Manners of the next requests; when empty, the hub behaves. */
  manners: Manner[] = [];
  /** What is served. */
  content: Uint8Array<ArrayBuffer>;
  /** The etag that is sent and that `If-Range` is compared with. */
  etag = '"one"';
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #end = new AbortController();

  constructor(content: Uint8Array<ArrayBuffer>) {
    this.content = content;
    this.#server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", signal: this.#end.signal, onListen: () => {}, onError: () => new Response() },
      (request) => this.#answer(request),
    );
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/toy.gguf`;
  }

  /** This hub as a source of the catalogue. */
  get source(): Source {
    return { kind: "hub", label: "the test hub", url: this.url };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await this.#server.finished;
  }

  async #answer(request: Request): Promise<Response> {
    const range = request.headers.get("range");
    this.ranges.push(range);
    const manner = this.manners.shift() ?? {};
    if (manner.mute) await aborted(request.signal);
    if (manner.status) return new Response(null, { status: manner.status });
    const asked = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
    if (asked >= this.content.length && asked > 0) return new Response(null, { status: 416 });
    const ifRange = request.headers.get("if-range");
    const partial = range !== null && !manner.noRange && (ifRange === null || ifRange === this.etag);
    const start = partial ? manner.wrongStart ?? asked : 0;
    const headers = new Headers({ etag: this.etag, "content-length": String(this.content.length - start) });
    if (partial) headers.set("content-range", `bytes ${start}-${this.content.length - 1}/${this.content.length}`);
    const body = ReadableStream.from(pieces(this.content.subarray(start), manner, request.signal));
    return new Response(body, { status: partial ? 206 : 200, headers });
  }
}

const PIECE_BYTES = 1000;

async function* pieces(bytes: Uint8Array, manner: Manner, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const limit = manner.cutAfter ?? manner.stallAfter ?? bytes.length;
  for (let at = 0; at < limit; at += PIECE_BYTES) {
    yield bytes.subarray(at, Math.min(at + PIECE_BYTES, limit));
    // A pause lets each piece reach the client before the connection breaks.
    await new Promise((resolve) => setTimeout(resolve, manner.slowMs ?? 1));
  }
  if (manner.stallAfter !== undefined) await aborted(signal);
  if (manner.cutAfter !== undefined) throw new Error("cut");
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** A reporter that keeps sentences and labels. */
export function recorder(): Reporter & { said: string[] } {
  const said: string[] = [];
  return {
    said,
    note: (sentence) => void said.push(sentence),
    start(label) {
      return { update() {}, finish: () => void said.push(`${label}: done`), [Symbol.dispose]() {} };
    },
  };
}

/** A member of a test archive. */
export interface ZipMember {
  name: string;
  content: Uint8Array<ArrayBuffer>;
  method: "stored" | "deflated";
  /** Overrides of what the headers say. */
  claim?: { bytes?: number; method?: number; flags?: number };
}

/** A zip archive with a comment, so that its end has to be searched for. */
export async function makeZip(members: readonly ZipMember[]): Promise<Uint8Array<ArrayBuffer>> {
  const [body, directory]: [Uint8Array[], Uint8Array[]] = [[], []];
  let offset = 0;
  for (const member of members) {
    const data = member.method === "stored" ? member.content : await deflate(member.content);
    const name = new TextEncoder().encode(member.name);
    const common = commonHeader(member, data.length, name.length);
    // The local header has an extra field that the directory does not have.
    const local = [le32(0x04034b50), common, le16(4), name, new Uint8Array(4), data];
    directory.push(le32(0x02014b50), le16(20), common, le16(0), le16(0), le16(0), le16(0), le32(0), le32(offset), name);
    body.push(...local);
    offset += local.reduce((sum, each) => sum + each.length, 0);
  }
  const length = directory.reduce((sum, each) => sum + each.length, 0);
  const [count, comment] = [le16(members.length), new TextEncoder().encode("made by a test")];
  const end = [le32(0x06054b50), le32(0), count, count, le32(length), le32(offset), le16(comment.length), comment];
  return new Uint8Array(await new Blob([...body, ...directory, ...end] as BlobPart[]).arrayBuffer());
}

function commonHeader(member: ZipMember, packed: number, nameBytes: number): Uint8Array {
  const method = member.claim?.method ?? (member.method === "stored" ? 0 : 8);
  const sizes = [le32(0), le32(packed), le32(member.claim?.bytes ?? member.content.length), le16(nameBytes)];
  return concat([le16(20), le16(member.claim?.flags ?? 0), le16(method), le32(0), ...sizes]);
}

async function deflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((each) => [...each]));
}

function le16(n: number): Uint8Array {
  return new Uint8Array([n, n >> 8]);
}

function le32(n: number): Uint8Array {
  return new Uint8Array([n, n >> 8, n >> 16, n >> 24]);
}
