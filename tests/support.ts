/**
 * What tests across the border share: the small model, the real one where it has been fetched, and a served program.
 *
 * @module
 */
import { fileURLToPath } from "node:url";

/** A small model with random weights, made by scripts/make_model.py. */
export const TINY_MODEL = fileURLToPath(new URL("./fixtures/tiny-llama2.gguf", import.meta.url));

/** SmolLM2-135M-Instruct.Q4_1.gguf; `llamero test` fetches it and sets the variable. */
export const REAL_MODEL = Deno.env.get("LLAMERO_TEST_MODEL") || undefined;

/** Why a test of the real model is left out, where it is. */
export const NO_REAL_MODEL = REAL_MODEL === undefined
  ? "LLAMERO_TEST_MODEL does not name SmolLM2-135M-Instruct.Q4_1.gguf; `llamero test` sets it"
  : undefined;

const MAIN = fileURLToPath(new URL("../src/main.ts", import.meta.url));
const CONFIG = fileURLToPath(new URL("../deno.json", import.meta.url));

/** A run of the program with these arguments, not started yet. */
export function llamero(args: readonly string[], options: Deno.CommandOptions = {}): Deno.Command {
  const run = ["run", "--quiet", "--no-prompt", "--config", CONFIG, "-A", MAIN, ...args];
  return new Deno.Command(Deno.execPath(), { args: run, stdin: "null", stdout: "piped", stderr: "piped", ...options });
}

/** A served model: its address, and an end that waits for the process. */
export interface Served extends AsyncDisposable {
  url: string;
  model: string;
}

/** Serve `model` on a free port. */
export async function served(model: string, ...flags: string[]): Promise<Served> {
  const child = llamero(["serve", "--json", "--quiet", "--port", "0", "--model", model, ...flags], {
    stderr: "inherit",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { value, done } = await lines.read();
    if (done) throw new Error(`serving ${model}: the program ended with code ${(await child.status).code}`);
    text += value;
  }
  const { url, model: id } = JSON.parse(text.slice(0, text.indexOf("\n")));
  return {
    url,
    model: id,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await lines.cancel();
      await child.status;
    },
  };
}

/** Asks `url` for its health until `holds`, for at most ten seconds; returns the last answer. */
export async function healthUntil(url: string, holds: (health: Health) => boolean): Promise<Health> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const health: Health = await (await fetch(`${url}/healthz`)).json();
    if (holds(health) || performance.now() > deadline) return health;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** What `GET /healthz` says, as far as tests look at it. */
export interface Health {
  status: string;
  model: string;
  device: string;
  stats: { running: number; waiting: number; generated_tokens: number };
}
