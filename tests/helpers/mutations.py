"""Damage files reproducibly by a seed, and read them in a child process."""

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


# The job is one argument in JSON.
CHILD = """
import json, resource, sys, tracemalloc, warnings
from pathlib import Path
import random
warnings.simplefilter("error")
import numpy, ml_dtypes
from i3dzoo import formats
from i3dzoo.checkpoints import convert, networks
from i3dzoo.checkpoints import converter
from i3dzoo.checkpoints.checkpoint import check_finite, read_checkpoint
from i3dzoo.errors import I3DZooError
sys.path.insert(0, sys.argv[1])
from mutations import SLACK, mutate

everything = [converter.table(name) for name in converter.names()]
job = json.loads(sys.argv[2])
target = Path(job["target"])
content = target.read_bytes()
read = 0
mutate(content, random.Random(0))  # its memory does not count
tracemalloc.start()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for seed in range(job["count"]):
    damaged = mutate(content, random.Random(seed))
    target.write_bytes(damaged)
    print(seed, file=sys.stderr, flush=True)
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    try:
        container = formats.read(Path(job["open"]))
        read += 1
        check_finite("x", container.tensors)
        parts = {"": container.tensors}
        for network in networks.find_networks(parts, everything):
            convert.network_to_canonical("x", network)
        read_checkpoint(job["open"])
    except I3DZooError:
        pass
    peak = tracemalloc.get_traced_memory()[1] - start
    assert peak <= 2 * len(damaged) + SLACK, (seed, peak)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown * 1024 <= 2 * len(content) + SLACK, grown
print(read)
"""


def read_mutants(folder: Path, target: Path, opened: Path, count: int) -> int:
    """Damage `target` and read `opened` in a child process; return how many could be read.

    `opened` may be the index of a damaged data file; `folder` is for temporary files.
    """
    job = {"target": str(target), "open": str(opened), "count": count}
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent), json.dumps(job)],
        capture_output=True,
        text=True,
        timeout=60 + count * (2 + target.stat().st_size / 5e7),
        check=False,
        env={**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return int(result.stdout)
