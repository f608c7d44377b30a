#!/usr/bin/env python3
"""Write tests/golden/quantize.json: what ggml's quantiser makes of values that Rust makes again, and which types
llama.cpp gives to the tensors of a file.

    golden_quantize.py

Blocks come from PyPI libgguf. Types come from `llama_model_quantize` of llama-cpp-python on small files with the names
and row lengths of real models; their blocks are compared with libgguf's on the way, so that the two agree or this
stops. scripts/oracle.sh makes a Python with the packages this needs. The same command writes the same bytes.

Absent: how a block is made, and anything that reads a golden file.
"""
import hashlib
import itertools
import json
import platform
import struct
import tempfile
from importlib.metadata import version
from pathlib import Path

import gguf
import libgguf
import llama_cpp as L
import numpy as np

FILE = Path(__file__).parent.parent / "tests/golden/quantize.json"
T = gguf.GGMLQuantizationType

COUNT, ROW_LEN = 2048, 512  # values of each kind, and of their rows
F = np.float32


class Draw:
    """24 random bits at a time: the upper ones of Knuth's MMIX generator."""

    def __init__(self, seed):
        self.state = seed

    def bits(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return self.state >> 40

    def uniform(self):
        """-1 to 1."""
        return F(self.bits() - 2**23) * F(2**-23)

    def normal(self):
        """Nearly normal with variance 1: twelve uniform numbers added."""
        return F(sum(self.bits() for _ in range(12)) - 6 * 2**24) * F(2**-24)

    def denormal(self):
        bits = self.bits()
        return struct.unpack("<f", struct.pack("<I", bits >> 1 | bits % 2 << 31))[0]


# Value i of a kind, from its own generator, seeded with the position of the kind in this table. All products and sums
# are of f32. Sub-blocks of `ranges` are so unlike that some lose their scale.
KINDS = {
    "normal": lambda d, i: d.normal() * F(0.02),
    "uniform": lambda d, i: d.uniform(),
    "positive": lambda d, i: d.uniform() * F(0.5) + F(1),
    "negative": lambda d, i: d.uniform() * F(0.5) - F(1),
    "sparse": lambda d, i: d.normal() * F(0.02) if d.bits() < 2**20 else F(0),
    "constant": lambda d, i: F(0.3),
    "two": lambda d, i: F(0.7) if d.bits() % 2 else F(-0.7),
    "zeros": lambda d, i: F(0.0) if d.bits() % 2 else F(-0.0),
    "huge": lambda d, i: d.uniform() * F(30000),
    "small": lambda d, i: d.normal() * F(1e-6),
    "smaller": lambda d, i: d.normal() * F(1e-15),
    "smallest": lambda d, i: d.normal() * F(1e-30),
    "denormal": lambda d, i: d.denormal(),
    "outlier": lambda d, i: F(100) if i % 256 == 137 else d.normal() * F(0.02),
    "ties": lambda d, i: F((d.bits() >> 19) - 16) * F(0.125),
    "ranges": lambda d, i: d.uniform() * F(2.0 ** -(3 * (i // 32 % 8))),
}
SHOWN = ("normal", "ranges")  # kinds whose first block is written whole
STORED = (T.F32, T.F16, T.BF16)
BLOCKS = (T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K)

# Names and row lengths of models; few rows, since none looks at them. `ff` is the row length of ffn_down.
MODELS = {
    "llama-2-7b": dict(n_layer=32, n_head=32, n_head_kv=32, n_expert=0, width=4096, ff=11008, tied=False),
    "llama-2-70b": dict(n_layer=80, n_head=64, n_head_kv=8, n_expert=0, width=8192, ff=28672, tied=False),
    "llama-65b": dict(n_layer=80, n_head=64, n_head_kv=64, n_expert=0, width=8192, ff=22016, tied=False),
    "tinyllama": dict(n_layer=22, n_head=32, n_head_kv=4, n_expert=0, width=2048, ff=5632, tied=False),
    "llama-3.2-1b": dict(n_layer=16, n_head=32, n_head_kv=8, n_expert=0, width=2048, ff=8192, tied=True),
    "smollm2-135m": dict(n_layer=30, n_head=9, n_head_kv=3, n_expert=0, width=576, ff=1536, tied=True),
    "stories": dict(n_layer=5, n_head=6, n_head_kv=6, n_expert=0, width=288, ff=768, tied=False),
    "narrow": dict(n_layer=2, n_head=2, n_head_kv=1, n_expert=0, width=48, ff=128, tied=False),
    "mixtral": dict(n_layer=32, n_head=32, n_head_kv=8, n_expert=8, width=4096, ff=14336, tied=False),
    "four-experts": dict(n_layer=4, n_head=4, n_head_kv=2, n_expert=4, width=256, ff=512, tied=False),
}
ROWS = 2
FILE_TYPES = {
    "f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_1": 9, "q5_0": 8, "q4_k_m": 15, "q4_1": 3,
    "q4_0": 2,
}

QUIET = L.llama_log_callback(lambda level, text, user: None)  # kept in a name: ctypes must not collect it
L.llama_log_set(QUIET, None)


def quantize(values, qtype):
    """libgguf's blocks of rows, as bytes."""
    out = np.empty(len(values) * libgguf.row_size(qtype, values.shape[1]), np.uint8)
    libgguf.quantize_rows_into_raw(qtype, np.ascontiguousarray(values, F), out, *values.shape)
    return out.tobytes()


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def block_rows():
    for seed, (kind, value) in enumerate(KINDS.items()):
        draw = Draw(seed)
        values = np.array([value(draw, i) for i in range(COUNT)], F).reshape(-1, ROW_LEN)
        yield {"values": kind, "type": "f32", "blocks": digest(values.tobytes())}
        for qtype in STORED[1:] + BLOCKS:
            blocks = quantize(values, qtype)
            row = {"values": kind, "type": qtype.name.lower(), "blocks": digest(blocks)}
            if qtype in BLOCKS:
                back = libgguf.dequantize_rows(np.frombuffer(blocks, np.uint8).reshape(len(values), -1), qtype)
                row["back"] = digest(back.astype("<f4").tobytes())
            if kind in SHOWN:
                row["first"] = blocks[:gguf.GGML_QUANT_SIZES[qtype][1]].hex()
            yield row


def tensors(s):
    """(name, row length) of every tensor; none for a vector."""
    yield "token_embd.weight", s["width"]
    for i in range(s["n_layer"]):
        parts = {"attn_norm": None, "attn_q": s["width"], "attn_k": s["width"], "attn_v": s["width"],
                 "attn_output": s["width"], "ffn_norm": None}
        ffn = {"ffn_gate": s["width"], "ffn_up": s["width"], "ffn_down": s["ff"]}
        if s["n_expert"]:
            ffn = {"ffn_gate_inp": s["width"]} | {f"{part}_exps": n for part, n in ffn.items()}
        for part, n in (parts | ffn).items():
            yield f"blk.{i}.{part}.weight", n
    yield "output_norm.weight", None
    if not s["tied"]:
        yield "output.weight", s["width"]


def write_model(path, s):
    """An f16 file with the names and row lengths of `s`; returns its values as llama.cpp reads them."""
    w, rng, values = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0), {}
    w.add_file_type(FILE_TYPES["f16"])
    w.add_context_length(64)
    w.add_embedding_length(s["width"])
    w.add_block_count(s["n_layer"])
    w.add_feed_forward_length(s["ff"])
    w.add_head_count(s["n_head"])
    w.add_head_count_kv(s["n_head_kv"])
    w.add_layer_norm_rms_eps(1e-5)
    if s["n_expert"]:
        w.add_expert_count(s["n_expert"])
        w.add_expert_used_count(2)
    for name, n in tensors(s):
        shape = (s["width"],) if n is None else (s["n_expert"], ROWS, n) if "_exps" in name else (ROWS, n)
        precise = n is None or "ffn_gate_inp" in name  # as llama.cpp's own converter writes them
        a = (rng.standard_normal(shape, F) * F(0.02)).astype(F if precise else np.float16)
        w.add_tensor(name, a)
        values[name] = a.astype(F)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return values


def requantize(source, out, file_type):
    params = L.llama_model_quantize_default_params()
    params.ftype, params.nthread = file_type, 1
    if L.llama_model_quantize(str(source).encode(), str(out).encode(), params) != 0:
        raise SystemExit(f"llama.cpp cannot quantise {source} to {file_type}")


def mix_rows():
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source.gguf", Path(folder) / "out.gguf"
        for model, s in MODELS.items():
            values = write_model(source, s)
            for name, number in FILE_TYPES.items():
                requantize(source, out, number)
                reader = gguf.GGUFReader(out)
                assert reader.fields["general.file_type"].contents() == number
                assert reader.fields["general.quantization_version"].contents() == 2
                types = {t.name: t.tensor_type for t in reader.tensors}
                for t in reader.tensors:
                    rows = values[t.name].reshape(-1, values[t.name].shape[-1])
                    assert quantize(rows, t.tensor_type) == t.data.tobytes(), f"{model} {name} {t.name}: bytes differ"
                yield {"model": model, "file_type": name, "types": runs(s, types)}


def runs(s, types):
    """Types by name; those of a part of the layers as [type, layers in a row] in order."""
    layers = {}
    for name, n in tensors(s):
        kind = ".".join("*" if part.isdigit() else part for part in name.split("."))
        layers.setdefault(kind, []).append(types[name].name.lower())
    return {
        kind: [[t, len(list(group))] for t, group in itertools.groupby(of)] if "*" in kind else of[0]
        for kind, of in layers.items()}


def lines(rows):
    return "[\n" + ",\n".join("    " + json.dumps(row) for row in rows) + "\n  ]"


def main():
    packages = ("libgguf", "llama-cpp-python", "gguf", "numpy")
    data = {
        "command": "scripts/golden_quantize.py",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "about": "`blocks`: rows of 512 of the 2048 values of a kind in each type; `blocks` and `back` are the first 16"
                 " digits of the sha256 of the blocks and of what they read as (little-endian f32), `first` is the"
                 " first block. `mixes`: types of the tensors of a file type, those of layers as [type, layers in a row].",
        "models": MODELS,
        "mixes": list(mix_rows()),
        "blocks": list(block_rows()),
    }
    fields = (f"  {json.dumps(k)}: {lines(v) if isinstance(v, list) else json.dumps(v)}" for k, v in data.items())
    text = "{\n" + ",\n".join(fields) + "\n}\n"
    assert json.loads(text) == data, "what is written is what was meant"
    FILE.write_text(text, encoding="utf-8")
    print(f"tests/golden/quantize.json: {len(text)} bytes")


if __name__ == "__main__":
    main()
