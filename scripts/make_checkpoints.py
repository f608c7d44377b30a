#!/usr/bin/env python3
"""Write checkpoints the way their publishers do, from the weights of a GGUF file; each by the program it is native to.

    make_checkpoints.py folders SOURCE.gguf OUT [--dtype f16] [KIND ...]
    make_checkpoints.py fixtures

`folders` writes OUT/KIND for each kind of FOLDERS below (all of them by default), then OUT/greedy.json: what Hugging
Face transformers generates from OUT/hf-safetensors. Every folder is read back by the program that wrote it and compared
bit by bit. `fixtures` makes tests/fixtures/checkpoints again. scripts/oracle.sh checkpoints makes a Python with the
packages this needs.

A reader judged by files of our own writer would only agree with itself, so no byte of a weight file is laid out here:
safetensors, PyTorch, PaddlePaddle, gguf, sentencepiece, tokenizers, transformers and peft do that. What is written here
are names, transpositions and the row order of queries and keys. Absent: trained weights, and vocabularies that the
GGUF does not hold.
"""
import argparse
import contextlib
import inspect
import json
import logging
import math
import os
import re
import shutil
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
warnings.filterwarnings("ignore", message="No ccache found")

import gguf
import numpy as np
import paddle
import paddle.framework.io
import paddle.framework.io_utils
import peft
import safetensors.torch
import sentencepiece
import tokenizers
import torch
import transformers
from gguf.quants import dequantize, quantize
from huggingface_hub import save_torch_state_dict
from sentencepiece import sentencepiece_model_pb2

import make_model

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests/fixtures/checkpoints"
TORCH = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
CONFIG_DTYPE = {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}
GGUF_TYPE = {t: getattr(gguf.GGMLQuantizationType, t.upper()) for t in TORCH}
FILE_TYPE = {"f32": 0, "f16": 1, "bf16": 32}  # general.file_type, as llama.cpp numbers them
N_SHARDS = 2
BIG_SHARE = 4  # the Paddle files with slices cut arrays above this part of the largest one
GREEDY_TOKENS, GREEDY_TOKENS_FIXTURES = 48, 16
MIN_LEAD = 0.05  # greedy text is written up to the first token that leads the second best by less
PROMPTS = ("The capital of France is", "Once upon a time there was", "2 + 2 =", "Die Katze sitzt auf")

# The model of the fixtures: the smallest with more layers than one, grouped queries and all pieces of a byte fallback.
# Its words are those of the corpus in small letters, so that 29 pieces do beside the special ones.
SMALL = dict(n_vocab=288, n_embd=32, n_ff=32, n_layer=2, n_head=2, n_head_kv=1, n_ctx=256)
SMALL_SEED = 15  # of 150 tried, the one whose greedy text, merged adapter or not, is the clearest

# GGUF part -> (name in Hugging Face's layout, whether it is a linear layer; Paddle keeps those transposed)
LAYER_PARTS = {
    "attn_norm": ("input_layernorm", False), "ffn_norm": ("post_attention_layernorm", False),
    "attn_q": ("self_attn.q_proj", True), "attn_k": ("self_attn.k_proj", True),
    "attn_v": ("self_attn.v_proj", True), "attn_output": ("self_attn.o_proj", True),
    "ffn_gate": ("mlp.gate_proj", True), "ffn_up": ("mlp.up_proj", True), "ffn_down": ("mlp.down_proj", True),
}
MODEL_PARTS = {
    "token_embd": ("model.embed_tokens", False), "output_norm": ("model.norm", False), "output": ("lm_head", True),
}


def hf_name(name):
    """`blk.0.attn_q.weight` -> (`model.layers.0.self_attn.q_proj.weight`, whether it is linear)."""
    part = name.removesuffix(".weight")
    if not part.startswith("blk."):
        hf, linear = MODEL_PARTS[part]
        return f"{hf}.weight", linear
    _, layer, part = part.split(".")
    hf, linear = LAYER_PARTS[part]
    return f"model.layers.{layer}.{hf}.weight", linear


def rotate_half_rows(w, n_head):
    """Rows of queries or keys from GGUF's order (pairs side by side) to Hugging Face's (first halves, then second)."""
    return w.reshape(n_head, -1, 2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


def pair_rows(w, n_head):
    """The inverse of `rotate_half_rows`."""
    return w.reshape(n_head, 2, -1, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


class Source:
    """A GGUF of the Llama family: its metadata, and its weights in Hugging Face's layout rounded to `dtype`."""

    def __init__(self, path, dtype):
        reader = gguf.GGUFReader(path)
        self.dtype, self.fields = dtype, reader.fields
        self.weights = {}  # Hugging Face name -> torch tensor [rows, columns] or [n]
        for t in reader.tensors:
            w = dequantize(t.data, t.tensor_type).astype(np.float32)
            if t.name.endswith(("attn_q.weight", "attn_k.weight")):
                w = rotate_half_rows(w, self.head_count(t.name))
            self.weights[hf_name(t.name)[0]] = torch.from_numpy(np.ascontiguousarray(w)).to(TORCH[dtype])
        self.gguf_names = [t.name for t in reader.tensors]

    def get(self, key, default=None):
        return self.fields[key].contents() if key in self.fields else default

    def head_count(self, name):
        return self.get("llama.attention.head_count" + ("_kv" if "attn_k" in name else ""))

    @property
    def tied(self):
        return "lm_head.weight" not in self.weights

    @property
    def is_bpe(self):
        return self.get("tokenizer.ggml.model") == "gpt2"

    def tokens(self):
        return self.get("tokenizer.ggml.tokens")

    def token(self, role):
        i = self.get(f"tokenizer.ggml.{role}_token_id")
        return None if i is None else self.tokens()[i]

    def config(self):
        """config.json, with the keys and in the manner of the files beside Vicuna's weights."""
        heads = self.get("llama.attention.head_count")
        return {
            "_name_or_path": self.get("general.name"),
            "architectures": ["LlamaForCausalLM"],
            "bos_token_id": self.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.get("tokenizer.ggml.eos_token_id"),
            "hidden_act": "silu",
            "hidden_size": self.get("llama.embedding_length"),
            "initializer_range": 0.02,
            "intermediate_size": self.get("llama.feed_forward_length"),
            "max_position_embeddings": self.get("llama.context_length"),
            "model_type": "llama",
            "num_attention_heads": heads,
            "num_hidden_layers": self.get("llama.block_count"),
            "num_key_value_heads": self.get("llama.attention.head_count_kv", heads),
            "pad_token_id": self.get("tokenizer.ggml.padding_token_id", 0),
            "pretraining_tp": 1,
            "rms_norm_eps": float(f"{self.get('llama.attention.layer_norm_rms_epsilon'):.6g}"),
            "rope_scaling": None,
            "rope_theta": self.get("llama.rope.freq_base", 10000.0),
            "tie_word_embeddings": self.tied,
            "torch_dtype": CONFIG_DTYPE[self.dtype],
            "transformers_version": transformers.__version__,
            "use_cache": True,
            "vocab_size": self.get("llama.vocab_size"),
        }

    def generation_config(self):
        """generation_config.json with Vicuna's sampling values."""
        ids = {f"{role}_token_id": self.config()[f"{role}_token_id"] for role in ("bos", "eos", "pad")}
        return {"_from_model_config": True} | ids | {
            "max_length": self.get("llama.context_length"), "temperature": 0.9, "top_p": 0.6,
            "transformers_version": transformers.__version__}


# --- tokenizers ---------------------------------------------------------------------------------------------------


def sentencepiece_model(source):
    """The .model file of a `llama` vocabulary: the pieces are the GGUF's, the settings those of Llama-2's own."""
    m = sentencepiece_model_pb2.ModelProto()
    kinds, scores = source.get("tokenizer.ggml.token_type"), source.get("tokenizer.ggml.scores")
    for piece, score, kind in zip(source.tokens(), scores, kinds):
        m.pieces.add(piece=piece, score=score, type=kind)  # GGUF numbers the kinds as SentencePiece does
    t, n = m.trainer_spec, m.normalizer_spec
    t.model_type, t.vocab_size, t.byte_fallback = t.BPE, len(m.pieces), True
    t.unk_id, t.bos_id, t.eos_id, t.pad_id = 0, 1, 2, -1
    n.name, n.add_dummy_prefix, n.remove_extra_whitespaces, n.escape_whitespaces = "identity", True, False, True
    return m.SerializeToString()


def bpe_tokenizer(source):
    """tokenizer.json of a byte-level BPE vocabulary with SmolLM2's splitting: digits apart, then GPT-2's pattern."""
    assert source.get("tokenizer.ggml.pre") == "smollm", source.get("tokenizer.ggml.pre")
    vocab = {token: i for i, token in enumerate(source.tokens())}
    merges = [tuple(merge.split(" ")) for merge in source.get("tokenizer.ggml.merges")]
    t = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    split = tokenizers.pre_tokenizers
    t.pre_tokenizer = split.Sequence([split.Digits(individual_digits=True), split.ByteLevel(add_prefix_space=False)])
    t.decoder = tokenizers.decoders.ByteLevel()
    t.add_special_tokens(control_tokens(source))
    return t


def control_tokens(source):
    kinds = source.get("tokenizer.ggml.token_type")
    return [token for token, kind in zip(source.tokens(), kinds) if kind == make_model.PIECE_CONTROL]


def added_token(content):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def special_tokens_map(source):
    roles = {f"{role}_token": source.token(role) for role in ("bos", "eos", "unk")}
    pad = source.token("padding") or source.token("unknown")
    named = {role: added_token(token) for role, token in roles.items() if token}
    return named | {"unk_token": added_token(source.token("unknown")), "pad_token": pad}


def tokenizer_config(source):
    if not source.is_bpe:
        special = {f"{role}_token": {"__type": "AddedToken"} | added_token(source.token(gguf_role))
                   for role, gguf_role in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"))}
        return special | {
            "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False, "legacy": False,
            "model_max_length": source.get("llama.context_length"), "pad_token": None, "padding_side": "right",
            "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer"}
    ids = {token: i for i, token in enumerate(source.tokens())}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(ids[t]): added_token(t) | {"special": True} for t in control_tokens(source)},
        "additional_special_tokens": [source.token("bos"), source.token("eos")],
        "bos_token": source.token("bos"), "chat_template": source.get("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False, "eos_token": source.token("eos"),
        "model_max_length": source.get("llama.context_length"), "pad_token": source.token("padding"),
        "tokenizer_class": "GPT2Tokenizer", "unk_token": source.token("unknown"),
        "vocab_size": len(source.tokens())}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_companions(source, out, sentencepiece_name="tokenizer.model", config=None):
    """Everything of a folder but the weights."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", config or source.config())
    write_json(out / "generation_config.json", source.generation_config())
    write_json(out / "special_tokens_map.json", special_tokens_map(source))
    write_json(out / "tokenizer_config.json", tokenizer_config(source))
    if source.is_bpe:
        bpe_tokenizer(source).save(str(out / "tokenizer.json"))
    else:
        (out / sentencepiece_name).write_bytes(sentencepiece_model(source))


# --- GGUF ---------------------------------------------------------------------------------------------------------


def write_gguf(source, out, weights=None, dtype=None):
    """The same weights as a GGUF of the source's metadata; norms in f32, as llama.cpp wants them."""
    weights, dtype = weights or source.weights, dtype or source.dtype
    w = gguf.GGUFWriter(out, "llama")
    for key, field in source.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        w.add_key_value(key, field.contents(), field.types[0], sub_type)
    w.add_file_type(FILE_TYPE[dtype])
    for name in source.gguf_names:
        a = weights[hf_name(name)[0]].float().numpy()
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            a = pair_rows(a, source.head_count(name))
        kind = GGUF_TYPE[dtype if a.ndim == 2 else "f32"]
        w.add_tensor(name, quantize(np.ascontiguousarray(a), kind), raw_dtype=kind)
    make_model.write(w)


def write_gguf_file(source, out):
    out.mkdir(parents=True, exist_ok=True)
    write_gguf(source, out / f"{source.dtype}.gguf")


# --- Hugging Face -------------------------------------------------------------------------------------------------


def shard_bytes(weights):
    """A shard size that makes N_SHARDS of `weights`, unless one tensor alone is larger."""
    total = sum(w.numel() * w.element_size() for w in weights.values())
    return max(math.ceil(total * 1.1 / N_SHARDS), max(w.numel() * w.element_size() for w in weights.values()))


def write_hf(source, out, safe):
    """Shards and their index by huggingface_hub, which transformers saves with. The .bin shards also hold the table of
    RoPE frequencies, as those written before mid-2023 do."""
    write_companions(source, out)
    weights = dict(source.weights)
    if not safe:
        head_dim = source.get("llama.rope.dimension_count")
        freqs = 1.0 / source.get("llama.rope.freq_base") ** (torch.arange(0, head_dim, 2).float() / head_dim)
        for layer in range(source.get("llama.block_count")):
            weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = freqs.clone()
    save_torch_state_dict(weights, out, max_shard_size=shard_bytes(weights), safe_serialization=safe,
                          metadata={"format": "pt"} if safe else None)
    pattern, load = ("*.safetensors", safetensors.torch.load_file) if safe else ("*.bin", torch.load)
    check_same(source, {k: w for file in out.glob(pattern) for k, w in load(file).items()})


def check_same(source, got):
    """Fails unless `got` holds the source's weights, bit by bit."""
    for name, w in source.weights.items():
        assert torch.equal(got[name].view(torch.uint8), w.view(torch.uint8)), f"{name} differs when read back"


# --- PaddlePaddle -------------------------------------------------------------------------------------------------


def paddle_name(name):
    return name.replace("model.", "llama.", 1) if name.startswith("model.") else name


def as_numpy(w):
    """A torch tensor as numpy; bfloat16 as its bits in uint16, which is how Paddle hands it out too."""
    return w.view(torch.uint16).numpy() if w.dtype == torch.bfloat16 else w.numpy()


def paddle_arrays(source):
    """PaddleNLP name -> array. Linear weights are transposed views, as PaddleNLP's converter makes them: numpy pickles
    such a view in column-major order."""
    arrays = {}
    for gguf_name in source.gguf_names:
        name, linear = hf_name(gguf_name)
        a = as_numpy(source.weights[name])
        arrays[paddle_name(name)] = a.T if linear else a
    return arrays


def paddle_tensors(source):
    """The same as Paddle tensors, which lie row by row; each gets the parameter name that a layer would give it."""
    tensors = {}
    for i, (name, a) in enumerate(paddle_arrays(source).items()):
        t = paddle.to_tensor(np.ascontiguousarray(a))
        tensors[name] = t.view("bfloat16") if source.dtype == "bf16" else t
        tensors[name].name = f"{name.split('.')[-2]}_{i}.w_0"
    return tensors


@contextlib.contextmanager
def slices_above(n_bytes):
    """Lets paddle.save cut arrays into slices above `n_bytes` rather than 1 GB: its own function with that number."""
    io, io_utils = paddle.framework.io, paddle.framework.io_utils
    text, limit = inspect.getsource(io_utils._unpack_saved_dict), "2**30 - 1"
    assert text.count(limit) == 1, "paddle's slicing has another form now"
    scope, old = dict(vars(io_utils)), io._unpack_saved_dict
    exec(text.replace(limit, str(n_bytes)), scope)
    io._unpack_saved_dict = scope["_unpack_saved_dict"]
    try:
        yield
    finally:
        io._unpack_saved_dict = old


def paddle_config(source, **more):
    config = source.config()
    return config | {"dtype": config.pop("torch_dtype"), "paddlenlp_version": None} | more


def paddle_folder(source, out, config=None):
    write_companions(source, out, "sentencepiece.bpe.model", config or paddle_config(source))
    return out / "model_state.pdparams"


def check_paddle(source, *files):
    """Fails unless paddle.load gives the source's weights."""
    got = {k: a for file in files for k, a in paddle.load(str(file), return_numpy=True).items()}
    for name, a in paddle_arrays(source).items():
        assert got[name].dtype == a.dtype and np.array_equal(got[name], a), f"{name} differs when read back"


def write_paddle(source, out, protocol=4, big=False):
    """A state dictionary of tensors: Paddle turns it into arrays and adds `StructuredToParameterName@@`."""
    file, tensors = paddle_folder(source, out), paddle_tensors(source)
    largest = max(t.numel().item() * t.element_size() for t in tensors.values())
    with slices_above(largest // BIG_SHARE) if big else contextlib.nullcontext():
        paddle.save(tensors, str(file), protocol=protocol)
    check_paddle(source, file)


def write_paddle_numpy(source, out, protocol=4):
    """A dictionary of numpy arrays, linear weights in column-major order."""
    file = paddle_folder(source, out)
    paddle.save(paddle_arrays(source), str(file), protocol=protocol)
    check_paddle(source, file)


def write_paddle_mixed(source, out, protocol=4):
    """Tensors beside something else: Paddle then writes each as a pair of its name and its array."""
    file = paddle_folder(source, out)
    paddle.save(paddle_tensors(source) | {"epoch": 3}, str(file), protocol=protocol)
    check_paddle(source, file)


def write_paddle_llava(source, out):
    """With the vision parts that PaddleMIX's LLaVA keeps under the same prefix."""
    config = paddle_config(source, architectures=["LlavaLlamaForCausalLM"], model_type="llava", use_mm_proj=True,
                           mm_hidden_size=8, mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-2)
    file, rng = paddle_folder(source, out, config), np.random.default_rng(0)
    vision = {"llama.mm_projector.0.weight": (8, 8), "llama.mm_projector.0.bias": (8,),
              "llama.vision_tower.vision_tower.vision_model.embeddings.position_ids": (1, 4)}
    extra = {name: paddle.to_tensor(rng.standard_normal(shape).astype(np.float32)) for name, shape in vision.items()}
    paddle.save(paddle_tensors(source) | extra, str(file))
    check_paddle(source, file)


def write_paddle_sharded(source, out, save=None):
    """Shards with the index that PaddleNLP writes beside them."""
    base, tensors = paddle_folder(source, out), paddle_tensors(source)
    names, total = list(tensors), sum(a.nbytes for a in paddle_arrays(source).values())
    cut, files, where = math.ceil(len(names) / N_SHARDS), [], {}
    for i in range(N_SHARDS):
        file = base.with_name(f"model_state-{i + 1:05d}-of-{N_SHARDS:05d}.pdparams")
        mine = names[i * cut:(i + 1) * cut]
        (save or (lambda i, part, file: paddle.save(part, str(file))))(i, {k: tensors[k] for k in mine}, file)
        where |= dict.fromkeys(mine, file.name)
        files.append(file)
    write_json(out / "model_state.pdparams.index.json", {"metadata": {"total_size": total}, "weight_map": where})
    check_paddle(source, *files)


# --- adapters and deltas ------------------------------------------------------------------------------------------


def hf_model(weights, source):
    """The model in transformers, computing in f32."""
    config = transformers.LlamaConfig(**source.config() | {"torch_dtype": torch.float32})
    model = transformers.LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict({k: w.float() for k, w in weights.items()}, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return model


def lora_model(source, **options):
    """The model with an adapter of small random numbers; other than zero in both of its matrices."""
    torch.manual_seed(0)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 16, "lora_dropout": 0.05, "task_type": "CAUSAL_LM",
                                "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"]} | options)
    model = peft.get_peft_model(hf_model(source.weights, source), config)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = torch.randn_like(p) * 0.3 / p.shape[1] ** 0.5
    return model


def write_lora(source, out, safe=True, whole=True, n_tokens=GREEDY_TOKENS, **options):
    """A PEFT adapter, what the merged model generates, and (`whole`) merged.gguf, the merged weights in f32."""
    model = lora_model(source, **options)
    model.save_pretrained(str(out), safe_serialization=safe, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # an empty form
    config = json.loads((out / "adapter_config.json").read_text())
    write_json(out / "adapter_config.json", config | {"target_modules": sorted(config["target_modules"])})
    merged = model.merge_and_unload()
    write_json(out / "greedy.json", greedy(merged, source, n_tokens))
    if whole:
        write_gguf(source, out / "merged.gguf", merged.state_dict(), dtype="f32")


def write_delta(source, out):
    """base + delta = target, each sum rounded to the source's type as FastChat's apply_delta rounds it."""
    rng, dtype = torch.Generator().manual_seed(0), TORCH[source.dtype]
    base = {k: (w.float() * (1 + 0.1 * torch.randn(w.shape, generator=rng))).to(dtype)
            for k, w in source.weights.items()}
    delta = {k: w - base[k] for k, w in source.weights.items()}
    target = {k: base[k] + delta[k] for k in delta}
    for name, weights in (("base", base), ("delta", delta), ("target", target)):
        write_companions(source, out / name)
        save_torch_state_dict(weights, out / name, max_shard_size=shard_bytes(weights),
                              safe_serialization=name != "delta")
    write_gguf(source, out / "target.gguf", target)


# --- what the folders must say ------------------------------------------------------------------------------------


def greedy(model, source, n_tokens=GREEDY_TOKENS):
    """Per prompt: its ids, the tokens that transformers generates greedily as long as they lead by MIN_LEAD, and the
    least lead among those."""
    tokenizer = hf_tokenizer(source)
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt)
        tokens, least = [], math.inf
        for token, lead in leading(model, ids, n_tokens):
            if lead < MIN_LEAD:
                break
            tokens.append(token)
            least = min(least, lead)
        rows.append({"prompt": prompt, "ids": ids, "tokens": tokens, "least_lead": round(least, 4)})
    return rows


def leading(model, ids, n_tokens):
    """Yields each greedy token and the lead of its logit."""
    cache, feed = None, ids
    for _ in range(n_tokens):
        with torch.no_grad():
            out = model(torch.tensor([feed]), past_key_values=cache, use_cache=True)
        (first, second), (token, _) = (t.tolist() for t in out.logits[0, -1].topk(2))
        yield token, first - second
        cache, feed = out.past_key_values, [token]


def hf_tokenizer(source):
    """text -> ids, with BOS where the vocabulary says so."""
    if source.is_bpe:
        return lambda text: bpe_tokenizer(source).encode(text).ids
    sp = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(source))
    return lambda text: [sp.bos_id()] + sp.encode(text)


def write_greedy(source, out, n_tokens=GREEDY_TOKENS):
    """Loads hf-safetensors as anybody would, so that names, layout and tokenizer are judged by transformers."""
    folder = str(out / "hf-safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for row in (rows := greedy(model, source, n_tokens)):
        assert transformers.AutoTokenizer.from_pretrained(folder)(row["prompt"])["input_ids"] == row["ids"], row
    write_json(out / "greedy.json", rows)


FOLDERS = {
    "gguf": write_gguf_file,
    "hf-safetensors": lambda s, out: write_hf(s, out, safe=True),
    "hf-torch": lambda s, out: write_hf(s, out, safe=False),
    "paddle": write_paddle,
    "paddle-p2": lambda s, out: write_paddle(s, out, protocol=2),
    "paddle-p3": lambda s, out: write_paddle(s, out, protocol=3),
    "paddle-numpy": write_paddle_numpy,
    "paddle-numpy-p2": lambda s, out: write_paddle_numpy(s, out, protocol=2),
    "paddle-numpy-p3": lambda s, out: write_paddle_numpy(s, out, protocol=3),
    "paddle-mixed": write_paddle_mixed,
    "paddle-mixed-p2": lambda s, out: write_paddle_mixed(s, out, protocol=2),
    "paddle-big-p2": lambda s, out: write_paddle(s, out, protocol=2, big=True),
    "paddle-big-p3": lambda s, out: write_paddle(s, out, protocol=3, big=True),
    "paddle-sharded": write_paddle_sharded,
    "paddle-llava": write_paddle_llava,
    "lora": write_lora,
    "lora-bin": lambda s, out: write_lora(s, out, safe=False),
    "lora-rs": lambda s, out: write_lora(s, out, use_rslora=True, alpha_pattern={"down_proj": 4}),
    "delta": write_delta,
}


def write_folders(source_path, out, dtype, kinds):
    source = Source(source_path, dtype)
    for kind in kinds or FOLDERS:
        shutil.rmtree(out / kind, ignore_errors=True)
        FOLDERS[kind](source, out / kind)
        print(out / kind, flush=True)
    if "hf-safetensors" in (kinds or FOLDERS):
        write_greedy(source, out)


# --- fixtures -----------------------------------------------------------------------------------------------------


def small_letters():
    """The ASCII lines of the corpus, letters made small and the rest left out."""
    lines = make_model.CORPUS.read_text(encoding="utf-8").splitlines()
    kept = (re.sub("[^a-z ]", "", line.lower()) for line in lines if line.isascii())
    return [line for line in kept if line]


def small_source(seed=SMALL_SEED):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.gguf"
        make_model.make_tiny(file, SMALL, seed, {}, small_letters())
        return Source(file, "f16")


def write_old_paddle(source, out):
    """Shards as older Paddle wrote them: slices in protocol 2, then column-major arrays in protocol 3."""
    arrays = paddle_arrays(source)

    def save(i, part, file):
        if i == 0:
            with slices_above(max(t.numel().item() for t in part.values()) // BIG_SHARE):
                paddle.save(part, str(file), protocol=2)
        else:
            paddle.save({k: arrays[k] for k in part}, str(file), protocol=3)

    write_paddle_sharded(source, out, save)


def write_fixtures(out):
    source = small_source()
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("hf-safetensors", "hf-torch", "paddle", "paddle-p2", "lora"):
        shutil.rmtree(out / kind, ignore_errors=True)
    write_gguf(source, out / "f16.gguf")
    write_hf(source, out / "hf-safetensors", safe=True)
    write_hf(source, out / "hf-torch", safe=False)
    write_paddle(source, out / "paddle")
    write_old_paddle(source, out / "paddle-p2")
    write_lora(source, out / "lora", whole=False, n_tokens=GREEDY_TOKENS_FIXTURES, r=2)
    write_greedy(source, out, GREEDY_TOKENS_FIXTURES)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    folders = commands.add_parser("folders", help="checkpoint folders with the weights of a GGUF")
    folders.add_argument("source")
    folders.add_argument("out", type=Path)
    folders.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(FOLDERS)}; all by default")
    folders.add_argument("--dtype", choices=TORCH, default="f16")
    commands.add_parser("fixtures", help=f"{FIXTURES.relative_to(ROOT)} again")
    a = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    if a.command == "folders":
        write_folders(a.source, a.out, a.dtype, a.kinds)
    else:
        write_fixtures(FIXTURES)


if __name__ == "__main__":
    main()
