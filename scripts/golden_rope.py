#!/usr/bin/env python3
"""Write tests/golden/rope.json: rotation frequencies as Hugging Face's transformers compute them.

    golden_rope.py

Needs `pip install torch transformers` in the versions the file names; the same versions write the same bytes. The
numbers come from transformers' own ROPE_INIT_FUNCTIONS, which compute in f32. Absent: anything that rotates.
"""
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

OUT = Path(__file__).parent.parent / "tests/golden/rope.json"
LLAMA3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
YARN = dict(rope_type="yarn", factor=16.0, original_max_position_embeddings=4096)
# name, head_dim, rope_theta, max_position_embeddings, rope_scaling, seq_len
CASES = [
    ("plain", 64, 1e4, 4096, dict(rope_type="default"), None),
    ("linear", 32, 1e4, 4096, dict(rope_type="linear", factor=8.0), None),
    ("dynamic, within", 64, 1e4, 4096, dict(rope_type="dynamic", factor=2.0), 4096),
    ("dynamic, one more", 64, 1e4, 4096, dict(rope_type="dynamic", factor=2.0), 4097),
    ("dynamic, far", 64, 1e6, 2048, dict(rope_type="dynamic", factor=4.0), 30000),
    ("llama 3.1", 128, 5e5, 131072, LLAMA3 | dict(factor=8.0), None),
    ("llama 3.2", 64, 5e5, 131072, LLAMA3 | dict(factor=32.0), None),
    ("yarn", 128, 1e4, 65536, YARN, None),
    ("yarn, narrow ramp", 64, 1e6, 65536, YARN | dict(beta_fast=2.0, beta_slow=1.9), None),
    ("yarn, short context", 32, 1e4, 256, YARN | dict(factor=4.0, original_max_position_embeddings=64), None),
    ("yarn, no stretch", 32, 1e4, 4096, YARN | dict(factor=1.0), None),
    ("yarn, mscale", 32, 1e4, 65536, YARN | dict(mscale=0.707, mscale_all_dim=1.2), None),
]


def row(name, head_dim, theta, length, scaling, seq_len):
    config = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim, rope_theta=theta,
                         max_position_embeddings=length, rope_scaling=scaling)
    inv_freq, attention_factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, torch.device("cpu"), seq_len)
    return dict(name=name, head_dim=head_dim, rope_theta=theta, max_position_embeddings=length, rope_scaling=scaling,
                seq_len=seq_len, attention_factor=attention_factor, inv_freq=[float(f"{f:.8g}") for f in inv_freq])


def main():
    head = {
        "command": "scripts/golden_rope.py",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers")},
        "about": "Per case: numbers of a config.json, and what transformers' ROPE_INIT_FUNCTIONS make of them for a text"
                 " of `seq_len` tokens, in f32. `tolerance` is relative.",
        "tolerance": 1e-5,
    }
    fields = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    cases = ",\n".join("    " + json.dumps(row(*case)) for case in CASES)
    OUT.write_text("{\n" + ",\n".join(fields) + f',\n  "cases": [\n{cases}\n  ]\n}}\n')
    print(f"tests/golden/rope.json: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
