#!/usr/bin/env python3
"""Time llama.cpp on a GGUF, for comparison with our own bench: load, prefill, decode. Prints one JSON line.

    llama_cpp_bench.py MODEL.gguf PROMPT_TOKENS DECODE_TOKENS [THREADS] [SEQUENCES]

Needs the Python of scripts/oracle.sh. THREADS defaults to the number of cores. SEQUENCES > 1 decodes that many
conversations in one batch and reports their summed rate. Tokens are random: speed does not depend on which they are.
Absent: any measurement of our own engine, and any judgement of the figures.
"""
import json
import os
import random
import resource
import sys
import time

import llama_cpp as L

N_BATCH = 512  # llama.cpp's usual prefill batch
SPARE = 16  # cache places beyond those asked for

QUIET = L.llama_log_callback(lambda level, text, user: None)  # kept in a name: ctypes must not collect it


def load(path):
    params = L.llama_model_default_params()
    params.n_gpu_layers = 0
    model = L.llama_model_load_from_file(path.encode(), params)
    return model or sys.exit(f"llama.cpp cannot load {path}")


def new_context(model, n_tokens, n_seq, threads):
    params = L.llama_context_default_params()
    params.n_ctx = (n_tokens + SPARE) * n_seq
    params.n_batch = params.n_ubatch = N_BATCH
    params.n_seq_max = n_seq
    params.n_threads = params.n_threads_batch = threads
    params.kv_unified = True
    return L.llama_init_from_model(model, params) or sys.exit("llama.cpp cannot make a context")


def decode(ctx, rows):
    """Run one batch; `rows` are (token, position, sequence, wants_logits)."""
    batch = L.llama_batch_init(len(rows), 0, 1)
    batch.n_tokens = len(rows)
    for i, (token, pos, seq, logits) in enumerate(rows):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, pos, 1, seq
        batch.logits[i] = logits
    if L.llama_decode(ctx, batch) != 0:
        sys.exit("llama_decode failed")
    L.llama_synchronize(ctx)
    L.llama_batch_free(batch)


def prefill(ctx, pick, n_prompt, seq):
    for at in range(0, n_prompt, N_BATCH):
        n = min(N_BATCH, n_prompt - at)
        decode(ctx, [(pick(), at + i, seq, at + i == n_prompt - 1) for i in range(n)])


def timed(act):
    start = time.perf_counter()
    result = act()
    return time.perf_counter() - start, result


def measure(path, n_prompt, n_decode, threads, n_seq):
    load_s, model = timed(lambda: load(path))
    ctx = new_context(model, n_prompt + n_decode, n_seq, threads)
    n_vocab, rng = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model)), random.Random(1)
    pick = lambda: rng.randrange(3, n_vocab)  # past the control tokens
    decode(ctx, [(1, 0, 0, True)])  # warm up
    L.llama_memory_clear(L.llama_get_memory(ctx), True)
    prefill_s, _ = timed(lambda: prefill(ctx, pick, n_prompt, 0))
    for seq in range(1, n_seq):
        prefill(ctx, pick, n_prompt, seq)
    step = lambda i: decode(ctx, [(pick(), n_prompt + i, seq, True) for seq in range(n_seq)])
    steps = sorted(timed(lambda: step(i))[0] for i in range(n_decode))
    return {
        "engine": "llama.cpp " + L.__version__, "model": os.path.basename(path), "threads": threads, "sequences": n_seq,
        "load_s": round(load_s, 2), "prefill_tok_s": round(n_prompt / prefill_s, 2),
        "decode_tok_s": round(n_seq * n_decode / sum(steps), 2),
        "decode_tok_s_median": round(n_seq / steps[len(steps) // 2], 2),
        "rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def main(argv):
    if not 4 <= len(argv) <= 6:
        sys.exit(__doc__)
    numbers = [int(a) for a in argv[2:]]
    threads, n_seq = numbers[2:] + [os.cpu_count(), 1][len(numbers) - 2:]
    L.llama_log_set(QUIET, None)
    L.llama_backend_init()
    print(json.dumps(measure(argv[1], numbers[0], numbers[1], threads, n_seq)))


if __name__ == "__main__":
    main(sys.argv)
