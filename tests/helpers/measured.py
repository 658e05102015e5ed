"""Read files in processes of their own, and measure what that takes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Each file is read in a fork, which inherits the imports. The job is one argument in JSON.
_CHILD = """
import json, os, resource, sys, time
from pathlib import Path
from i3dzoo import formats
from i3dzoo.formats.torch_snapshot import read_snapshot
from i3dzoo.errors import I3DZooError
import numpy, h5py

def usage():
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]

def read(path):
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    before = sum(u.ru_utime + u.ru_stime for u in usage())
    try:
        (read_snapshot if path.name.startswith("step-") else formats.read)(path)
        message = ""
    except I3DZooError as error:
        message = str(error)
    seconds = sum(u.ru_utime + u.ru_stime for u in usage()) - before
    return [message, seconds, max(u.ru_maxrss for u in usage()) * 1024]

for name in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0, name
        continue
    print(json.dumps(read(Path(name))), flush=True)
    os._exit(0)
"""


@dataclass(frozen=True)
class Measured:
    """What reading one file took: the message (empty if it was read), seconds of CPU, bytes."""

    message: str
    seconds: float
    memory: int


def measure(paths: list[Path]) -> list[Measured]:
    """Read files, those named `step-*` as training snapshots."""
    result = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps([str(path) for path in paths])],
        capture_output=True,
        text=True,
        timeout=60 + 20 * len(paths),
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [Measured(*json.loads(line)) for line in result.stdout.splitlines()]
