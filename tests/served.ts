/**
 * The whole application behind a real listener, over an engine that plays a script: what clients of all languages are
 * tested with.
 *
 * @module
 */

import { upgradeWebSocket } from "hono/deno";
import { type AppOptions, createApp } from "../src/api/app.ts";
import { plainTemplate } from "../src/api/test_support.ts";
import { FakeEngine, type FakeOptions } from "../src/engine/fake.ts";

/** An application that listens until it is disposed of. */
export interface Served extends AsyncDisposable {
  engine: FakeEngine;
  /** Address and port. */
  host: string;
}

/** Serves the model `fake` on a free port. */
export function serveFake(fake: FakeOptions = {}, options: Partial<AppOptions> = {}): Served {
  const engine = new FakeEngine(fake);
  const app = createApp({ engine, template: plainTemplate, modelId: "fake", upgradeWebSocket, ...options });
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, app.fetch);
  return {
    engine,
    host: `127.0.0.1:${server.addr.port}`,
    async [Symbol.asyncDispose]() {
      await engine.close();
      await server.shutdown();
    },
  };
}

/** Resolves when `condition` holds; asked again and again, for half a minute. */
export async function until(condition: () => boolean): Promise<void> {
  for (let asked = 0; !condition(); asked++) {
    if (asked > 15_000) throw new Error(`waiting for ${condition}: expected it within half a minute, got nothing`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
