"""Time conversions as whole processes: i3dzoo and TensorFlow, and every pair of layouts.

    python benchmarks/convert.py [--runs 7] [--json results.json] [--only pairs|tensorflow]

`tensorflow` converts DeepMind's checkpoint to safetensors with `i3dzoo convert` and with
TensorFlow, in alternating runs on the same files; it needs the extra `tensorflow`. `pairs`
converts the genuine weights from every layout to every other. Memory is the peak of the resident
set, and that peak minus the one of a process that only imports the same modules.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TENSORFLOW_ROUTE = """
import sys
import numpy as np
import tensorflow as tf
from safetensors.numpy import save_file

reader = tf.train.load_checkpoint(sys.argv[1])
tensors = {}
for name in reader.get_variable_to_shape_map():
    array = reader.get_tensor(name)
    if array.ndim == 5:
        array = np.ascontiguousarray(array.transpose(4, 3, 0, 1, 2))
    tensors[name] = array
save_file(tensors, sys.argv[2])
"""

WRITE_ALL = """
import sys
from pathlib import Path
from i3dzoo import formats
from i3dzoo.checkpoints import converter
from i3dzoo.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from i3dzoo.fetch.pull import pull

checkpoint = read_checkpoint(pull("rgb_scratch"))
for name in converter.names():
    ending = formats.FORMATS[converter.table(name).format].suffix
    path = write_checkpoint(Path(sys.argv[1]) / f"{name}{ending}", checkpoint, name)
    print(name, path)
"""

IMPORTS = "import click, json, i3dzoo.fetch.find, i3dzoo.cli.convert, i3dzoo.checkpoints.head"

Sample = tuple[float, float]


def measure(command: list[str], folder: str) -> Sample:
    """Run a command to its end; return seconds and peak resident megabytes."""
    for made in Path(folder).glob("out*"):
        made.unlink()  # replacing an old file takes time of its own
    # an installed package has its bytecode; let a checkout keep its own too
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"failed with status {status}: {' '.join(command)}")
    return seconds, usage.ru_maxrss / 1024  # Linux counts it in kilobytes


def medians(sides: dict[str, list[str]], folder: str, runs: int) -> dict[str, Sample]:
    """Measure commands in turn; return the medians of seconds and megabytes by name."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    for run in range(runs + 1):
        for name, command in sides.items():
            sample = measure(command, folder)
            if run:  # the first only warms the caches
                samples[name].append(sample)
    return {
        name: (statistics.median(s for s, _ in taken), statistics.median(m for _, m in taken))
        for name, taken in samples.items()
    }


def convert(source: str, target: str, layout: str = "canonical") -> list[str]:
    """Return the command that converts a file."""
    arguments = [source, target, "--to", layout, "--force", "--quiet"]
    return [sys.executable, "-m", "i3dzoo", "convert", *arguments]


def compare_with_tensorflow(files: dict[str, str], folder: str, runs: int) -> dict[str, Any]:
    """Print and return how long both routes take from DeepMind's checkpoint to safetensors."""
    prefix, target = files["deepmind"].removesuffix(".index"), f"{folder}/out.safetensors"
    sides = {
        "i3dzoo convert": convert(prefix, target),
        "TensorFlow route": [sys.executable, "-c", TENSORFLOW_ROUTE, prefix, target],
        "i3dzoo --help": [sys.executable, "-m", "i3dzoo", "--help"],
    }
    found = medians(sides, folder, runs)
    for name, (seconds, megabytes) in found.items():
        print(f"  {name:18} {seconds:7.3f} s  {megabytes:7.1f} MB")
    ratio = found["TensorFlow route"][0] / found["i3dzoo convert"][0]
    print(f"  i3dzoo is {ratio:.1f} times faster")
    result: dict[str, Any] = {
        name: {"seconds": round(seconds, 3), "peak_megabytes": round(megabytes, 1)}
        for name, (seconds, megabytes) in found.items()
    }
    return {**result, "ratio": round(ratio, 2)}


def compare_pairs(files: dict[str, str], folder: str, runs: int) -> dict[str, Any]:
    """Print and return how long every layout takes to become every other, and what memory."""
    sides = {"imports": [sys.executable, "-c", IMPORTS]}
    for source, target in itertools.permutations(files, 2):
        path = f"{folder}/out-{Path(files[target]).name}"
        sides[f"{source} -> {target}"] = convert(files[source], path, target)
    found = medians(sides, folder, runs)
    imports = found["imports"]
    print(f"  {'only the imports':24} {imports[0]:7.3f} s  {imports[1]:7.1f} MB")
    result = {}
    for name, (seconds, megabytes) in found.items():
        above = megabytes - imports[1]
        result[name] = {"seconds": round(seconds, 3), "megabytes_above_imports": round(above, 1)}
        if name != "imports":
            print(f"  {name:24} {seconds:7.3f} s  {above:+7.1f} MB")
    slowest = max(result, key=lambda name: result[name]["seconds"])
    largest = max(result, key=lambda name: result[name]["megabytes_above_imports"])
    print(f"  slowest: {slowest}; most memory: {largest}")
    return result


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=["pairs", "tensorflow"])
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        written = subprocess.run(
            [sys.executable, "-c", WRITE_ALL, folder], check=True, capture_output=True, text=True
        )
        files = dict(line.split(" ", 1) for line in written.stdout.splitlines())
        print(
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, median of {arguments.runs} runs each, in turn"
        )
        if arguments.only != "pairs":
            result |= compare_with_tensorflow(files, folder, arguments.runs)
        if arguments.only != "tensorflow":
            result["pairs"] = compare_pairs(files, folder, arguments.runs)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
