#!/usr/bin/env python3
"""Write small samples of every pickle that checkpoints come in, and what is in them.

    make_pickles.py numpy|torch|paddle [OUT]

OUT is tests/fixtures/pickles unless given. `numpy` writes numpy1-p0.pkl to numpy1-p5.pkl, or numpy2-…, by the numpy
that runs it: version 2 names its modules otherwise, and both kinds are published. `torch` and `paddle` write the
layouts of torch.save and paddle.save. Each command also writes KIND.json, per file and tensor: the element type as
numpy names it, the shape, and the values row by row, little-endian, in hexadecimal, bfloat16 as the bits; the six files
of a numpy hold the same and share one entry. The Python of scripts/oracle.sh checkpoints has what is needed; for numpy
1, run `numpy` in an environment with numpy==1.26.4.

The same command writes the same bytes, but for legacy.bin, which holds addresses. Absent: hostile pickles, which the
tests assemble themselves.
"""
import argparse
import json
import pickle
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent.parent / "tests/fixtures/pickles"
SLICE_BYTES = 16  # paddle.save cuts arrays above this into slices here


def described(a):
    """What a reader must find in array `a`."""
    little = a.astype(a.dtype.newbyteorder("<")) if a.dtype.itemsize > 1 else a
    return {"dtype": little.dtype.str, "shape": list(a.shape), "hex": little.tobytes(order="C").hex()}


def counting(shape, dtype):
    """Numbers that differ from their neighbours in each byte."""
    return (np.arange(np.prod(shape, dtype=int)) * 0.75 - 2).reshape(shape).astype(dtype)


def numpy_arrays():
    a = counting((2, 3), "<f4")
    return {
        "f16": counting((2, 3), "<f2"), "f32": a, "f64": counting((3,), "<f8"),
        "bf16 bits": np.arange(0x3F80, 0x3F86, dtype="<u2").reshape(3, 2),
        "i64": np.array([-1, 2**40], "<i8"), "i8": np.array([-128, 127], "i1"), "bool": np.array([True, False]),
        "column major": np.asfortranarray(counting((2, 3), "<f2")), "transposed view": a.T,
        "column major, three axes": np.asfortranarray(counting((2, 3, 4), "<f2")),
        "every second": counting((8,), "<f4")[::2], "one row": counting((1, 4), "<f2"),
        "no axes": np.array(1.5, "<f4"), "no elements": np.zeros((0, 4), "<f2"),
        "big-endian f16": counting((2, 3), ">f2"), "big-endian f32": counting((3,), ">f4"),
        "high bytes": np.frombuffer(bytes(range(0x78, 0x88)), "<u2").reshape(2, 4),
        "ünï": np.float32([1, 2]), "the same again": a,
    }


def write_numpy(out):
    """One file per protocol: a dictionary of arrays with things beside them that are no arrays."""
    arrays, major = numpy_arrays(), np.__version__.split(".")[0]
    beside = {"epoch": 3, "large": 2**70, "negative": -5, "rate": 1e-4, "none": None, "flag": True, "empty": {},
              "list": [1, [2, "two"]], "tuple": (1, 2, 3, 4), "scalar": np.float32(0.5)}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (out / f"numpy{major}-p{protocol}.pkl").write_bytes(pickle.dumps(arrays | beside, protocol=protocol))
    return {"numpy*-p*.pkl": arrays}


def torch_array(t):
    import torch
    t = t.detach().contiguous()
    return t.view(torch.uint16).numpy() if t.dtype == torch.bfloat16 else t.numpy()


def write_torch(out):
    import torch
    t = torch.from_numpy(counting((3, 4), "<f4"))
    names = ("float16", "bfloat16", "float32", "float64", "int64", "uint8", "bool")
    kinds = {name: t.to(getattr(torch, name)) for name in names}
    layer = torch.nn.Linear(3, 2)
    layer.load_state_dict({"weight": t[:2, :3].clone(), "bias": t[2, :2].clone()})
    f16 = t.half()
    files = {
        "dtypes.bin": kinds | {"no axes": torch.tensor(1.5), "no elements": torch.zeros(0, 4)},
        "state_dict.bin": layer.state_dict(),  # an OrderedDict whose `_metadata` comes by BUILD
        "parameters.bin": dict(layer.named_parameters()),
        "views.bin": {"whole": f16, "transposed": f16.T, "rows": f16[1:], "columns": f16[:, 1:3],
                      "every second": f16[:, ::2], "repeated": f16[0].expand(3, 4), "shared": f16},
        "nested.bin": {"epoch": 3, "model": {"w": f16}, "names": ["w"]},
    }
    for name, value in files.items():
        torch.save(value, out / name)
    for protocol in (3, 4, 5):
        torch.save({"w": f16}, out / f"protocol{protocol}.bin", pickle_protocol=protocol)
        files[f"protocol{protocol}.bin"] = {"w": f16}
    torch.save({"w": f16}, out / "legacy.bin", _use_new_zipfile_serialization=False)  # before PyTorch 1.6
    torch.save({"w": t.to(torch.float8_e4m3fn)}, out / "float8.bin")
    files |= {"nested.bin": {"model.w": f16}, "legacy.bin": {"w": f16}}
    return {file: {k: torch_array(v) for k, v in tensors.items()} for file, tensors in files.items()}


def write_paddle(out):
    import paddle
    from make_checkpoints import slices_above
    a, b = counting((4, 3), "<f2"), counting((5,), "<f4")
    bits = np.arange(0x3F80, 0x3F86, dtype="<u2")
    tensors = {"a": paddle.to_tensor(a), "b": paddle.to_tensor(b), "bf16": paddle.to_tensor(bits).view("bfloat16")}
    for name, tensor in tensors.items():
        tensor.name = f"{name}.w_0"
    arrays = {"a": a, "b": b, "bf16": bits}
    files = {}
    for protocol in (2, 3, 4):
        for kind, value in (("state", tensors), ("mixed", tensors | {"epoch": 3}), ("arrays", arrays)):
            file = f"{kind}-p{protocol}.pdparams"
            paddle.save(value, str(out / file), protocol=protocol)
            files[file] = arrays
    for protocol in (2, 3):
        with slices_above(SLICE_BYTES):
            paddle.save(tensors, str(out / f"slices-p{protocol}.pdparams"), protocol=protocol)
        files[f"slices-p{protocol}.pdparams"] = arrays
    dense = paddle.framework.core.DenseTensor()
    dense.set(a, paddle.CPUPlace())
    paddle.save({"epoch": 3, "a": [dense]}, str(out / "dense.pdparams"))  # a call of `eval`: to be refused
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("numpy", "torch", "paddle"))
    parser.add_argument("out", type=Path, nargs="?", default=OUT)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    files = {"numpy": write_numpy, "torch": write_torch, "paddle": write_paddle}[a.kind](a.out)
    text = {file: {k: described(v) for k, v in arrays.items()} for file, arrays in files.items()}
    lines = ",\n".join(f"{json.dumps(file)}: {json.dumps(arrays, ensure_ascii=False)}" for file, arrays in text.items())
    (a.out / f"{a.kind}.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
