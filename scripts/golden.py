#!/usr/bin/env python3
"""Write the golden files of tests/golden: what llama.cpp makes of our texts and prompts.

    golden.py tokens NAME MODEL.gguf         tests/golden/NAME.tokens.json
    golden.py greedy NAME MODEL.gguf         tests/golden/NAME.greedy.json
    golden.py embed NAME MODEL.gguf          tests/golden/NAME.embed.json
    golden.py llama2 TOKENIZER.model         tests/golden/llama2.tokens.json
    golden.py vicuna TOKENIZER.model         tests/golden/vicuna.tokens.json

NAME is `smollm2` or `tiny-llama2`, for greedy also `smollm2-f32` (the model of smollm2, unpacked to f32) and
`tiny-llama2-yarn` (likewise, and with metadata that stretches its positions). Texts and prompts are tests/fixtures/golden_texts.json. scripts/oracle.sh makes a Python with the packages this needs. The same
command writes the same bytes.

Correctness is judged by a program that is not ours, so nothing here knows how a tokenizer or a transformer works: ids,
logits and pieces come from llama.cpp's C API, and the ids of `llama2` are compared with PyPI sentencepiece besides.
`llama2` and `vicuna` (whole prompts, tests/fixtures/vicuna_prompts.json) build a vocabulary-only GGUF from a tokenizer
that is not ours to publish, in a temporary folder; only the ids are written. Absent: sampling, timing, anything that reads a golden file.
"""
import argparse
import ctypes
import json
import platform
import re
import tempfile
import unicodedata
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp as L
import numpy as np
import sentencepiece

import make_model

ROOT = Path(__file__).parent.parent
TEXTS = json.loads((ROOT / "tests/fixtures/golden_texts.json").read_text(encoding="utf-8"))
VICUNA = json.loads((ROOT / "tests/fixtures/vicuna_prompts.json").read_text(encoding="utf-8"))
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

    def __init__(self, path, vocab_only=False, pooling=None):
        params = L.llama_model_default_params()
        params.vocab_only, params.n_gpu_layers, params.use_extra_bufts = vocab_only, 0, False
        self.model = L.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocab = L.llama_model_get_vocab(self.model)
        self.n_vocab = L.llama_vocab_n_tokens(self.vocab)
        self.context = None if vocab_only else self._new_context(pooling)

    def _new_context(self, pooling):
        params = L.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = N_BATCH, N_BATCH, N_BATCH
        params.n_threads = params.n_threads_batch = 1  # waiting threads spin: more are slower on a busy machine
        params.type_k = params.type_v = 0  # GGML_TYPE_F32
        params.flash_attn_type = 0  # disabled
        if pooling is not None:
            params.embeddings, params.pooling_type = True, pooling
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

    def decode(self, ids):
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        if L.llama_decode(self.context, L.llama_batch_get_one(tokens, len(ids))) != 0:
            raise SystemExit(f"llama_decode failed on {len(ids)} ids")

    def embed(self, ids):
        """The pooled f32 vector [n_embd] of `ids` alone, at length 1."""
        self.forget()
        self.decode(ids)
        n_embd = L.llama_model_n_embd(self.model)
        vector = np.ctypeslib.as_array(L.llama_get_embeddings_seq(self.context, 0), (n_embd,)).copy()
        return vector / np.linalg.norm(vector)

    def logits(self, ids):
        """Append `ids` to the cache; f32 logits [n_vocab] of the last one."""
        self.decode(ids)
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


def stepwise_gap(oracle, ids):
    """Largest difference of a logit between `ids` prefilled at once and fed one by one: llama.cpp against itself."""
    oracle.forget()
    whole = oracle.logits(ids)
    oracle.forget()
    for i in ids:
        single = oracle.logits([i])
    return round(float(np.abs(whole - single).max()), 4)


# What `expand` adds to the metadata. The small model's prompts reach four times as far as this context.
UNPACKED = {
    "smollm2-f32": {},
    "tiny-llama2-yarn": {
        "llama.rope.scaling.type": ("yarn", gguf.GGUFValueType.STRING),
        "llama.rope.scaling.factor": (4.0, gguf.GGUFValueType.FLOAT32),
        "llama.rope.scaling.original_context_length": (128, gguf.GGUFValueType.UINT32),
        "llama.rope.scaling.attn_factor": (1.25, gguf.GGUFValueType.FLOAT32)},
}


def expand(source, out, added):
    """Copy a GGUF with every tensor unpacked to f32: the same weights, and no rounding of activations to 8 bits."""
    reader = gguf.GGUFReader(source)
    w = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            w.add_key_value(key, field.contents(), field.types[0], sub_type)
    for key, (value, value_type) in added.items():
        w.add_key_value(key, value, value_type)
    for t in reader.tensors:
        w.add_tensor(t.name, gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32))
    make_model.write(w)


def head(command, model, file):
    """The fields every golden file opens with."""
    packages = ("llama-cpp-python", "gguf", "sentencepiece", "numpy")
    return {
        "command": f"scripts/golden.py {command}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "model": {
            "file": Path(file).name, "bytes": Path(file).stat().st_size, "sha256": make_model.sha256(file)} | model,
    }


def token_rows(oracle):
    """Ids of each text; `plain_ids` too where control tokens written in the text change them."""
    rows = []
    for text in TEXTS["texts"]:
        ids, plain = oracle.encode(text["text"]), oracle.encode(text["text"], parse_special=False)
        rows.append(text | {"ids": ids} | ({} if plain == ids else {"plain_ids": plain}))
    return rows


TOKENS_ABOUT = (
    "`ids`: llama_tokenize with add_special and parse_special true, so BOS stands first where the vocabulary adds it"
    " and control tokens written in the text are recognised. `plain_ids`, present where it differs: parse_special"
    " false, so control tokens stay text, as a user's words must.")
PREFIX_ABOUT = (
    " One space is put before the text and before the text after each recognised control token (`add_space_prefix`);"
    " an empty text gets none.")


def make_tokens(name, path):
    oracle = Oracle(path, vocab_only=True)
    spm = L.llama_vocab_type(oracle.vocab) == L.LLAMA_VOCAB_TYPE_SPM
    data = head(f"tokens {name} {Path(path).name}", {"vocabulary": "llama" if spm else "gpt2"}, path)
    data["about"] = TOKENS_ABOUT + (PREFIX_ABOUT if spm else "")
    data["texts"] = token_rows(oracle)
    save(f"{name}.tokens.json", data, "texts")


def with_vocabulary(sp, use):
    """What `use` makes of an oracle that has nothing but this vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/vocabulary.gguf"
        w = gguf.GGUFWriter(file, "llama")
        make_model.add_shape(w, "llama-2-vocabulary", make_model.FILE_TYPE["f16"], make_model.BIG)
        make_model.add_vocabulary(w, sp)
        make_model.write(w)
        return use(Oracle(file, vocab_only=True))


def make_vicuna(path):
    """Ids of whole prompts with the genuine Llama-2 vocabulary; the texts stay in their own file."""
    sp = sentencepiece.SentencePieceProcessor(model_file=path)
    encode = lambda oracle: [{"name": p["name"], "ids": oracle.encode(p["text"])} for p in VICUNA]
    data = head(f"vicuna {Path(path).name}", {"vocabulary": "llama"}, path)
    data["about"] = TOKENS_ABOUT.split(" `plain_ids`")[0] + PREFIX_ABOUT
    data["prompts"] = with_vocabulary(sp, encode)
    save("vicuna.tokens.json", data, "prompts")


def make_llama2(path):
    """Ids of the genuine Llama-2 vocabulary, through llama.cpp and checked against sentencepiece itself."""
    sp = sentencepiece.SentencePieceProcessor(model_file=path)
    rows = with_vocabulary(sp, token_rows)
    data = head(f"llama2 {Path(path).name}", {"vocabulary": "llama"}, path)
    data["about"] = TOKENS_ABOUT + PREFIX_ABOUT + (
        " `sentencepiece_differs`: names of texts whose plain ids are not BOS followed by what sentencepiece's own"
        " encode gives; it never recognises control tokens and puts the space before the text by itself.")
    data["sentencepiece_differs"] = [
        row["name"] for row in rows
        if row.get("plain_ids", row["ids"]) != [sp.bos_id()] + sp.encode(row["text"])]
    data["texts"] = rows
    save("llama2.tokens.json", data, "texts")


SETTINGS = {"kv_cache": "f32", "flash_attention": False, "prefill": "one batch", "after_end": "goes on"}
# Where the numbers come from: `stepwise_gap` of the same file, and a second forward pass in numpy (within 0.0002 of
# llama.cpp on f32 weights) that rounds activations as ggml does, or so but with scales left in f32, or not at all.
TOLERANCES = {
    "smollm2": {
        "near_tie": 0.75, "differing_steps": 10, "logit": 5.0, "logit_mean": 0.3,
        "why": "Every matrix of this file is quantised, and each product rounds its input to 8 bits: a last-bit"
               " difference becomes a whole rounding step and grows through 30 layers, so that llama.cpp differs from"
               " itself by `stepwise_gap` between one batch and single steps. A second implementation that adds in"
               " another order, or leaves activations in f32, moved logits by up to 1.2 (0.18 on average) and chose"
               " otherwise in at most 6 of 512 steps, at margins up to 0.27. A third, whose sums are fused, moved three"
               " steps by more than 1, the last of one prompt by 3.9 (0.19 on average). smollm2-f32.greedy.json is the"
               " sharp comparison of the same weights."},
    "smollm2-f32": {
        "near_tie": 0.002, "differing_steps": 0, "logit": 0.005, "logit_mean": 0.001,
        "why": "The weights of the model unpacked to f32, so that only the order of additions differs: a second"
               " implementation stayed within 0.0002 of every logit. A check against this file must unpack the weights"
               " too."},
    "tiny-llama2-yarn": {
        "near_tie": 0.002, "differing_steps": 0, "logit": 0.005, "logit_mean": 0.001,
        "why": "As smollm2-f32. A check must unpack the weights and set the metadata named under `settings`."},
    "tiny-llama2": {
        "near_tie": 0.15, "differing_steps": 5, "logit": 0.25, "logit_mean": 0.02,
        "why": "Four quantised inputs with f32 between them: a second implementation that rounds activations to 8 bits"
               " as ggml does, with or without rounding the scales to f16, stayed within 0.12 of every logit and margin"
               " (0.009 on average) and chose alike in all steps. Activations left in f32 move a logit by up to 0.3"
               " (0.064 on average) and do not pass."},
}
TOLERANCE_ABOUT = (
    " How to check: feed the golden ids whatever was chosen. At a step whose margin (logit minus runner-up's logit) is"
    " below `near_tie` another choice is accepted, in at most `differing_steps` steps of the file; elsewhere the choice"
    " must be equal. Each logit written here must be met within `logit`, and all of them within `logit_mean` on"
    " average.")


def make_greedy(name, path):
    if name not in UNPACKED:
        return write_greedy(name, path, Oracle(path), "as stored")
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/f32.gguf"
        expand(path, file, UNPACKED[name])
        write_greedy(name, path, Oracle(file), "unpacked to f32")


def write_greedy(name, path, oracle, weights):
    prompts = TEXTS["prompts"][name.removesuffix("-f32").removesuffix("-yarn")]
    rows, tolerance = [greedy(oracle, p) for p in prompts], dict(TOLERANCES[name])
    gaps = {row["name"]: stepwise_gap(oracle, row["ids"]) for row in rows}
    tolerance["why"] += TOLERANCE_ABOUT
    data = head(f"greedy {name} {Path(path).name}", {}, path)
    metadata = {key: value for key, (value, _) in UNPACKED.get(name, {}).items()}
    settings = {"weights": weights} | ({"metadata": metadata} if metadata else {}) | SETTINGS
    data |= {"settings": settings, "tolerance": tolerance, "stepwise_gap": gaps}
    data["about"] = (
        "Per prompt: `ids` as in the tokens file; 64 `steps`, each [id, its logit, runner-up's id, its logit];"
        " `end_at`, the first step at which an end token was chosen, or null; `reply`, the text of the ids before it,"
        " control tokens left out, U+FFFD for half a character at its end.")
    data["near_ties"] = [
        {"prompt": row["name"], "step": at, "margin": round(s[1] - s[3], 4)}
        for row in rows for at, s in enumerate(row["steps"]) if s[1] - s[3] < tolerance["near_tie"]]
    oracle.forget()
    data["prefill"] = {"prompt": rows[0]["name"], "top": best(oracle.logits(rows[0]["ids"]), N_TOP)}
    data["prompts"] = rows
    save(f"{name}.greedy.json", data, "near_ties", "prompts")


def make_embed(name, path):
    """Pooled vectors of the prompts, in one batch each."""
    data = head(f"embed {name} {Path(path).name}", {}, path)
    data["settings"] = {"kv_cache": "f32", "flash_attention": False, "prefill": "one batch"}
    data["tolerance"] = {
        "cosine": 0.001,
        "why": "1 minus the cosine of an angle. Quantised weights round activations to 8 bits, which moves single numbers"
               " far more than the direction."}
    data["about"] = (
        "Per prompt: its text, and llama_get_embeddings_seq at length 1 for LLAMA_POOLING_TYPE_MEAN and _LAST, rounded to"
        " four decimals.")
    pooled = {
        how: Oracle(path, pooling=getattr(L, f"LLAMA_POOLING_TYPE_{how.upper()}")) for how in ("mean", "last")}
    rounded = lambda vector: [round(float(value), 4) for value in vector]
    data["prompts"] = [
        {"name": p["name"], "text": p["text"]}
        | {how: rounded(oracle.embed(oracle.encode(p["text"]))) for how, oracle in pooled.items()}
        for p in TEXTS["prompts"][name]]
    save(f"{name}.embed.json", data, "prompts")


def visible(text):
    """JSON with letters as they are and every character that does not show (joiners, marks, controls) escaped."""
    hidden = re.compile(r"[^ -~]")
    show = lambda c: c if c.isprintable() and not unicodedata.combining(c) else json.dumps(c)[1:-1]
    return hidden.sub(lambda m: show(m.group()), text)


def save(file, data, *lists):
    """One field per line, and one row per line in the named lists, so that a change shows as the rows it touched."""
    dump = lambda value: visible(json.dumps(value, ensure_ascii=False))
    rows = lambda value: "[\n" + ",\n".join("    " + dump(row) for row in value) + "\n  ]" if value else "[]"
    fields = [f"  {dump(key)}: {rows(value) if key in lists else dump(value)}" for key, value in data.items()]
    text = "{\n" + ",\n".join(fields) + "\n}\n"
    assert json.loads(text) == data, "what is written is what was meant"
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / file).write_text(text, encoding="utf-8")
    print(f"tests/golden/{file}: {len(text.encode())} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    tokens = kinds.add_parser("tokens", help="ids of the texts")
    tokens.add_argument("name", choices=TEXTS["prompts"])
    tokens.add_argument("model")
    steps = kinds.add_parser("greedy", help="64 greedy tokens of each prompt")
    steps.add_argument("name", choices=TOLERANCES)
    steps.add_argument("model")
    vectors = kinds.add_parser("embed", help="vectors of the prompts")
    vectors.add_argument("name", choices=TEXTS["prompts"])
    vectors.add_argument("model")
    kinds.add_parser("llama2", help="ids of the texts with Llama-2's own vocabulary").add_argument("tokenizer")
    kinds.add_parser("vicuna", help="ids of whole prompts with that vocabulary").add_argument("tokenizer")
    a = parser.parse_args()
    if a.kind == "tokens":
        make_tokens(a.name, a.model)
    elif a.kind == "greedy":
        make_greedy(a.name, a.model)
    elif a.kind == "embed":
        make_embed(a.name, a.model)
    elif a.kind == "llama2":
        make_llama2(a.tokenizer)
    else:
        make_vicuna(a.tokenizer)


if __name__ == "__main__":
    main()
