/**
 * Programs that the scripts run, and what they printed. Nothing here needs a package: the first script of a fresh clone
 * uses it before any has been fetched.
 *
 * @module
 */

/** A program and its arguments. */
export type Command = readonly [program: string, ...args: string[]];

/** A program that has ended. */
export interface Ended {
  code: number;
  /** Standard output and error, as they came. */
  output: string;
}

/** Runs a program; `onLine` gets each line at once. */
export type RunProgram = (command: Command, onLine: (line: string) => void) => Promise<Ended>;

/** Runs programs in the folder `cwd`, without colours, so that their output can be read by us. */
export function programRunner(cwd: string, extraEnv: () => Record<string, string> = () => ({})): RunProgram {
  return async function runProgram([program, ...args], onLine) {
    const env = {
      ...extraEnv(),
      NO_COLOR: "1",
      CARGO_TERM_COLOR: "never",
      DENO_NO_UPDATE_CHECK: "1",
      TERM: "dumb",
    };
    const command = new Deno.Command(program, { args, cwd, env, stdin: "null", stdout: "piped", stderr: "piped" });
    let output = "";
    const keep = (line: string) => {
      output += `${line}\n`;
      onLine(line);
    };
    try {
      const child = command.spawn();
      await Promise.all([eachLine(child.stdout, keep), eachLine(child.stderr, keep)]);
      return { code: (await child.status).code, output };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      return { code: 127, output: `running ${program} failed: it is not on PATH` };
    }
  };
}

async function eachLine(stream: ReadableStream<Uint8Array<ArrayBuffer>>, take: (line: string) => void): Promise<void> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    lines.forEach(take);
  }
  if (rest) take(rest);
}

/** What a program printed; an error that begins with `sentence` if it failed. */
export function must({ code, output }: Ended, sentence: string): string {
  if (code !== 0) throw new Error(`${sentence} (code ${code}):\n${output.trimEnd()}`);
  return output;
}

/** Shows a line of a program at once, beside what the script itself prints. */
export function show(line: string): void {
  console.error(line);
}

/** The last line of what a program printed. */
export function lastLine(output: string): string {
  return output.trimEnd().split("\n").at(-1)!;
}
