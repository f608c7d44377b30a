/**
 * A file that is written (or continued) front to back while its SHA-256 is kept, so that nothing is read twice.
 *
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { onDisk } from "./error.ts";

/** Bytes per read when what is already on disk is hashed. */
const READ_BYTES = 1 << 20;

/** A file growing at its end, and the hash of all of it. */
export class HashedFile implements AsyncDisposable {
  readonly path: string;
  readonly #file: Deno.FsFile;
  #hash: Hash = createHash("sha256");
  #length = 0;

  private constructor(path: string, file: Deno.FsFile) {
    this.path = path;
    this.#file = file;
  }

  /** Open `path`, made if missing. What is there already is hashed and kept, or cut away with `fresh`. */
  static async open(path: string, { fresh = false } = {}): Promise<HashedFile> {
    return await onDisk(`writing ${path}`, async () => {
      const file = await Deno.open(path, { read: true, write: true, create: true, truncate: fresh });
      const self = new HashedFile(path, file);
      try {
        await self.#hashExisting();
      } catch (error) {
        file.close();
        throw error;
      }
      return self;
    });
  }

  /** Bytes in the file. */
  get length(): number {
    return this.#length;
  }

  /** Add `bytes` at the end. */
  async append(bytes: Uint8Array): Promise<void> {
    await onDisk(`writing ${this.path}`, async () => {
      for (let at = 0; at < bytes.length;) at += await this.#file.write(bytes.subarray(at));
    });
    this.#hash.update(bytes);
    this.#length += bytes.length;
  }

  /** Begin again from nothing. */
  async clear(): Promise<void> {
    await onDisk(`writing ${this.path}`, async () => {
      await this.#file.truncate(0);
      await this.#file.seek(0, Deno.SeekMode.Start);
    });
    this.#hash = createHash("sha256");
    this.#length = 0;
  }

  /** Flush to the disk and give the SHA-256 of the whole file in hexadecimal. */
  async digest(): Promise<string> {
    await onDisk(`writing ${this.path}`, () => this.#file.sync());
    return this.#hash.copy().digest("hex");
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#file.close();
    return Promise.resolve();
  }

  async #hashExisting(): Promise<void> {
    const buffer = new Uint8Array(READ_BYTES);
    for (let n = await this.#file.read(buffer); n !== null; n = await this.#file.read(buffer)) {
      this.#hash.update(buffer.subarray(0, n));
      this.#length += n;
    }
  }
}
