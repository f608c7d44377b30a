/**
 * Progress for people: a bar that redraws itself on a terminal, a line every tenth elsewhere, or nothing. No escape
 * sequences: the bar uses a carriage return and spaces, so it is the same with `NO_COLOR`.
 *
 * @module
 */
import { format } from "@std/fmt/bytes";

/** How progress is shown. */
export type ProgressStyle = "bar" | "lines" | "quiet";

/** One task on its way. */
export interface Progress extends Disposable {
  /** `done` of `total` bytes are there. Calls after the end are ignored. */
  update(done: number, total: number): void;
  /** The task has succeeded; disposing without this means that it has not. */
  finish(): void;
}

/** Options of `Reporter.start`. */
export interface TaskOptions {
  /** Show nothing before this many milliseconds, so that short tasks stay silent. Default 0. */
  delayMs?: number;
  /** Leave a line with size, time and rate when the task succeeds. Default true. */
  summary?: boolean;
}

/** Where tasks announce themselves. */
export interface Reporter {
  /** Begin to show a task. `label` is what is being done, such as `downloading x`. */
  start(label: string, options?: TaskOptions): Progress;
  /** Say a sentence without disturbing the bar. */
  note(sentence: string): void;
}

/** Options of `createReporter`. */
export interface ReporterOptions {
  style: ProgressStyle;
  /** Writes text as it is. */
  write: (text: string) => void;
  /** Width of the terminal in characters; asked at each redraw. Default 80. */
  columns?: () => number;
  /** Milliseconds from any start. */
  now?: () => number;
}

/** Least time between two redraws of the bar, in milliseconds. */
const REDRAW_MS = 100;
/** The rate is that of this many last milliseconds. */
const RATE_WINDOW_MS = 5_000;
/** The rate is unknown before this many milliseconds. */
const RATE_MIN_MS = 200;
/** Percent between two plain lines. */
const LINE_STEP = 10;
/** Widest bar, in characters. */
const MAX_BAR = 30;
/** Narrowest bar worth drawing. */
const MIN_BAR = 5;
const DEFAULT_COLUMNS = 80;

/** A reporter of the given style. */
export function createReporter(options: ReporterOptions): Reporter {
  if (options.style === "quiet") return { start: () => SILENT, note: () => {} };
  return new Screen(options);
}

const SILENT: Progress = { update() {}, finish() {}, [Symbol.dispose]() {} };

class Screen implements Reporter {
  readonly #bar: boolean;
  readonly #write: (text: string) => void;
  readonly #columns: () => number;
  readonly now: () => number;
  /** Characters of the bar that now stand on the terminal's last line. */
  #drawn = 0;

  constructor({ style, write, columns, now }: ReporterOptions) {
    this.#bar = style === "bar";
    this.#write = write;
    this.#columns = columns ?? (() => DEFAULT_COLUMNS);
    this.now = now ?? (() => performance.now());
  }

  start(label: string, options: TaskOptions = {}): Progress {
    return new Task(this, label, options);
  }

  note(sentence: string): void {
    this.line(sentence);
  }

  line(text: string): void {
    this.clear();
    this.#write(`${text}\n`);
  }

  clear(): void {
    if (this.#drawn > 0) this.#write(`\r${" ".repeat(this.#drawn)}\r`);
    this.#drawn = 0;
  }

  /** Show a state; `step` is the tenth it has reached when plain lines are wanted. */
  show(text: { label: string; fraction: number; figures: string; reachedStep: boolean }): void {
    if (this.#bar) this.#draw(barLine(text, this.#columns() - 1));
    else if (text.reachedStep) this.line(`${text.label}: ${text.figures}`);
  }

  #draw(text: string): void {
    this.#write(`\r${text.padEnd(this.#drawn)}`);
    this.#drawn = text.length;
  }

  get redrawMs(): number {
    return this.#bar ? REDRAW_MS : 0;
  }
}

class Task implements Progress {
  readonly #screen: Screen;
  readonly #label: string;
  readonly #options: TaskOptions;
  readonly #startMs: number;
  #samples: { ms: number; done: number }[] = [];
  #firstDone: number | undefined;
  #done = 0;
  #drawnMs = -Infinity;
  #step = 0;
  #ended = false;

  constructor(screen: Screen, label: string, options: TaskOptions) {
    this.#screen = screen;
    this.#label = label;
    this.#options = options;
    this.#startMs = screen.now();
  }

  update(done: number, total: number): void {
    if (this.#ended || total <= 0) return;
    const ms = this.#screen.now();
    this.#sample(ms, done);
    if (ms - this.#startMs < (this.#options.delayMs ?? 0)) return;
    if (ms - this.#drawnMs < this.#screen.redrawMs && done < total) return;
    this.#drawnMs = ms;
    const fraction = Math.min(done / total, 1);
    const step = Math.floor(fraction * 100 / LINE_STEP);
    const reachedStep = step > this.#step;
    this.#step = step;
    this.#screen.show({ label: this.#label, fraction, figures: this.#figures(fraction, total), reachedStep });
  }

  finish(): void {
    if (this.#ended) return;
    this.#end();
    if (this.#options.summary === false) return;
    const ms = Math.max(this.#screen.now() - this.#startMs, 1);
    const moved = this.#done - (this.#firstDone ?? 0);
    this.#screen.line(
      `${this.#label}: ${formatBytes(this.#done)} in ${formatDuration(ms / 1000)} (${
        formatBytes(moved / ms * 1000)
      }/s)`,
    );
  }

  [Symbol.dispose](): void {
    if (!this.#ended) this.#end();
  }

  #end(): void {
    this.#ended = true;
    this.#screen.clear();
  }

  #sample(ms: number, done: number): void {
    // A smaller figure means that the task began again: what came before says nothing about its rate.
    if (done < this.#done) [this.#samples, this.#firstDone, this.#step] = [[], undefined, 0];
    this.#firstDone ??= done;
    this.#done = done;
    this.#samples.push({ ms, done });
    while (this.#samples.length > 2 && ms - this.#samples[0]!.ms > RATE_WINDOW_MS) this.#samples.shift();
  }

  /** Bytes per second, once there is enough to tell. */
  #rate(): number | undefined {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (!first || !last || last.ms - first.ms < RATE_MIN_MS || last.done <= first.done) return undefined;
    return (last.done - first.done) / (last.ms - first.ms) * 1000;
  }

  #figures(fraction: number, total: number): string {
    const rate = this.#rate();
    const parts = [`${Math.floor(fraction * 100)} %`, `${formatBytes(this.#done)} of ${formatBytes(total)}`];
    if (rate !== undefined) parts.push(`${formatBytes(rate)}/s`);
    if (rate !== undefined && fraction < 1) parts.push(`${formatDuration((total - this.#done) / rate)} left`);
    return parts.join(", ");
  }
}

function barLine(text: { label: string; fraction: number; figures: string }, columns: number): string {
  const room = columns - text.label.length - text.figures.length - 4;
  const width = Math.min(room, MAX_BAR);
  if (width < MIN_BAR) return `${text.label}: ${text.figures}`.slice(0, Math.max(columns, 0));
  const full = Math.round(text.fraction * width);
  return `${text.label} [${"#".repeat(full)}${"-".repeat(width - full)}] ${text.figures}`;
}

/** Decimal units with one digit after the point, such as `98.4 MB`. */
export function formatBytes(bytes: number): string {
  return format(Math.round(bytes), { minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

/** Seconds as a person says them: `0.4 s`, `12 s`, `2 min 5 s`, `1 h 3 min`. */
export function formatDuration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
}
