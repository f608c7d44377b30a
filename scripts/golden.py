#!/usr/bin/env python3
"""Write the golden files of tests/golden: what llama.cpp makes of our texts and prompts.

    golden.py tokens NAME MODEL.gguf         tests/golden/NAME.tokens.json
    golden.py greedy NAME MODEL.gguf         tests/golden/NAME.greedy.json
    golden.py llama2 TOKENIZER.model         tests/golden/llama2.tokens.json

NAME is `smollm2` or `tiny-llama2`; texts and prompts are tests/fixtures/golden_texts.json. scripts/oracle.sh makes a
Python with the packages this needs. The same command writes the same bytes.

Correctness is judged by a program that is not ours, so nothing here knows how a tokenizer or a transformer works: ids,
logits and pieces come from llama.cpp's C API, and the ids of `llama2` are compared with PyPI sentencepiece besides.
`llama2` builds a vocabulary-only GGUF from a tokenizer that is not ours to publish, in a temporary folder; only the ids
are written. Absent: sampling, timing, anything that reads a golden file.
"""
import argparse
import ctypes
import json
import platform
import re
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp as L
import numpy as np
import sentencepiece

import make_model

ROOT = Path(__file__).parent.parent
TEXTS = json.loads((ROOT / "tests/fixtures/golden_texts.json").read_text(encoding="utf-8"))
GOLDEN = ROOT / "tests/golden"
N_STEPS = 64  # greedy tokens per prompt
N_TOP = 20  # logits kept after prefill
N_BATCH = 512
PIECE_BYTES = 256  # longer than any piece of a vocabulary used here

QUIET = L.llama_log_callback(lambda level, text, user: None)  # kept in a name: ctypes must not collect it
L.llama_log_set(QUIET, None)
L.llama_backend_init()


class Oracle:
    """A model in llama.cpp, set up so that its arithmetic is the plain one: KV cache in f32, no flash attention."""

    def __init__(self, path, vocab_only=False):
        params = L.llama_model_default_params()
        params.vocab_only, params.n_gpu_layers, params.use_extra_bufts = vocab_only, 0, False
        self.model = L.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocab = L.llama_model_get_vocab(self.model)
        self.n_vocab = L.llama_vocab_n_tokens(self.vocab)
        self.context = None if vocab_only else self._new_context()

    def _new_context(self):
        params = L.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = N_BATCH, N_BATCH, N_BATCH
        params.n_threads = params.n_threads_batch = 2
        params.type_k = params.type_v = 0  # GGML_TYPE_F32
        params.flash_attn_type = 0  # disabled
        return L.llama_init_from_model(self.model, params)

    def encode(self, text, parse_special=True):
        """Ids of `text`, BOS and EOS as the vocabulary says."""
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 8))()
        n = L.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), True, parse_special)
        assert n >= 0, f"{-n} ids do not fit in {len(ids)}"
        return list(ids[:n])

    def piece(self, i):
        """Bytes one id adds to a running text; a control token adds none."""
        buf = ctypes.create_string_buffer(PIECE_BYTES)
        n = L.llama_token_to_piece(self.vocab, i, buf, PIECE_BYTES, 0, False)
        assert n >= 0, f"piece {i} needs {-n} bytes"
        return buf.raw[:n]

    def is_end(self, i):
        return L.llama_vocab_is_eog(self.vocab, i)

    def forget(self):
        L.llama_memory_clear(L.llama_get_memory(self.context), True)

    def logits(self, ids):
        """Append `ids` to the cache; f32 logits [n_vocab] of the last one."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        if L.llama_decode(self.context, L.llama_batch_get_one(tokens, len(ids))) != 0:
            raise SystemExit(f"llama_decode failed on {len(ids)} ids")
        return np.ctypeslib.as_array(L.llama_get_logits_ith(self.context, -1), (self.n_vocab,)).copy()


def best(logits, n):
    """The `n` largest as [id, logit] rows, equal logits by lower id: four decimals are far below any tolerance."""
    order = np.argsort(-logits, kind="stable")[:n]
    return [[int(i), round(float(logits[i]), 4)] for i in order]


def greedy(oracle, prompt):
    """64 steps of always taking the largest logit. An end token is noted and generation goes on."""
    ids = oracle.encode(prompt["text"])
    oracle.forget()
    logits, steps = oracle.logits(ids), []
    for _ in range(N_STEPS):
        first, second = best(logits, 2)
        steps.append(first + second)
        logits = oracle.logits(first[:1])
    out = [step[0] for step in steps]
    end = next((at for at, i in enumerate(out) if oracle.is_end(i)), None)
    reply = b"".join(map(oracle.piece, out[:end])).decode(errors="replace")
    return {"name": prompt["name"], "text": prompt["text"], "ids": ids, "end_at": end, "reply": reply, "steps": steps}
