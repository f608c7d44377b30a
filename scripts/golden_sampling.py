#!/usr/bin/env python3
"""Write tests/golden/sampling.json: what llama.cpp's samplers leave of given logits.

    golden_sampling.py VOCABULARY.gguf

DRY looks for its sequence breakers in a vocabulary; tests/fixtures/tiny-llama2.gguf has one. scripts/oracle.sh makes a
Python with the packages this needs. The same command writes the same bytes.

Each case names our parameters, the tokens seen before and those of them in which a breaker ends, and has the ids that are
left, in rising order, with their logits. Absent: draws, which depend on a generator of random numbers.
"""
import argparse
import ctypes
import json
from importlib.metadata import version
from pathlib import Path

import llama_cpp as L
import numpy as np

GOLDEN = Path(__file__).parent.parent / "tests/golden/sampling.json"
N_VOCAB = 120  # more than mirostat looks at, few enough to read
SEED = 20

QUIET = L.llama_log_callback(lambda level, text, user: None)  # kept in a name: ctypes must not collect it
L.llama_log_set(QUIET, None)


def logits():
    """Three shapes of distributions, with few digits so that JSON has them exactly enough."""
    random = np.random.default_rng(SEED)
    zipf = -1.2 * np.log(np.arange(1, N_VOCAB + 1)) + random.normal(0, 0.3, N_VOCAB)
    shapes = {
        "zipf": random.permutation(zipf),
        "flat": random.normal(0, 1, N_VOCAB),
        "sharp": random.normal(-4, 2, N_VOCAB) + np.where(np.arange(N_VOCAB) % 60 == 7, 9, 0),
    }
    return {name: [round(float(x), 3) for x in values] for name, values in shapes.items()}


def run(samplers, values, seen):
    """The ids and logits that a chain of samplers leaves."""
    data = (L.llama_token_data * N_VOCAB)(*[L.llama_token_data(i, x, 0) for i, x in enumerate(values)])
    array = L.llama_token_data_array(data, N_VOCAB, -1, False)
    for sampler in samplers:
        for token in seen:
            L.llama_sampler_accept(sampler, token)
        L.llama_sampler_apply(sampler, ctypes.byref(array))
        L.llama_sampler_free(sampler)
    left = sorted((array.data[i].id, array.data[i].logit) for i in range(array.size))
    return [(i, x) for i, x in left if np.isfinite(x)]


def dry(vocab, multiplier, base, allowed_length, last_n, breakers):
    texts = (ctypes.c_char_p * len(breakers))(*[text.encode() for text in breakers])
    return L.llama_sampler_init_dry(vocab, multiplier, base, allowed_length, last_n, texts, len(breakers))


def ids_with(vocab, text):
    """The first ids whose piece contains `text`."""
    def piece(i):
        buf = ctypes.create_string_buffer(256)
        size = L.llama_token_to_piece(vocab, i, buf, 256, 0, True)
        return buf.raw[: max(0, size)]

    return [i for i in range(N_VOCAB) if text.encode() in piece(i)]



def cases(vocab):
    """(name, shape, our parameters, seen, breaks, samplers)"""
    for shape in ["zipf", "flat", "sharp"]:
        for k in [1, 7, 200]:
            yield "top_k", shape, {"top_k": k}, [], [], [L.llama_sampler_init_top_k(k)]
        for p in [0.1, 0.6, 0.95]:
            yield "top_p", shape, {"top_p": p}, [], [], [L.llama_sampler_init_top_p(p, 1)]
            yield "min_p", shape, {"min_p": p}, [], [], [L.llama_sampler_init_min_p(p, 1)]
            yield "typical_p", shape, {"typical_p": p}, [], [], [L.llama_sampler_init_typical(p, 1)]
        for n in [0.5, 1.0, 3.0]:
            yield "top_n_sigma", shape, {"top_n_sigma": n}, [], [], [L.llama_sampler_init_top_n_sigma(n)]
        for t in [0.01, 0.05, 0.2]:
            yield "xtc", shape, {"xtc_probability": 1.0, "xtc_threshold": t}, [], [], [L.llama_sampler_init_xtc(1.0, t, 1, SEED)]
        for t in [0.3, 1.7]:
            yield "temperature", shape, {"temperature": t}, [], [], [L.llama_sampler_init_temp(t)]
        for t, delta, exponent in [(1.0, 0.5, 1.0), (0.8, 2.0, 0.5), (1.5, 1.0, 3.0)]:
            params = {"temperature": t, "dynatemp_range": delta, "dynatemp_exponent": exponent}
            yield "dynatemp", shape, params, [], [], [L.llama_sampler_init_temp_ext(t, delta, exponent)]
        for tau in [0.5, 2.5, 5.0]:
            one = L.llama_sampler_init_mirostat(N_VOCAB, SEED, tau, 0.1, 100)
            yield "mirostat", shape, {"mirostat": 1, "mirostat_tau": tau}, [], [], [one]
            two = L.llama_sampler_init_mirostat_v2(SEED, tau, 0.1)
            yield "mirostat_2", shape, {"mirostat": 2, "mirostat_tau": tau}, [], [], [two]

    seen = [5, 9, 9, 110, 5, 5, 17, 9, 60, 119, 0, 9]
    for last_n, repeat, frequency, presence in [(64, 1.3, 0, 0), (5, 0.8, 0.5, 0), (3, 1.0, 0, 1.5), (64, 1.1, -0.7, 0.25)]:
        params = {"repeat_last_n": last_n, "repeat_penalty": repeat, "frequency_penalty": frequency, "presence_penalty": presence}
        yield "penalties", "flat", params, seen, [], [L.llama_sampler_init_penalties(N_VOCAB, last_n, repeat, frequency, presence)]

    colons = ids_with(vocab, ":")
    stop = colons[0]
    phrases = [
        [20, 21, 22, 30, 20, 21, 22, 31, 40, 20, 21, 22],
        [7, 7, 7, 7, 7],
        [20, 21, 22, 30, stop, 20, 21, 22],
        [20, 21, stop, 22, 20, 21, stop, 22, 23, 20, 21],
        [stop, 20, 21, 50, 20, 21, stop, 20, 21],
        [60, 61, 60, 61, 60, 61, 60, 61, 60],
    ]
    for phrase in phrases:
        for multiplier, base, allowed_length, last_n in [(0.8, 1.75, 2, 64), (1.5, 1.1, 1, 64), (0.5, 2.0, 3, 7)]:
            params = {"dry_multiplier": multiplier, "dry_base": base, "dry_allowed_length": allowed_length, "dry_penalty_last_n": last_n}
            sampler = dry(vocab, multiplier, base, allowed_length, last_n, [":"])
            yield "dry", "flat", params, phrase, [stop] if stop in phrase else [], [sampler]

    # Without typical: its entropy is NaN in llama.cpp behind top-n-sigma, which leaves tokens of probability 0 in the list.
    params = {
        "repeat_last_n": 8, "repeat_penalty": 1.2, "frequency_penalty": 0.1, "presence_penalty": 0.2, "dry_multiplier": 0.8,
        "dry_penalty_last_n": 64, "top_n_sigma": 2.5, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
        "xtc_probability": 1.0, "xtc_threshold": 0.05, "temperature": 0.8,
    }
    for shape in ["zipf", "flat", "sharp"]:
        chain = [
            L.llama_sampler_init_penalties(N_VOCAB, 8, 1.2, 0.1, 0.2),
            dry(vocab, 0.8, 1.75, 2, 64, []),
            L.llama_sampler_init_top_n_sigma(2.5),
            L.llama_sampler_init_top_k(40),
            L.llama_sampler_init_top_p(0.9, 1),
            L.llama_sampler_init_min_p(0.05, 1),
            L.llama_sampler_init_xtc(1.0, 0.05, 1, SEED),
            L.llama_sampler_init_temp(0.8),
        ]
        yield "all", shape, params, phrases[0], [], chain


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", metavar="VOCABULARY.gguf")
    args = parser.parse_args()
    model_params = L.llama_model_default_params()
    model_params.vocab_only = True
    model = L.llama_model_load_from_file(args.vocabulary.encode(), model_params)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {args.vocabulary}")
    vocab = L.llama_model_get_vocab(model)
    values = logits()
    written = []
    for name, shape, params, seen, breaks, samplers in cases(vocab):
        left = run(samplers, values[shape], seen)
        ids, weights = [i for i, _ in left], [round(x, 4) for _, x in left]
        written.append({"name": name, "logits": shape, "params": params, "seen": seen, "breaks": breaks, "ids": ids, "weights": weights})
    head = {
        "command": "scripts/golden_sampling.py tests/fixtures/tiny-llama2.gguf",
        "llama-cpp-python": version("llama-cpp-python"),
        "logits": values,
    }
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in written)
    text = json.dumps(head, separators=(",", ":"))[:-1] + ',"cases":[\n' + lines + "\n]}\n"
    GOLDEN.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
