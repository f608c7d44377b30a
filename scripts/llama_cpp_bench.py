#!/usr/bin/env python3
"""Take one turn of `llamero bench` with llama.cpp: load a GGUF, do one thing, print what was measured as one JSON line.

    llama_cpp_bench.py MODEL.gguf [--prompt 512] [--reply 64] [--conversations 1] [--threads N] [--kv f16|q8_0]

Needs the Python of scripts/oracle.sh. The turn is that of src/cli/bench_turn.ts: the first token of a short prompt, which
ends loading; then prompts of --prompt tokens and replies of --reply, the first of which belongs to the prompt; --prompt 0
only loads. --conversations > 1 writes that many replies in one batch and reports their summed rate. --threads defaults to
the number of cores. Token ids are from the same generator as llamero's, of the replies as well: speed does not depend on
which they are. Absent: repetition, any measurement of our own engine, any judgement of the figures.
"""
import argparse
import json
import os
import resource
import sys
import time

import llama_cpp as L

FIRST_PROMPT, SPARE = 16, 16  # as src/cli/bench_table.ts has them
FIRST_ID = 3  # past the control tokens
N_BATCH = 512  # llama.cpp's usual prefill batch
KV_TYPES = {"f16": L.GGML_TYPE_F16, "q8_0": L.GGML_TYPE_Q8_0}

QUIET = L.llama_log_callback(lambda level, text, user: None)  # kept in a name: ctypes must not collect it


def load(path):
    params = L.llama_model_default_params()
    params.n_gpu_layers = 0
    model = L.llama_model_load_from_file(path.encode(), params)
    return model or sys.exit(f"llama.cpp cannot load {path}")


def new_context(model, a):
    params = L.llama_context_default_params()
    params.n_ctx = (max(a.prompt + a.reply, FIRST_PROMPT + 1) + SPARE) * a.conversations
    params.n_batch = params.n_ubatch = N_BATCH
    params.n_seq_max = a.conversations
    params.n_threads = params.n_threads_batch = a.threads
    params.kv_unified = True
    params.type_k = params.type_v = KV_TYPES[a.kv]
    return L.llama_init_from_model(model, params) or sys.exit("llama.cpp cannot make a context")


def random_ids(count, n_vocab, seed):
    """The generator of src/cli/bench_turn.ts."""
    ids, state = [], seed
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        ids.append(FIRST_ID + state * (n_vocab - FIRST_ID) // 2**32)
    return ids


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


def prefill(ctx, ids, seq):
    for at in range(0, len(ids), N_BATCH):
        chunk = ids[at:at + N_BATCH]
        decode(ctx, [(token, at + i, seq, at + i == len(ids) - 1) for i, token in enumerate(chunk)])


def timed(act):
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def rates(ctx, n_vocab, a):
    """Tokens a second of prompt and replies."""
    L.llama_memory_clear(L.llama_get_memory(ctx), True)
    prompts = [random_ids(a.prompt, n_vocab, seq + 1) for seq in range(a.conversations)]
    prefill_s = [timed(lambda: prefill(ctx, ids, seq)) for seq, ids in enumerate(prompts)]
    replies = [random_ids(a.reply, n_vocab, -seq - 1) for seq in range(a.conversations)]

    def write():
        for i in range(a.reply - 1):
            decode(ctx, [(ids[i], a.prompt + i, seq, True) for seq, ids in enumerate(replies)])

    return {
        "prefill_tok_s": a.conversations * a.prompt / sum(prefill_s),
        "decode_tok_s": a.conversations * (a.reply - 1) / timed(write),
    }


def measure(a):
    begun = time.perf_counter()
    model = load(a.model)
    ctx, n_vocab = new_context(model, a), L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
    prefill(ctx, random_ids(FIRST_PROMPT, n_vocab, 0), 0)
    first_token_at, load_s = time.time(), time.perf_counter() - begun
    measured = rates(ctx, n_vocab, a) if a.prompt > 0 else {}
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "engine": "llama.cpp " + L.__version__, "first_token_at": first_token_at, "load_s": load_s,
        "peak_bytes": kibibytes * 1024, **measured,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--reply", type=int, default=64)
    parser.add_argument("--conversations", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--kv", choices=KV_TYPES, default="f16")
    a = parser.parse_args()
    if a.prompt > 0 and a.reply < 2:
        parser.error("--reply: expected 2 or more, since the first token belongs to the prompt")
    L.llama_log_set(QUIET, None)
    L.llama_backend_init()
    print(json.dumps(measure(a)))


if __name__ == "__main__":
    main()
