"""Damage files reproducibly by a seed, and read them in a child process."""

import atexit
import functools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

_EDGE = 1 << 12  # bytes at both ends of a large file, where headers are
SLACK = 100 * 2**20  # bytes of memory that reading may take besides twice the file


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Return a damaged copy of a file."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 12))):
        at = _place(len(data), generator)
        how = generator.randrange(6)
        if how == 0:
            data[at] ^= 1 << generator.randrange(8)
        elif how == 1:
            data[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
        elif how == 2:  # a boundary number
            size = generator.choice((2, 4, 8))
            value = generator.choice((0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1), 1 << 40))
            data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
        elif how == 3:  # a piece copied from elsewhere
            start, size = generator.randrange(len(data)), generator.randrange(1, 40)
            data[at : at + size] = data[start : start + size]
        elif how == 4 and len(data) > 20:
            del data[at : at + generator.randrange(1, 9)]
        elif len(data) > 20:
            del data[at:]
        data = data or bytearray(b"\0")
    return bytes(data)


def _place(size: int, generator: random.Random) -> int:
    """Return a random position; half of those in a large file are near its ends."""
    if size < 100 * _EDGE or generator.random() < 0.5:
        return generator.randrange(size)
    return (generator.randrange(2 * _EDGE) - _EDGE) % size


def read_mutants(folder: Path, target: Path, opened: Path, count: int) -> int:
    """Damage `target` and read `opened` in a child process; return how many could be read.

    `opened` may be the index of a damaged data file; `folder` is for temporary files.
    """
    job = {
        "target": str(target),
        "opened": str(opened),
        "count": count,
        "folder": str(folder),
        "seconds": 60 + count * (2 + target.stat().st_size / 5e7),
    }
    reader = _reader()
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(json.dumps(job) + "\n")
    reader.stdin.flush()
    answer = json.loads(reader.stdout.readline())
    assert "read" in answer, answer["error"]
    return int(answer["read"])


@functools.cache
def _reader() -> subprocess.Popen[str]:
    """Start `mutation_reader`, for all tests of this process."""
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    reader = subprocess.Popen(
        [sys.executable, "-m", "helpers.mutation_reader"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    atexit.register(_end, reader)
    return reader


def _end(reader: subprocess.Popen[str]) -> None:
    with reader:  # waits for it, once it has no input
        assert reader.stdin is not None
        reader.stdin.close()
