"""Measure a dataset of full size, from files to batches: time, memory, open files.

This prepares a folder with `i3dzoo prepare hmdb51` in a child process and loads all its clips
twice with workers, and measures the resident memory and the open files of all processes. It fails
if a clip cannot be read, or if memory or open files grow from the start of the first epoch to the
end of the second:

    i3dzoo prepare generated full --splits testTrainMulti_7030_splits --per-class all
    python benchmarks/dataset_scale.py full [--workers 2] [--json results.json]
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.video import TRAIN, VideoDataset, epoch_batches, load_batches

SPEC = Input(resize=56, crop=48, frames=16, fps=None)


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    pids = [pid]
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread or a process that has ended since
            for child in listed.read_text().split():
                pids += tree(int(child))
    return pids


def usage() -> tuple[float, int]:
    """Return megabytes (what is shared counts in part) and open files of the process tree."""
    memory = files = 0
    for pid in tree(os.getpid()):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            memory += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except (OSError, StopIteration):
            continue
    return memory / 1024, files


def prepare(source: Path, out: Path) -> dict[str, float]:
    """Run the command to its end, watching."""
    start, peak, most = time.perf_counter(), 0.0, 0
    command = [sys.executable, "-m", "i3dzoo", "prepare", "hmdb51", str(source), str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            memory, files = usage()
            peak, most = max(peak, memory), max(most, files)
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"failed with status {process.returncode}: {' '.join(command)}")
    return {"seconds": time.perf_counter() - start, "peak_megabytes": peak, "open_files": most}


def epochs(out: Path, workers: int) -> dict[str, float]:
    """Load all clips twice; measure memory and open files early and late."""
    data = VideoDataset(out, SPEC, sampling=TRAIN, on_bad_video="skip")
    batches = [(epoch, b) for epoch in range(2) for b in epoch_batches(len(data), 16, 0, epoch)]
    bad = clips = 0
    marks = []
    start = time.perf_counter()
    for step, batch in enumerate(load_batches(data, batches, workers=workers)):
        bad, clips = bad + len(batch.bad), clips + len(batch)
        if step in (20, len(batches) - 10):
            marks.append(usage())
    seconds = time.perf_counter() - start
    return {
        "clips_per_second": clips / seconds,
        "clips": clips,
        "bad": bad,
        "megabytes_early": marks[0][0],
        "megabytes_late": marks[-1][0],
        "open_files_early": marks[0][1],
        "open_files_late": marks[-1][1],
    }


def check(result: dict[str, float]) -> None:
    """Stop with an error where something leaks."""
    if result["bad"]:
        raise SystemExit(f"{result['bad']} clips are bad")
    if result["megabytes_late"] > 1.2 * result["megabytes_early"]:
        raise SystemExit("memory grows with the number of clips")
    if result["open_files_late"] > result["open_files_early"] + 20:  # pipes come and go
        raise SystemExit("files are left open")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.source.parent) as folder:
        out = Path(folder, "out")
        result = {
            "prepare": prepare(arguments.source, out),
            "again": prepare(arguments.source, out),
        }
        result["two epochs"] = epochs(out, arguments.workers)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load}")
    for name, numbers in result.items():
        words = ", ".join(f"{key} {value:,.1f}" for key, value in numbers.items())
        print(f"  {name}: {words}")
    check(result["two epochs"])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
