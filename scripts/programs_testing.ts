/** Programs that are not there, for tests of scripts that run some. */
import type { RunProgram } from "./programs.ts";

/** Answers each program in turn with its last lines; a number is a failure. */
export function answers(...outputs: (string | number)[]): { run: RunProgram; commands: string[] } {
  const commands: string[] = [];
  const run: RunProgram = (command) => {
    commands.push(command.join(" "));
    const output = outputs.shift()!;
    return Promise.resolve(typeof output === "number" ? { code: output, output: "why\n" } : { code: 0, output });
  };
  return { run, commands };
}
