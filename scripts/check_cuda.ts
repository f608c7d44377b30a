/**
 * Compiles the core with its feature `cuda`, as far as a machine without a GPU can: candle's kernels by NVIDIA's compiler,
 * our code by `cargo check`. Nothing is linked or run, so no driver is needed.
 *
 *     deno task check:cuda
 *
 * CUDA is the one that CUDA_HOME names, else the wheels of requirements-cuda.txt, which are fetched once and kept in the
 * user's cache (`scripts/oracle.sh cuda`). The kernels take some eight minutes on two cores and stay in `target`.
 *
 * @module
 */
import { delimiter, join } from "node:path";
import { lastLine, must, programRunner, type RunProgram, show } from "./programs.ts";

const ROOT = join(import.meta.dirname!, "..");
/** What kernels are compiled for when CUDA_COMPUTE_CAP does not say: Ampere, the oldest with all of candle's. */
const COMPUTE_CAP = "80";
/** Where the wheels have CUDA, from the folder of packages. */
const CUDA_IN_PACKAGES = "nvidia/cu13";

/** The environment in which cargo and candle's build scripts find the CUDA in `home`. */
export function environment(home: string, env: (name: string) => string | undefined): Record<string, string> {
  return {
    CUDA_HOME: home,
    CUDA_COMPUTE_CAP: env("CUDA_COMPUTE_CAP") || COMPUTE_CAP,
    PATH: [join(home, "bin"), env("PATH") ?? ""].join(delimiter),
  };
}

/** Where CUDA is: in CUDA_HOME, or in the packages of a Python that `run` makes. */
export async function cudaHome(run: RunProgram, env: (name: string) => string | undefined): Promise<string> {
  const named = env("CUDA_HOME");
  if (named) return named;
  const python = lastLine(
    must(await run(["sh", "scripts/oracle.sh", "cuda"], show), "fetching NVIDIA's compiler failed"),
  );
  const packages = await run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], () => {});
  return join(lastLine(must(packages, `${python} does not say where its packages are`)), CUDA_IN_PACKAGES);
}

async function main(): Promise<number> {
  const env = (name: string) => Deno.env.get(name);
  try {
    const home = await cudaHome(programRunner(ROOT), env);
    const run = programRunner(ROOT, () => environment(home, env));
    must(await run(["nvcc", "--version"], show), "checking the feature cuda needs nvcc, which ended");
    const check = ["check", "--locked", "--package", "llamero-core", "--features", "cuda"];
    return (await run(["cargo", ...check], show)).code === 0 ? 0 : 1;
  } catch (error) {
    console.error(`check:cuda: ${(error as Error).message}`);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main());
