"""The perplexity of a text by llama.cpp, in the windows of its own tool: what `llamero perplexity` is compared with.

    $(sh scripts/oracle.sh) scripts/llama_cpp_perplexity.py MODEL TEXT [WINDOWS] [WINDOW]

Prints one JSON object with the fields of `llamero perplexity --json` that both have.
"""

import json
import math
import sys

import llama_cpp
import numpy as np


def main(model, text, windows=None, window="512"):
    window = int(window)
    llm = llama_cpp.Llama(model, n_ctx=window, n_batch=window, logits_all=True, verbose=False)
    adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(llama_cpp.llama_model_get_vocab(llm.model)))
    with open(text, "rb") as file:
        ids = llm.tokenize(file.read(), add_bos=True, special=True)
    count = min(len(ids) // window, int(windows or 1 << 30))
    losses = []
    for start in range(0, count * window, window):
        cut = ids[start : start + window]
        if adds_bos:
            cut[0] = llm.token_bos()
        llm.reset()
        llm.eval(cut)
        logits = np.asarray(llm.scores[:window], dtype=np.float64)
        for at in range(window // 2, window - 1):
            row = logits[at]
            top = row.max()
            losses.append(top + math.log(np.exp(row - top).sum()) - row[cut[at + 1]])
    mean = sum(losses) / len(losses)
    print(json.dumps({"perplexity": math.exp(mean), "scored": len(losses), "windows": count, "version": llama_cpp.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
