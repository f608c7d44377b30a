#!/usr/bin/env python3
"""Write GGUF files with random weights: the small test model, and files of Llama-2-7B's shape for speed figures.

    make_model.py tiny OUT.gguf
    make_model.py 7b OUT.gguf --tokenizer TOKENIZER.model|tokenizer.json [--kind q4_0] [--layers 32] [--ring N]

Tests need a Llama-2-shaped model in every clone, without a download and without weights that are somebody else's:
`tiny` trains a SentencePiece vocabulary on tests/fixtures/corpus.txt and draws its weights from a seed, so
tests/fixtures/tiny-llama2.gguf can be made again, byte for byte, with the packages of requirements-oracle.txt. It knows
no language; its replies are varied noise, and ids and logits can still be compared with another program's.

`7b` has the shape of Llama-2-7B (Vicuna-7b-v1.5). One matrix per shape is quantised by ggml's reference quantiser and
rolled by rows for each layer, so every layer has bytes of its own in the file. 32 layers: q4_0 3.8 GB, q4_k_m 4.1 GB,
q8_0 7.2 GB, f16 13.5 GB; writing takes about two minutes. Its vocabulary is Llama-2's, as SentencePiece has it or as the
tokenizer.json that scripts/llama2_tokenizer.ts writes; `deno task make:7b OUT.gguf [--kind q4_0]` does both. With --ring its
replies run in circles of N tokens, as foreseeable as a quote is for a model that knows a language: layers add nothing, and
each token's output row is the embedding of the one before it. Every matrix is multiplied all the same.

Absent: trained weights, chat templates, any vocabulary that is not given or trained here.
"""
import argparse
import hashlib
import io
import json
import re
from pathlib import Path

import gguf
import libgguf
import numpy as np
import sentencepiece

T = gguf.GGMLQuantizationType
FILE_TYPE = {"f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q4_k_m": 15}  # general.file_type, as llama.cpp numbers them
PIECE_NORMAL, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_BYTE = 1, 2, 3, 6  # tokenizer.ggml.token_type
N_SPECIAL = 3 + 256  # <unk>, <s>, </s> and the byte pieces come first

CORPUS = Path(__file__).parent.parent / "tests/fixtures/corpus.txt"
TINY = dict(n_vocab=1024, n_embd=64, n_ff=192, n_layer=3, n_head=4, n_head_kv=2, n_ctx=512)
TINY_SEED = 74  # of 78 tried, the one with a chat that ends by </s> at a clear margin
# A product with quantised weights also rounds its input to 8 bits, and a last-bit difference before the rounding can
# come out as a whole step behind it. A chain of such products grows any difference up to the rounding error itself (0.3
# of a logit when every matrix is quantised), so f32 stands between the quantised inputs here, and Q4_1, whose block
# sums engines round differently, comes last: comparisons stay sharp.
TINY_TYPES = {
    "token_embd": T.Q8_0, "output": T.Q4_1,
    (0, "ffn_gate"): T.Q8_0, (0, "ffn_up"): T.Q8_0,
    (1, "attn_q"): T.Q8_0, (1, "attn_k"): T.Q8_0, (1, "attn_v"): T.Q8_0,
    (2, "ffn_down"): T.Q8_0,
}
# Standard deviation times sqrt(columns), 1 where absent. Queries and keys are large so that attention is selective,
# what the layers add is large so that it outweighs the last token (else greedy text is a short cycle), and the output
# is large so that the best logit stands clear of the second.
TINY_GAIN = {"token_embd": 8.0, "attn_q": 1.6, "attn_k": 1.6, "attn_output": 1.5, "ffn_down": 2.0, "output": 5.0}

BIG = dict(n_vocab=32000, n_embd=4096, n_ff=11008, n_layer=32, n_head=32, n_head_kv=32, n_ctx=4096)
BIG_BASE = {"q4_0": T.Q4_0, "q8_0": T.Q8_0, "q4_k_m": T.Q4_K, "f16": T.F16}
BIG_GAIN = 0.7  # keeps activations finite through all layers


def train_vocabulary(n_vocab, lines=None):
    """A SentencePiece BPE model with the settings of Llama-2's: bytes as fallback, digits apart, text unnormalised.
    `lines` are the corpus unless given."""
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines or CORPUS.read_text(encoding="utf-8").splitlines()), model_writer=proto,
        model_type="bpe", vocab_size=n_vocab, byte_fallback=True, character_coverage=0.985, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
        allow_whitespace_only_pieces=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())


class JsonVocabulary:
    """A tokenizer.json in Llama-2's layout, asked as SentencePiece is: <unk>, <s>, </s>, bytes, then pieces by rank."""

    def __init__(self, path):
        vocab = json.loads(Path(path).read_text(encoding="utf-8"))["model"]["vocab"]
        self.pieces = sorted(vocab, key=vocab.get)

    def vocab_size(self):
        return len(self.pieces)

    def id_to_piece(self, i):
        return self.pieces[i]

    def get_score(self, i):
        if i >= N_SPECIAL and not self.pieces[i].strip("\u2581"):  # spaces alone come from nothing but other spaces
            return -1e9
        return float(min(N_SPECIAL - i, 0))

    def is_unknown(self, i):
        return i == self.unk_id()

    def is_control(self, i):
        return i in (self.bos_id(), self.eos_id())

    def is_byte(self, i):
        return re.fullmatch("<0x[0-9A-F]{2}>", self.pieces[i]) is not None

    def unk_id(self):
        return 0

    def bos_id(self):
        return 1

    def eos_id(self):
        return 2


def read_vocabulary(path):
    if path.endswith(".json"):
        return JsonVocabulary(path)
    return sentencepiece.SentencePieceProcessor(model_file=path)


def piece_type(sp, i):
    """The GGUF type of one SentencePiece piece."""
    if sp.is_unknown(i):
        return PIECE_UNKNOWN
    if sp.is_control(i):
        return PIECE_CONTROL
    return PIECE_BYTE if sp.is_byte(i) else PIECE_NORMAL


def add_vocabulary(w, sp):
    """Write the vocabulary the way llama.cpp's converter writes Llama-2's: BOS is added, EOS is not."""
    ids = range(sp.vocab_size())
    w.add_vocab_size(sp.vocab_size())
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list([sp.id_to_piece(i).encode() for i in ids])
    w.add_token_scores([sp.get_score(i) for i in ids])
    w.add_token_types([piece_type(sp, i) for i in ids])
    w.add_unk_token_id(sp.unk_id())
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)


def add_shape(w, name, file_type, s):
    """Write the keys that describe a model of shape `s`."""
    w.add_name(name)
    w.add_file_type(file_type)
    w.add_context_length(s["n_ctx"])
    w.add_embedding_length(s["n_embd"])
    w.add_block_count(s["n_layer"])
    w.add_feed_forward_length(s["n_ff"])
    w.add_head_count(s["n_head"])
    w.add_head_count_kv(s["n_head_kv"])
    w.add_rope_dimension_count(s["n_embd"] // s["n_head"])
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)


def layer_matrices(s):
    """(part, rows, columns) of one layer; rows are outputs, columns inputs."""
    kv = s["n_embd"] // s["n_head"] * s["n_head_kv"]
    return (("attn_q", s["n_embd"], s["n_embd"]), ("attn_k", kv, s["n_embd"]), ("attn_v", kv, s["n_embd"]),
            ("attn_output", s["n_embd"], s["n_embd"]), ("ffn_gate", s["n_ff"], s["n_embd"]),
            ("ffn_up", s["n_ff"], s["n_embd"]), ("ffn_down", s["n_embd"], s["n_ff"]))


def encode(a, qtype):
    """f32 matrix -> the array GGUFWriter wants for `qtype`: numbers, or one row of block bytes per row."""
    if qtype in (T.F32, T.F16):
        return a.astype(np.float32 if qtype == T.F32 else np.float16)
    q = libgguf.quantize_rows(a, int(qtype))
    q = q if isinstance(q, np.ndarray) else np.frombuffer(q, np.uint8)
    return np.ascontiguousarray(q).view(np.uint8).reshape(a.shape[0], -1)


def write(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_tiny(out, s=TINY, seed=TINY_SEED, types=TINY_TYPES, lines=None):
    """The test model. Its name holds `vicuna`, by which the built-in template is chosen: it carries no template."""
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(out, "llama")
    add_shape(w, "tiny-vicuna-random", FILE_TYPE["q8_0"], s)
    add_vocabulary(w, train_vocabulary(s["n_vocab"], lines))

    def add(name, part, rows, cols, layer=None):
        qtype = types.get(part if layer is None else (layer, part), T.F32)
        a = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(TINY_GAIN.get(part, 1.0) / np.sqrt(cols))
        if part == "output":  # logit 0, far below the best: replies are whole characters and end by length, or by </s>
            a[[i for i in range(N_SPECIAL) if i != 2]] = 0
        w.add_tensor(name, encode(a, qtype), raw_dtype=qtype)

    def add_norm(name):  # not all ones, so that a norm left out or swapped shows
        w.add_tensor(name, rng.uniform(0.5, 1.5, s["n_embd"]).astype(np.float32))

    add("token_embd.weight", "token_embd", s["n_vocab"], s["n_embd"])
    for i in range(s["n_layer"]):
        add_norm(f"blk.{i}.attn_norm.weight")
        add_norm(f"blk.{i}.ffn_norm.weight")
        for part, rows, cols in layer_matrices(s):
            add(f"blk.{i}.{part}.weight", part, rows, cols, layer=i)
    add_norm("output_norm.weight")
    add("output.weight", "output", s["n_vocab"], s["n_embd"])
    write(w)


def big_type(kind, part, layer, layers):
    """The type ggml's own quantiser would choose for this tensor."""
    if part == "output" and kind in ("q4_0", "q4_k_m"):
        return T.Q6_K
    if kind == "q4_k_m" and part in ("attn_v", "ffn_down"):
        if layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2:
            return T.Q6_K
    return BIG_BASE[kind]


def before(ids, ring):
    """The id that each follows in circles of `ring`."""
    return ids // ring * ring + (ids - 1) % ring


def make_7b(out, kind, layers, tokenizer, ring=None):
    """The speed file: each shape is drawn and quantised once, then rolled; for a ring what joins the residual is zero."""
    s, rng, made = BIG | dict(n_layer=layers), np.random.default_rng(0), {}
    w = gguf.GGUFWriter(out, "llama")
    add_shape(w, "random-llama-2-7b-shape", FILE_TYPE[kind], s)
    add_vocabulary(w, read_vocabulary(tokenizer))

    def draw(rows, cols):
        return rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(BIG_GAIN / np.sqrt(cols))

    def add(name, rows, cols, qtype):
        key = (rows, cols, qtype, ring and name.endswith(("attn_output.weight", "ffn_down.weight")))
        if key not in made:
            made[key] = encode(draw(rows, cols) * np.float32(not key[-1]), qtype)
        w.add_tensor(name, np.roll(made[key], int(rng.integers(rows)), axis=0), raw_dtype=qtype)

    def add_ends(name, qtype):
        if not ring:
            return add(name, s["n_vocab"], s["n_embd"], qtype)
        if "ends" not in made:
            made["ends"] = draw(s["n_vocab"], s["n_embd"])
        ids = np.arange(s["n_vocab"])
        rows = ids if name.startswith("token_embd") else before(ids, ring)
        w.add_tensor(name, encode(made["ends"][rows], qtype), raw_dtype=qtype)

    ones = np.ones(s["n_embd"], np.float32)
    add_ends("token_embd.weight", BIG_BASE[kind])
    for i in range(layers):
        w.add_tensor(f"blk.{i}.attn_norm.weight", ones)
        w.add_tensor(f"blk.{i}.ffn_norm.weight", ones)
        for part, rows, cols in layer_matrices(s):
            add(f"blk.{i}.{part}.weight", rows, cols, big_type(kind, part, i, layers))
    w.add_tensor("output_norm.weight", ones)
    add_ends("output.weight", big_type(kind, "output", 0, layers))
    write(w)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = parser.add_subparsers(dest="shape", required=True)
    tiny = shapes.add_parser("tiny", help="the test model, under 1 MB")
    tiny.add_argument("out")
    big = shapes.add_parser("7b", help="the shape of Llama-2-7B")
    big.add_argument("out")
    big.add_argument("--tokenizer", required=True, help="Llama-2's tokenizer.model or tokenizer.json (32,000 pieces)")
    big.add_argument("--kind", choices=BIG_BASE, default="q4_0")
    big.add_argument("--layers", type=int, default=32)
    big.add_argument("--ring", type=int, help="replies run in circles of so many tokens, a divisor of 32,000")
    a = parser.parse_args()
    if a.shape == "tiny":
        make_tiny(a.out)
    else:
        make_7b(a.out, a.kind, a.layers, a.tokenizer, a.ring)
    print(f"{sha256(a.out)}  {Path(a.out).stat().st_size} bytes  {a.out}")


if __name__ == "__main__":
    main()
