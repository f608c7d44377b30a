import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { delimiter } from "node:path";
import { cudaHome, environment } from "./check_cuda.ts";
import { answers } from "./programs_testing.ts";
import { STEPS } from "./test.ts";

Deno.test("the compiler of a CUDA comes before others, and the kind of GPU may be chosen", () => {
  const env = (vars: Record<string, string>) => environment("/cuda", (name) => vars[name]);
  const path = ["/cuda/bin", "/bin"].join(delimiter);
  assertEquals(env({ PATH: "/bin" }), { CUDA_HOME: "/cuda", CUDA_COMPUTE_CAP: "80", PATH: path });
  assertEquals(env({ PATH: "/bin", CUDA_COMPUTE_CAP: "89" }).CUDA_COMPUTE_CAP, "89");
});

Deno.test("a CUDA that is there is used, else the wheels' is fetched", async () => {
  const named = answers();
  assertEquals(
    await cudaHome(named.run, (name) => name === "CUDA_HOME" ? "/usr/local/cuda" : undefined),
    "/usr/local/cuda",
  );
  assertEquals(named.commands, []);
  const fetched = answers("making a Python: 0.6 GB\n/cache/bin/python\n", "/cache/lib/site-packages\n");
  assertEquals(await cudaHome(fetched.run, () => undefined), "/cache/lib/site-packages/nvidia/cu13");
  assertEquals(fetched.commands[0], "sh scripts/oracle.sh cuda");
  assertMatch(fetched.commands[1]!, /^\/cache\/bin\/python -c /);
  await assertRejects(() => cudaHome(answers(1).run, () => undefined), Error, "failed (code 1):\nwhy");
});

Deno.test("all pins are exact, and the compiler's parts are of CUDA 13.0", async () => {
  const text = await Deno.readTextFile(new URL("requirements-cuda.txt", import.meta.url));
  const pins = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  for (const pin of pins) assertMatch(pin, /^nvidia-[a-z-]+==\d+(\.\d+)+$/);
  // cuRAND has numbers of its own.
  for (const pin of pins.filter((pin) => !pin.startsWith("nvidia-curand="))) assertMatch(pin, /==13\.0\./);
  assertEquals(pins.length, 8);
});

Deno.test("checks that take minutes and fetch much are not among the usual ones", () => {
  assertEquals(STEPS.filter(({ command }) => command.some((word) => word.includes("cuda"))), []);
});
