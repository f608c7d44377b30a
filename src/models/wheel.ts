/**
 * One member of a zip archive (a Python wheel is one) streamed to a file: stored or deflated, never held in memory.
 *
 * Absent here on purpose: encryption, archives or members of 4 GiB and more (zip64), other compression methods, CRC
 * (the caller compares a SHA-256).
 *
 * Layout: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory) and 4.3.16 (its end).
 *
 * @module
 */
import { onDisk, SourceError } from "./error.ts";
import { HashedFile } from "./hashed_file.ts";

const END_SIGNATURE = 0x06054b50;
const END_BYTES = 22;
/** The end record is followed by a comment of at most this many bytes. */
const MAX_COMMENT_BYTES = 0xffff;
const ENTRY_SIGNATURE = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL_SIGNATURE = 0x04034b50;
const LOCAL_BYTES = 30;
/** A length or offset with this value stands in a zip64 record instead. */
const ZIP64_MARK = 0xffffffff;
/** A wheel's directory has a few lines; a longer one is not a wheel of ours. */
const MAX_DIRECTORY_BYTES = 16 << 20;
const ENCRYPTED_FLAG = 1;
const STORED = 0;
const DEFLATED = 8;
/** Bytes per read. */
const READ_BYTES = 1 << 18;

/** Options of `extractMember`. */
export interface ExtractOptions {
  archive: string;
  /** Path inside the archive. */
  member: string;
  /** Where to write; replaced when it exists. */
  path: string;
  /** Size that the member must have. */
  bytes: number;
  /** Called after each piece with bytes written. */
  onProgress?: (done: number) => void;
  signal?: AbortSignal | undefined;
}

/**
 * Extract one member and give its SHA-256.
 *
 * @throws {SourceError} when the archive is not what it should be.
 */
export async function extractMember(options: ExtractOptions): Promise<string> {
  using file = await onDisk(`reading ${options.archive}`, () => Deno.open(options.archive));
  const archive = new Archive(file, options.archive);
  const entry = await archive.find(options.member);
  if (entry.bytes !== options.bytes) {
    throw archive.failure(`expected ${options.member} to have ${options.bytes} bytes, got ${entry.bytes}`);
  }
  await using out = await HashedFile.open(options.path, { fresh: true });
  try {
    for await (const chunk of await archive.content(entry)) {
      options.signal?.throwIfAborted();
      if (out.length + chunk.length > options.bytes) throw archive.failure(`${options.member} is longer than it says`);
      await out.append(chunk);
      options.onProgress?.(out.length);
    }
  } catch (error) {
    // The decompressor reports damage as a TypeError.
    throw error instanceof TypeError ? archive.failure(`${options.member} is damaged (${error.message})`) : error;
  }
  if (out.length !== options.bytes) throw archive.failure(`${options.member} ends after ${out.length} bytes`);
  return await out.digest();
}

/** A line of the central directory. */
interface Entry {
  name: string;
  flags: number;
  method: number;
  compressedBytes: number;
  bytes: number;
  /** Where its local header begins. */
  offset: number;
}

class Archive {
  readonly #file: Deno.FsFile;
  readonly #path: string;

  constructor(file: Deno.FsFile, path: string) {
    this.#file = file;
    this.#path = path;
  }

  failure(reason: string): SourceError {
    return new SourceError(`unpacking ${this.#path} failed: ${reason}`);
  }

  async find(member: string): Promise<Entry> {
    for (const entry of entries(await this.#directory())) {
      if (entry.name === member) return this.#usable(entry);
    }
    throw this.failure(`expected a member ${member}, found none`);
  }

  /** The member's bytes, unpacked. */
  async content(entry: Entry): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    const header = await this.#read(entry.offset, LOCAL_BYTES);
    if (header.getUint32(0, true) !== LOCAL_SIGNATURE) throw this.failure(`no local header at byte ${entry.offset}`);
    // Name and extra field may differ in length from those in the directory.
    const start = entry.offset + LOCAL_BYTES + header.getUint16(26, true) + header.getUint16(28, true);
    const packed = ReadableStream.from(this.#range(start, entry.compressedBytes));
    return entry.method === STORED ? packed : packed.pipeThrough(new DecompressionStream("deflate-raw"));
  }

  #usable(entry: Entry): Entry {
    if (entry.flags & ENCRYPTED_FLAG) throw this.failure(`${entry.name} is encrypted`);
    if (entry.method !== STORED && entry.method !== DEFLATED) {
      throw this.failure(`expected compression method 0 or 8, got ${entry.method}`);
    }
    if ([entry.bytes, entry.compressedBytes, entry.offset].includes(ZIP64_MARK)) {
      throw this.failure("zip64 archives are not supported");
    }
    return entry;
  }

  async #directory(): Promise<DataView> {
    const { size } = await onDisk(`reading ${this.#path}`, () => this.#file.stat());
    const tailBytes = Math.min(size, END_BYTES + MAX_COMMENT_BYTES);
    const tail = await this.#read(size - tailBytes, tailBytes);
    for (let at = tail.byteLength - END_BYTES; at >= 0; at--) {
      if (tail.getUint32(at, true) !== END_SIGNATURE) continue;
      const [bytes, offset] = [tail.getUint32(at + 12, true), tail.getUint32(at + 16, true)];
      if (bytes > MAX_DIRECTORY_BYTES) throw this.failure(`its directory has ${bytes} bytes`);
      return await this.#read(offset, bytes);
    }
    throw this.failure("it is not a zip archive");
  }

  async #read(offset: number, length: number): Promise<DataView> {
    const bytes = new Uint8Array(length);
    let at = 0;
    for await (const chunk of this.#range(offset, length)) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return new DataView(bytes.buffer);
  }

  async *#range(offset: number, length: number): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    await onDisk(`reading ${this.#path}`, () => this.#file.seek(offset, Deno.SeekMode.Start));
    for (let left = length; left > 0;) {
      const buffer = new Uint8Array(Math.min(left, READ_BYTES));
      const n = await onDisk(`reading ${this.#path}`, () => this.#file.read(buffer));
      if (n === null) throw this.failure(`it ends ${left} bytes too early`);
      yield buffer.subarray(0, n);
      left -= n;
    }
  }
}

/** The lines of a central directory; what does not look like one ends it. */
function* entries(view: DataView): Generator<Entry> {
  const decoder = new TextDecoder();
  for (let at = 0; at + ENTRY_BYTES <= view.byteLength && view.getUint32(at, true) === ENTRY_SIGNATURE;) {
    const nameBytes = view.getUint16(at + 28, true);
    const name = new Uint8Array(view.buffer).subarray(at + ENTRY_BYTES, at + ENTRY_BYTES + nameBytes);
    yield {
      name: decoder.decode(name),
      flags: view.getUint16(at + 8, true),
      method: view.getUint16(at + 10, true),
      compressedBytes: view.getUint32(at + 20, true),
      bytes: view.getUint32(at + 24, true),
      offset: view.getUint32(at + 42, true),
    };
    at += ENTRY_BYTES + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
}
