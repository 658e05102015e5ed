"""Damaged files of every format: only our own errors leave the readers, and memory stays bounded.

Each format's small but whole files are mutated by a seeded generator: flipped bits, overwritten
and moved pieces, boundary numbers, cuts. `I3DZOO_FUZZ=100000` runs as many mutants instead.
The mutants are read in a child process, so that a crash or a hang is a failure and not the end.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from i3dzoo import formats
from i3dzoo.arrays import Array
from i3dzoo.errors import I3DZooError
from i3dzoo.formats._protobuf import encode_bytes, encode_varint

from .mutations import mutate

COUNT = int(os.environ.get("I3DZOO_FUZZ", "3000"))
TENSORS: dict[str, Array] = {
    "conv3d/one/0": np.arange(24, dtype="f4").reshape(2, 3, 4, 1, 1),
    "conv3d/two/0": np.arange(5, dtype="f2"),
    "conv3d/two/1": np.zeros((), "i8"),
}


def _writer(format_name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"x{formats.FORMATS[format_name]}"
        tensors = TENSORS
        if format_name == "keras":  # layers and weights, without classes
            tensors = {name.partition("/")[2]: array for name, array in TENSORS.items()}
        formats.write(format_name, path, tensors, {"i3dzoo": "{}"})
        return path

    return write


def _torch(folder: Path, zipped: bool, whole: bool) -> Path:
    path = folder / "x.pt"
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    content = model if whole else {"state_dict": model.state_dict(), "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def _onnx(folder: Path) -> Path:
    """Write a graph of one node and two initializers, by hand."""
    graph = encode_bytes(1, encode_bytes(1, b"a") + encode_bytes(2, b"b") + b"\x22\x08Identity")
    for name, array in (("a", np.ones(6, "f4")), ("c", np.zeros(2, "i8"))):
        kind = 1 if array.dtype == "f4" else 7
        tensor = b"\x08" + encode_varint(array.size) + b"\x10" + encode_varint(kind)
        graph += encode_bytes(
            5, tensor + encode_bytes(8, name.encode()) + encode_bytes(9, bytes(array))
        )
    path = folder / "x.onnx"
    path.write_bytes(b"\x08\x08" + encode_bytes(7, graph))
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    **{name: _writer(name) for name in formats.FORMATS if name != "onnx"},
    "onnx": _onnx,
    "torch zip": lambda folder: _torch(folder, True, False),
    "torch legacy": lambda folder: _torch(folder, False, False),
    "torch model": lambda folder: _torch(folder, False, True),
}


# Reads mutants as the test wrote them down: one line of JSON with seeds, file and kind.
CHILD = """
import json, resource, sys, tracemalloc, warnings
from pathlib import Path
import random
warnings.simplefilter("error")
import numpy, ml_dtypes
from i3dzoo import convert, formats, tables
from i3dzoo.checkpoint import check_finite
from i3dzoo.errors import I3DZooError
sys.path.insert(0, sys.argv[1])
from mutations import SLACK, mutate

everything = [tables.table(name) for name in tables.names()]
job = json.loads(sys.argv[2])
target = Path(job["target"])
content = target.read_bytes()
read = 0
tracemalloc.start()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for seed in range(job["first"], job["last"]):
    damaged = mutate(content, random.Random(seed))
    target.write_bytes(damaged)
    print(seed, file=sys.stderr, flush=True)
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    try:
        container = formats.read(Path(job["open"]))
        read += 1
        check_finite("x", container.tensors)
        convert.detect("x", container.tensors, everything)
    except I3DZooError:
        pass
    peak = tracemalloc.get_traced_memory()[1] - start
    assert peak <= 2 * len(damaged) + SLACK, (seed, peak)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown * 1024 <= 2 * len(content) + SLACK, grown
print(read)
"""


def _run(folder: Path, target: Path, opened: Path, first: int, count: int) -> int:
    """Read mutants of a file in a child process; return how many were still whole."""
    job = {"target": str(target), "open": str(opened), "first": first, "last": first + count}
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent), json.dumps(job)],
        capture_output=True,
        text=True,
        timeout=60 + count / 20,
        check=False,
        env={**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return int(result.stdout)


@pytest.mark.parametrize("kind", MAKERS)
def test_mutants(kind: str, tmp_path: Path) -> None:
    """No mutant crashes, hangs, takes more memory than it may, or leaves a file behind."""
    opened = MAKERS[kind](tmp_path)
    formats.read(opened)  # the file itself is whole
    files = sorted(tmp_path.iterdir())
    targets = [file for file in files if ".data-" not in file.name]
    for target in targets:
        _run(tmp_path, target, opened, 0, -(-COUNT // len(MAKERS)))
    assert sorted(tmp_path.iterdir()) == files


def test_there_are_enough_mutants() -> None:
    """CI reads at least two thousand."""
    assert COUNT >= 2000


@settings(max_examples=150, deadline=None, database=None)
@given(
    head=st.sampled_from(
        [
            b"",
            b"PK\x03\x04",
            b"\x80\x02",
            b"\x80\x04",
            b"\x89HDF\r\n\x1a\n\0",
            b"\x08\x07:",
            b"\0" * 8,
        ]
    ),
    tail=st.binary(max_size=300),
)
def test_any_bytes(head: bytes, tail: bytes) -> None:
    """Bytes of any kind behind the beginning of any format give an error of ours or tensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(head + tail)
        with contextlib.suppress(I3DZooError):
            formats.read(path)


@settings(max_examples=60, deadline=None, database=None)
@given(text=st.text(max_size=200))
def test_any_json_header(text: str) -> None:
    """A safetensors header of any text gives an error of ours."""
    raw = ("{" + text).encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(len(raw).to_bytes(8, "little") + raw)
        with pytest.raises(I3DZooError):
            formats.read(path)


def test_mutations_do_damage() -> None:
    """The generator gives other bytes, the same for the same seed."""
    content = bytes(range(200))
    mutants = {mutate(content, random.Random(seed)) for seed in range(100)}  # noqa: S311 - seeded damage needs no secrets
    assert len(mutants) > 80
    assert mutate(content, random.Random(7)) == mutate(content, random.Random(7))  # noqa: S311 - seeded damage needs no secrets
