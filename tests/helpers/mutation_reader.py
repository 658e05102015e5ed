"""Read mutants of files in forks of one process, which has imported what readers need.

Each line of standard input is a job in JSON: a file to damage, the file to open, how many mutants,
a folder for temporary files, and the seconds after which the fork is ended. Each line of standard
output is how many mutants could be read, or what went wrong.
"""

import gc
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import tracemalloc
import warnings
from pathlib import Path
from typing import Any, NoReturn

warnings.simplefilter("error")

from helpers.mutations import SLACK, mutate  # noqa: E402 - their warnings are errors, too

from i3dzoo import formats  # noqa: E402
from i3dzoo.checkpoints import convert, converter, networks  # noqa: E402
from i3dzoo.checkpoints.checkpoint import check_finite, read_checkpoint  # noqa: E402
from i3dzoo.errors import I3DZooError  # noqa: E402


def _read_mutants(target: Path, opened: Path, count: int) -> int:
    everything = [converter.table(name) for name in converter.names()]
    content = target.read_bytes()
    read = 0
    mutate(content, random.Random(0))  # noqa: S311 - its memory does not count
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(count):
        damaged = mutate(content, random.Random(seed))  # noqa: S311 - seeded damage needs no secrets
        target.write_bytes(damaged)
        print("seed", seed, file=sys.stderr, flush=True)
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        try:
            container = formats.read(opened)
            read += 1
            check_finite("x", container.tensors)
            for network in networks.find_networks({"": container.tensors}, everything):
                convert.network_to_canonical("x", network)
            read_checkpoint(opened)
        except I3DZooError:
            pass
        peak = tracemalloc.get_traced_memory()[1] - start
        assert peak <= 2 * len(damaged) + SLACK, (seed, peak)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 <= 2 * len(content) + SLACK, grown
    return read


def _work(job: dict[str, Any], output: int) -> NoReturn:
    code = 1
    try:
        signal.alarm(int(job["seconds"]))
        os.dup2(output, 2)
        tempfile.tempdir = os.environ["TMPDIR"] = job["folder"]
        read = _read_mutants(Path(job["target"]), Path(job["opened"]), job["count"])
        print(read, file=sys.stderr)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Do the jobs."""
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output:
            gc.freeze()
            child = os.fork()
            if not child:
                _work(json.loads(line), output.fileno())
            _, status = os.waitpid(child, 0)
            output.seek(0)
            text = output.read().decode(errors="replace")
        code = os.waitstatus_to_exitcode(status)
        answer = {"error": f"exit status {code}: {text[-3000:]}"}
        if code == 0:
            answer = {"read": int(text.split()[-1])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
