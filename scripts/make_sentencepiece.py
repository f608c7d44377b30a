#!/usr/bin/env python3
"""Write the vocabularies that tests read, and the ids that the programs they come from give.

    make_sentencepiece.py fixtures                  tests/fixtures/tokenizers/
    make_sentencepiece.py golden                    tests/golden/lines.*.json, hf.*.json
    make_sentencepiece.py llama2 TOKENIZER.model    tests/golden/lines.llama2.json, hf.llama2.json

Needs the packages of requirements-tokenizers.txt. The same command writes the same bytes.

The vocabularies are trained here on tests/fixtures/corpus.txt, which is ours, so that every clone has models of each
kind: `sp-bpe` as Llama-2's, `sp-unigram` as T5's, `sp-unigram-bytes` (unigram with bytes for what is unknown) and
`sp-bpe-suffix` (spaces behind words, no bytes, pieces that are built but not given out). `metaspace.json` and
`byte-level.json` are files of the tokenizers package: one shaped as Llama-2's, one as Llama-3's.

The lines are made by a generator that core-rs/tests/vocabularies.rs has too, so that they need no file: words of the
corpus, characters of many scripts, controls, runs of spaces, what normalisation changes, and texts that look like
tokens. A golden file has a hash of the ids for every 8 lines, and the ids themselves for one line in 256. `llama2` does
the same with a vocabulary that is not ours to publish: only ids are written.

`hf.*.json` are whole prompts, encoded by transformers' slow LlamaTokenizer with `legacy` and without.
"""
import argparse
import io
import json
import platform
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb2
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaTokenizer, LlamaTokenizerFast

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests/fixtures/tokenizers"
GOLDEN = ROOT / "tests/golden"
CORPUS = (ROOT / "tests/fixtures/corpus.txt").read_text(encoding="utf-8")
PROMPTS = json.loads((ROOT / "tests/fixtures/vicuna_prompts.json").read_text(encoding="utf-8"))

N_LINES, PER_HASH, PER_ROW = 10240, 8, 256
# First and last character; every line is mostly of one of these.
SCRIPTS = [
    (0x61, 0x7A), (0xC0, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x58F), (0x5D0, 0x5EA), (0x620, 0x6D3),
    (0x904, 0x94D), (0x985, 0x9CD), (0xB85, 0xBCD), (0xC05, 0xC4D), (0xE01, 0xE4E), (0x10A0, 0x10FF), (0x1200, 0x137C),
    (0x1780, 0x17D2), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x4FFF), (0xAC00, 0xAFFF), (0x1F300, 0x1F64F),
    (0x13A0, 0x13F5), (0x1820, 0x1878),
]
# What normalisation changes: full-width forms, ligatures, superscripts, combining marks, jamo, compatibility forms.
CHANGED = [(0xFF01, 0xFF9D), (0xFB00, 0xFB06), (0xFE70, 0xFEFC), (0x2070, 0x209C), (0x300, 0x345), (0x1100, 0x1175),
           (0x3300, 0x33FF), (0xFDF0, 0xFDFB), (0x2100, 0x214F), (0xF900, 0xFA10)]
SPACES = [" ", "  ", "   ", "      ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2003", "\u200b", "\u2581", ""]
TEXTS = ["<tool>", "<tool", "</s>", "<s>", "<unk>", "<0x41>", "<0x0A>", "\u2581the", "\u2581\u2581", "12345", "3.14",
         "...", "!?", "http://a.b/c?d=e", "it's", "WE'LL", "\ufeff", "\u200d", "\U000e0041", "\ufffd", "e\u0301",
         "\U0010fffd", "\u2028", "<tool><tool>", "the<tool>the"]


def lines():
    """The lines, by a linear congruential generator of 64 bits whose upper half is used."""
    state, words = 7, CORPUS.split()

    def below(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % n

    def char(first, last):
        return chr(first + below(last - first + 1))

    def part(script):
        kind = below(16)
        if kind < 6:
            return words[below(len(words))]
        if kind < 11:
            return "".join(char(*script) for _ in range(1 + below(8)))
        if kind == 11:
            return "".join(char(*CHANGED[below(len(CHANGED))]) for _ in range(1 + below(4)))
        if kind == 12:
            return char(0, 0x20) if below(4) else char(0x7F, 0xA0)
        if kind == 13:
            return TEXTS[below(len(TEXTS))]
        if kind == 14:
            return char(0x20, 0x7E) * (1 + below(6))
        return char(*SCRIPTS[below(len(SCRIPTS))])

    for i in range(N_LINES):
        script, out = SCRIPTS[i % len(SCRIPTS)], []
        for _ in range(below(14)):
            out.append(part(script))
            out.append(" " if below(3) else SPACES[below(len(SPACES))])
        yield "".join(out)


def fnv(hash_, number):
    """FNV-1a over the four bytes of a number, in little-endian order."""
    for byte in number.to_bytes(4, "little"):
        hash_ = (hash_ ^ byte) * 0x01000193 % 2**32
    return hash_


def golden(name, command, about, encode):
    """Hashes of all lines and ids of some."""
    hashes, rows, hash_, n_ids = [], [], 0x811C9DC5, 0
    for i, line in enumerate(lines()):
        ids = encode(line)
        n_ids += len(ids)
        for number in [*ids, 2**32 - 1]:
            hash_ = fnv(hash_, number)
        if i % PER_ROW == 0:
            rows.append([i, ids])
        if i % PER_HASH == PER_HASH - 1:
            hashes.append(f"{hash_:08x}")
            hash_ = 0x811C9DC5
    chunks = [" ".join(hashes[at:at + 12]) for at in range(0, len(hashes), 12)]
    save(f"lines.{name}.json", {"command": f"scripts/make_sentencepiece.py {command}", "versions": versions(),
                                "about": about, "ids": n_ids, "hashes": chunks, "rows": rows})


def versions():
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("sentencepiece", "tokenizers", "transformers")}


def save(file, data):
    """One field per line, and one row per line of the lists."""
    dump = lambda value: json.dumps(value, ensure_ascii=True)
    rows = lambda value: "[\n" + ",\n".join("    " + dump(row) for row in value) + "\n  ]"
    fields = [f"  {dump(k)}: {rows(v) if isinstance(v, list) else dump(v)}" for k, v in data.items()]
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / file).write_text("{\n" + ",\n".join(fields) + "\n}\n", encoding="utf-8")
    print(f"tests/golden/{file}: {(GOLDEN / file).stat().st_size} bytes")


def train(**options):
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines()), model_writer=proto, num_threads=1, minloglevel=2,
        unk_id=0, bos_id=1, eos_id=2, **options)
    return proto.getvalue()


LLAMA = dict(model_type="bpe", byte_fallback=True, split_digits=True, normalization_rule_name="identity",
             remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, pad_id=-1)


def suffix_model():
    """A fifth of the pieces is unused: what they were joined from is given out."""
    model = pb2.ModelProto.FromString(train(
        model_type="bpe", vocab_size=400, normalization_rule_name="identity", treat_whitespace_as_suffix=True,
        character_coverage=0.99, pad_id=3, user_defined_symbols=["<tool>", "the"]))
    for piece in [p for p in model.pieces if p.type == p.NORMAL][::5]:
        piece.type = piece.UNUSED
    return model.SerializeToString(deterministic=True)


def make_fixtures():
    FIXTURES.mkdir(exist_ok=True)
    put = lambda name, data: print(f"{name}: {(FIXTURES / name).write_bytes(data)} bytes")
    put("sp-bpe.model", train(**LLAMA, vocab_size=640, character_coverage=0.985, user_defined_symbols=["<tool>"]))
    put("sp-unigram.model", train(
        model_type="unigram", vocab_size=500, normalization_rule_name="nmt_nfkc", character_coverage=0.99,
        pad_id=3, user_defined_symbols=["<tool>", "the"], hard_vocab_limit=False))
    put("sp-unigram-bytes.model", train(**LLAMA | dict(model_type="unigram"), vocab_size=560, character_coverage=0.985,
                                        hard_vocab_limit=False))
    put("sp-bpe-suffix.model", suffix_model())
    put("metaspace.json", metaspace().encode())
    put("byte-level.json", byte_level().encode())


def metaspace():
    """As transformers converts a model of Llama-2's settings."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.model"
        file.write_bytes(train(**LLAMA, vocab_size=560, character_coverage=0.985))
        return LlamaTokenizerFast(vocab_file=str(file), legacy=True, add_prefix_space=True).backend_tokenizer.to_str()


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")


def byte_level():
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    t = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    t.train_from_iterator(CORPUS.splitlines(), trainer)
    t.add_special_tokens(special)
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair=None,
                                      special_tokens=[(special[0], t.token_to_id(special[0]))])])
    return t.to_str()


SP_ABOUT = ("Ids by sentencepiece's own encode, without begin and end. `hashes`: FNV-1a of 32 bits over the ids of 8"
            " lines, four bytes each, 0xffffffff after each line. `rows`: the number of a line, and its ids.")
JSON_ABOUT = SP_ABOUT.replace("sentencepiece's own encode", "the tokenizers package, special tokens removed from it")


def make_golden():
    for name in ("sp-bpe", "sp-unigram", "sp-unigram-bytes", "sp-bpe-suffix"):
        sp = sentencepiece.SentencePieceProcessor(model_file=str(FIXTURES / f"{name}.model"))
        golden(name, "golden", SP_ABOUT, sp.encode)
    for name in ("metaspace", "byte-level"):
        data = json.loads((FIXTURES / f"{name}.json").read_text())
        data["added_tokens"] = []
        t = tokenizers.Tokenizer.from_str(json.dumps(data))
        golden(name, "golden", JSON_ABOUT, lambda line: t.encode(line, add_special_tokens=False).ids)
    make_hf("sp-bpe", "golden", str(FIXTURES / "sp-bpe.model"))


def make_hf(name, command, model):
    """Prompts with `<s>` in front, by both rules."""
    slow = {legacy: LlamaTokenizer(vocab_file=model, legacy=legacy) for legacy in (True, False)}
    rows = [{"name": p["name"], "legacy": slow[True].encode(p["text"]), "new": slow[False].encode(p["text"])}
            for p in PROMPTS]
    about = ("Ids of tests/fixtures/vicuna_prompts.json by transformers' LlamaTokenizer: `legacy` puts a space in front"
             " of text after special tokens too, `new` only at the very start.")
    save(f"hf.{name}.json", {"command": f"scripts/make_sentencepiece.py {command}", "versions": versions(),
                             "about": about, "prompts": rows})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("fixtures", help="train the vocabularies")
    kinds.add_parser("golden", help="ids with the vocabularies trained here")
    kinds.add_parser("llama2", help="ids with Llama-2's own vocabulary").add_argument("tokenizer")
    a = parser.parse_args()
    warnings.simplefilter("ignore")
    if a.kind == "fixtures":
        make_fixtures()
    elif a.kind == "golden":
        make_golden()
    else:
        sp = sentencepiece.SentencePieceProcessor(model_file=a.tokenizer)
        golden("llama2", f"llama2 {Path(a.tokenizer).name}", SP_ABOUT, sp.encode)
        make_hf("llama2", f"llama2 {Path(a.tokenizer).name}", a.tokenizer)


if __name__ == "__main__":
    main()
