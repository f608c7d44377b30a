#!/usr/bin/env python3
"""Check that one model says the same whatever format it is published in.

    "$(scripts/oracle.sh checkpoints)" scripts/check_formats.py [MODEL.gguf] [--folder FOLDER]

The model (SmolLM2 from `llamero pull` unless given) is unpacked to f16 and written by safetensors, torch.save,
paddle.save and the gguf package; make_checkpoints.py says how. `llamero chat` then answers a few prompts greedily from
each. All replies must be equal, and must begin with what Hugging Face transformers generates from the safetensors
folder, as long as each token there leads by a margin. Takes about ten minutes on two cores. FOLDER keeps what is
written (some 2 GB) and is used again as it is; a temporary one is removed.

Absent: formats of other models than the Llama family's, and any tolerance: greedy text is equal or it is not.
"""
import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import make_checkpoints as checkpoints
import torch
import transformers

LLAMERO = Path(__file__).parent / "llamero"
KINDS = ("gguf", "hf-safetensors", "hf-torch", "paddle", "paddle-p2", "paddle-numpy", "paddle-sharded")
PROMPTS = ("Name three rivers", "Why is the sky blue?", "Write two lines about rain")
MAX_TOKENS = 48


def llamero(*args):
    """Standard output of a llamero command; its progress and errors stay visible."""
    return subprocess.run(["sh", LLAMERO, *map(str, args)], stdout=subprocess.PIPE, check=True, text=True).stdout


def reply(model, prompt):
    out = llamero("chat", "--model", model, "--temperature", 0, "--max-tokens", MAX_TOKENS, "--quiet", "--json", prompt)
    return json.loads(out.splitlines()[-1])["text"]


def reference(folder):
    """Per prompt the beginning of the reply that transformers is sure of."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {prompt: sure_text(model, tokenizer, prompt) for prompt in PROMPTS}


def sure_text(model, tokenizer, prompt):
    messages = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    tokens = []
    for token, lead in checkpoints.leading(model, ids, MAX_TOKENS):
        if lead < checkpoints.MIN_LEAD or token == tokenizer.eos_token_id:
            break
        tokens.append(token)
    assert tokens, f"transformers is not sure of a single token after {prompt!r}"
    return tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def failures(path, expected, first):
    """What is wrong with the replies from `path`; `first` collects those of the first format."""
    for prompt, beginning in expected.items():
        text = reply(path, prompt)
        if not text.startswith(beginning):
            yield f"{prompt!r}: expected a reply that begins {beginning!r}, got {text!r}"
        elif first.setdefault(prompt, text) != text:
            yield f"{prompt!r}: expected {first[prompt]!r} as from {KINDS[0]}, got {text!r}"


def check(source, folder):
    """Prints one line per format; whether all agree."""
    missing = [kind for kind in KINDS if not (folder / kind).exists()]
    if missing:
        checkpoints.write_folders(source, folder, "f16", missing)
    expected, first, agree = reference(folder / "hf-safetensors"), {}, True
    for kind in KINDS:
        path = folder / kind if kind != "gguf" else folder / kind / "f16.gguf"
        wrong = list(failures(path, expected, first))
        print(f"{'ok  ' if not wrong else 'FAIL'} {kind}", *wrong, sep="\n     ", flush=True)
        agree = agree and not wrong
    return agree


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--folder", type=Path)
    a = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    source = a.model or llamero("pull").strip()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(not check(source, a.folder or Path(temporary)))


if __name__ == "__main__":
    main()
