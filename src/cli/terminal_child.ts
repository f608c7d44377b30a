/**
 * A process of its own for the tests of terminal.ts: reads a line and then the rest, and says what it got as JSON.
 *
 * @module
 */
import { toFailure } from "./errors.ts";
import { systemTerminal } from "./terminal.ts";

if (import.meta.main) {
  const terminal = systemTerminal();
  try {
    const got = {
      line: await terminal.readLine(),
      rest: await terminal.readAll(),
      env: terminal.env("LLAMERO_SECRET"),
    };
    terminal.out(JSON.stringify(got));
  } catch (error) {
    terminal.err(toFailure(error).message);
  }
}
