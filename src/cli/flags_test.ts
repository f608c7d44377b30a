import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "./errors.ts";
import {
  type CommandName,
  COMMANDS,
  type CommandSpec,
  FLAGS,
  type FlagSpec,
  parseCommand,
  parseFlags,
} from "./flags.ts";

function refused(command: CommandName, args: string[], expected: string): void {
  const error = assertThrows(() => parseFlags(command, args), UsageError);
  assertEquals(error.message, expected);
}

Deno.test("every flag parses its own example, and every command its own examples", () => {
  for (const [name, spec] of Object.entries(FLAGS) as [keyof typeof FLAGS, FlagSpec][]) {
    const command = (Object.keys(COMMANDS) as CommandName[]).find((each) => {
      return (COMMANDS[each] as CommandSpec).flags.includes(name);
    })!;
    // As a shell would split it: quotes hold words together.
    const words = [...spec.example.matchAll(/"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2]!);
    assertEquals(name in parseFlags(command, words).values, true, name);
  }
  for (const [name, spec] of Object.entries(COMMANDS) as [CommandName, CommandSpec][]) {
    for (const example of spec.examples) {
      const [command, ...args] = example.replace(/^.*\| llamero /, "").split(" ");
      assertEquals(parseCommand(command!), name);
      if (name !== "test") parseFlags(name, args);
    }
  }
});

Deno.test("values, defaults, short names and words", () => {
  const { values, positionals } = parseFlags("chat", ["-t", "0", "--top-p=0.5", "hello", "--seed", "7", "-q", "world"]);
  const given = { temperature: 0, "top-p": 0.5, seed: 7, quiet: true };
  assertEquals(values, {
    model: "smollm2-135m-instruct",
    engine: "auto",
    packed: "cache",
    speculate: "auto",
    ...given,
  });
  assertEquals(positionals, ["hello", "world"]);
  assertEquals(parseFlags("serve", ["--port", "1", "--port", "2"]).values.port, 2);
  assertEquals(parseFlags("chat", ["--", "--seed"]).positionals, ["--seed"]);
  assertEquals(parseFlags("chat", ["--system", "-dash first"]).values.system, "-dash first");
});

Deno.test("values outside their range are refused with the range", () => {
  const number = "--temperature: expected a number from 0 to 100, got ";
  for (const bad of ["-1", "100.1", "NaN", "Infinity", "warm", " ", "1,5"]) {
    refused("chat", ["--temperature", bad], number + JSON.stringify(bad));
  }
  refused("chat", ["--temperature"], `${number}nothing`);
  refused("chat", ["--temperature", "--seed", "1"], `${number}--seed`);
  refused("chat", ["--top-p", "0"], '--top-p: expected a number above 0 up to 1, got "0"');
  refused("chat", ["--top-k", "1.5"], '--top-k: expected an integer from 0 to 2^31-1, got "1.5"');
  refused(
    "chat",
    ["--seed", "9007199254740992"],
    '--seed: expected an integer from 0 to 2^53-1, got "9007199254740992"',
  );
  refused("serve", ["--port", "65536"], '--port: expected an integer from 0 to 65535, got "65536"');
  refused("chat", ["--model="], '--model: expected a text, got ""');
  refused("chat", ["--chat-template", ""], '--chat-template: expected a text, got ""');
  refused("serve", ["--engine", "gpu"], '--engine: expected one of auto, native, wasm, got "gpu"');
  refused("chat", ["--json=yes"], '--json: expected no value, got "yes"');
  assertEquals(parseFlags("chat", ["--top-p", "1", "--min-p", "0"]).values["top-p"], 1);
});

Deno.test("a slip gets the nearest name", () => {
  const list = "; llamero help chat lists them";
  refused("chat", ["--temprature", "1"], `llamero chat: unknown flag --temprature; did you mean --temperature?${list}`);
  refused("chat", ["--topp", "1"], `llamero chat: unknown flag --topp; did you mean --top-p?${list}`);
  refused("chat", ["--port", "1"], `llamero chat: unknown flag --port${list}`);
  refused("chat", ["-x"], `llamero chat: unknown flag -x${list}`);
  refused("version", ["now"], 'llamero version: expected only flags, got "now"');
  const unknown = (name: string, hint: string) =>
    assertEquals(
      assertThrows(() => parseCommand(name), UsageError).message,
      `unknown command "${name}"${hint}; llamero help shows what there is`,
    );
  unknown("caht", "; did you mean chat?");
  unknown("srve", "; did you mean serve?");
  unknown("toString", "");
  unknown("", "");
});
