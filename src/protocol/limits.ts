/**
 * Limits that the command line says too, apart from the checks, which take time to load.
 *
 * @module
 */

/** Most choices of one request over all its prompts: each takes a place in the engine's queue. */
export const MAX_CHOICES = 16;
