/**
 * One file over HTTP into a partial file beside its final place. It goes on where an earlier attempt stopped, and it
 * gives up on silence instead of waiting for ever.
 *
 * Absent here on purpose: deciding whether the bytes are the right ones (pull.ts compares the hash).
 *
 * @module
 */
import { delay } from "@std/async/delay";
import { onDisk, SourceError } from "./error.ts";
import { HashedFile } from "./hashed_file.ts";

/** Patience of a download, in milliseconds. */
export interface Patience {
  /** Until the server has answered with headers. */
  connectMs: number;
  /** Between two pieces of the body. */
  stallMs: number;
  /** Before the first new try; each further one waits twice as long. */
  retryMs: number;
}

/** The defaults of `Patience`: short enough that a missing network is noticed before the person leaves. */
export const PATIENCE: Patience = { connectMs: 5_000, stallMs: 15_000, retryMs: 500 };

/** New tries in a row that bring no byte before a download is given up. */
const MAX_BARREN_TRIES = 4;

/** Options of `download`. */
export interface DownloadOptions {
  url: string;
  /** The partial file. A note about its origin is kept beside it in `<path>.json`. */
  path: string;
  /** Size that the whole file must have. */
  bytes: number;
  /** Called after each piece with bytes on disk. */
  onProgress?: (done: number) => void;
  /** Called with a sentence when the download hesitates. */
  onNote?: (sentence: string) => void;
  signal?: AbortSignal | undefined;
  patience?: Patience | undefined;
}

/** A partial file that is now whole. */
export interface Downloaded {
  sha256: string;
  /** Whether bytes of an earlier process were kept; when the hash is wrong, they may be to blame. */
  resumed: boolean;
}

/**
 * Fetch `url` into `path`.
 *
 * @throws {SourceError} when the server cannot be reached, refuses, or sends a file of another size.
 */
export async function download(options: DownloadOptions): Promise<Downloaded> {
  await using file = await HashedFile.open(options.path);
  if (file.length > options.bytes) await file.clear();
  const resumed = file.length > 0;
  const transfer = new Transfer(file, options);
  await transfer.run();
  return { sha256: await file.digest(), resumed };
}

/** Remove a partial file and its note. */
export async function discardPartial(path: string): Promise<void> {
  for (const each of [path, originPath(path)]) {
    await onDisk(`removing ${each}`, () => Deno.remove(each)).catch((error) => {
      if (!(error.cause instanceof Deno.errors.NotFound)) throw error;
    });
  }
}

/** The connection was lost or the server is busy: trying again may help. */
class InterruptedError extends Error {}

class Transfer {
  readonly #file: HashedFile;
  readonly #options: DownloadOptions;
  readonly #patience: Patience;
  #etag: string | undefined;
  /** Whether the server has said anything useful yet. */
  #answered = false;
  #startedOver = false;

  constructor(file: HashedFile, options: DownloadOptions) {
    this.#file = file;
    this.#options = options;
    this.#patience = options.patience ?? PATIENCE;
  }

  async run(): Promise<void> {
    const { path, url, bytes, onNote, signal } = this.#options;
    this.#etag = this.#file.length > 0 ? await readOrigin(path, url) : undefined;
    let [farthest, barren] = [this.#file.length, 0];
    while (this.#file.length < bytes) {
      try {
        await this.#attempt();
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof InterruptedError)) throw error;
        barren = this.#file.length > farthest ? 1 : barren + 1;
        farthest = Math.max(farthest, this.#file.length);
        // Without a sign of a working server there is one try only, so that the next source gets its turn.
        if (!this.#answered || barren > MAX_BARREN_TRIES) throw this.#failure(error.message, error);
        onNote?.(`${error.message} after ${this.#file.length} of ${bytes} bytes; trying again`);
        await delay(this.#patience.retryMs * 2 ** (barren - 1), { signal });
      }
    }
  }

  /** One request, from headers to the end of its body. */
  async #attempt(): Promise<void> {
    const guard = new Guard(this.#options.signal);
    try {
      guard.expectWithin(this.#patience.connectMs, "no answer");
      const response = await fetch(this.#options.url, { headers: this.#headers(), signal: guard.signal });
      guard.expectWithin(this.#patience.stallMs, "no data");
      await this.#accept(response);
      for await (const chunk of response.body ?? []) {
        guard.expectWithin(this.#patience.stallMs, "no data");
        await this.#append(chunk);
      }
      if (this.#file.length < this.#options.bytes) throw new InterruptedError("the connection ended");
    } catch (error) {
      // A hub may send us on to a host that Deno was not told about; the next source may need no such permission.
      if (error instanceof Deno.errors.NotCapable) throw this.#failure(error.message, error);
      throw interruption(guard.silence ?? error);
    } finally {
      guard.release();
    }
  }

  #headers(): Record<string, string> {
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    if (this.#file.length > 0) {
      headers["range"] = `bytes=${this.#file.length}-`;
      // If the file has changed since, the server then sends it whole. Without a strong etag the final hash decides.
      if (this.#etag) headers["if-range"] = this.#etag;
    }
    return headers;
  }

  /** Check the headers against what is on disk, and make both agree. */
  async #accept(response: Response): Promise<void> {
    if (response.status === 416) return await this.#startOver(response, "the server refused to continue the file");
    if (response.status === 429 || response.status >= 500) {
      await response.body?.cancel();
      throw new InterruptedError(`the server answered ${response.status}`);
    }
    if (response.status !== 200 && response.status !== 206) {
      await response.body?.cancel();
      throw this.#failure(`expected status 200, got ${response.status}`);
    }
    if (response.status === 206) await this.#checkRange(response);
    else if (this.#file.length > 0) await this.#file.clear();
    await this.#checkSize(response);
    this.#etag = strongEtag(response);
    await writeOrigin(this.#options.path, { url: this.#options.url, etag: this.#etag });
  }

  async #checkRange(response: Response): Promise<void> {
    const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
    if (Number(start) === this.#file.length) return;
    await this.#startOver(response, `the server continued at byte ${start ?? "unknown"}`);
  }

  async #checkSize(response: Response): Promise<void> {
    const offered = response.headers.get("content-length");
    if (offered === null || this.#file.length + Number(offered) === this.#options.bytes) return;
    await response.body?.cancel();
    throw this.#failure(
      `expected ${this.#options.bytes} bytes, the server offers ${this.#file.length + Number(offered)}`,
    );
  }

  /** Drop what is on disk; the next attempt asks for everything. */
  async #startOver(response: Response, why: string): Promise<never> {
    await response.body?.cancel();
    if (this.#file.length === 0 || this.#startedOver) throw this.#failure(why);
    await this.#file.clear();
    this.#answered = this.#startedOver = true;
    throw new InterruptedError(why);
  }

  async #append(chunk: Uint8Array): Promise<void> {
    if (this.#file.length + chunk.length > this.#options.bytes) {
      throw this.#failure(`expected ${this.#options.bytes} bytes, the server sent more`);
    }
    await this.#file.append(chunk);
    this.#answered = true;
    this.#options.onProgress?.(this.#file.length);
  }

  #failure(reason: string, cause?: unknown): SourceError {
    return new SourceError(`downloading from ${new URL(this.#options.url).host} failed: ${reason}`, { cause });
  }
}

/** Aborts a request when the caller wants to stop or when the server has been silent for too long. */
class Guard {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #onAbort = () => this.#controller.abort(this.#caller?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Set when silence was the reason. */
  silence: InterruptedError | undefined;

  constructor(caller: AbortSignal | undefined) {
    this.#caller = caller;
    caller?.throwIfAborted();
    caller?.addEventListener("abort", this.#onAbort);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The next sign of life is due in `ms`. */
  expectWithin(ms: number, what: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.silence = new InterruptedError(`${what} within ${ms / 1000} s`);
      this.#controller.abort(this.silence);
    }, ms);
  }

  release(): void {
    clearTimeout(this.#timer);
    this.#caller?.removeEventListener("abort", this.#onAbort);
  }
}

/** Network failures reach us as `TypeError`; everything else keeps its own meaning. */
function interruption(error: unknown): unknown {
  return error instanceof TypeError ? new InterruptedError(networkReason(error), { cause: error }) : error;
}

/** The part of Deno's message that a person can use; the useful half of a failed `fetch` is in its cause. */
function networkReason(error: TypeError): string {
  const text = error.cause instanceof Error ? error.cause.message : error.message;
  if (/dns error|lookup address/i.test(text)) return "the host name cannot be resolved";
  if (/connection refused/i.test(text)) return "the connection was refused";
  if (/certificate|tls/i.test(text)) return `the secure connection failed (${text})`;
  if (/body|closed|reset|incomplete|unexpected eof/i.test(text)) return "the connection was lost";
  return text;
}

/** Where the bytes of a partial file came from. */
interface Origin {
  url: string;
  etag?: string | undefined;
}

function originPath(path: string): string {
  return `${path}.json`;
}

async function writeOrigin(path: string, origin: Origin): Promise<void> {
  const target = originPath(path);
  await onDisk(`writing ${target}`, () => Deno.writeTextFile(target, JSON.stringify(origin)));
}

/** The etag of a partial file, if it is known and belongs to `url`. A damaged note is no note. */
async function readOrigin(path: string, url: string): Promise<string | undefined> {
  try {
    const origin: unknown = JSON.parse(await Deno.readTextFile(originPath(path)));
    if (typeof origin !== "object" || origin === null) return undefined;
    const { url: from, etag } = origin as Record<string, unknown>;
    return from === url && typeof etag === "string" ? etag : undefined;
  } catch {
    return undefined;
  }
}

/** The etag when it promises identical bytes; a weak one (`W/`) may not be used to continue a file (RFC 9110, 13.1.5). */
function strongEtag(response: Response): string | undefined {
  const etag = response.headers.get("etag");
  return etag?.startsWith('"') ? etag : undefined;
}
