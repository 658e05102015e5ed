"""DeepMind's checkpoint to a canonical file: i3dzoo beside the TensorFlow route, in one run.

Both sides are whole processes, from start to exit, run in turn on the same checkpoint, which
TensorFlow wrote from the genuine weights. Needs the extra `tensorflow`:

    python benchmarks/convert.py [--runs 7] [--json results.json]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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

WRITE_CHECKPOINT = """
import sys
import numpy as np
import tensorflow as tf
from i3dzoo import convert, tables
from i3dzoo.checkpoint import read_checkpoint
from i3dzoo.zoo import pull

tensors = read_checkpoint(pull("rgb_scratch")).tensors
tensors = convert.from_canonical("", tensors, tables.table("deepmind")).tensors
names = sorted(tensors)
tf.raw_ops.SaveV2(
    prefix=sys.argv[1],
    tensor_names=names,
    shape_and_slices=[""] * len(names),
    tensors=[tf.constant(np.ascontiguousarray(tensors[name])) for name in names],
)
"""


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command to its end; return seconds and peak resident megabytes."""
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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        prefix, target = f"{folder}/model.ckpt", f"{folder}/out.safetensors"
        subprocess.run([python, "-c", WRITE_CHECKPOINT, prefix], check=True)
        i3dzoo = [python, "-m", "i3dzoo", "convert", prefix, target, "--force", "--quiet"]
        sides = {
            "i3dzoo convert": i3dzoo,
            "TensorFlow route": [python, "-c", TENSORFLOW_ROUTE, prefix, target],
            "i3dzoo --help": [python, "-m", "i3dzoo", "--help"],
        }
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for run in range(arguments.runs + 1):
            for name, command in sides.items():
                Path(target).unlink(missing_ok=True)
                sample = measure(command)
                if run:  # the first only warms the caches
                    samples[name].append(sample)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, median of {arguments.runs} runs each, in turn"
    )
    result = {}
    for name, runs in samples.items():
        seconds = statistics.median(run[0] for run in runs)
        megabytes = statistics.median(run[1] for run in runs)
        result[name] = {"seconds": round(seconds, 3), "peak_megabytes": round(megabytes, 1)}
        print(f"  {name:18} {seconds:7.3f} s  {megabytes:7.1f} MB")
    ratio = result["TensorFlow route"]["seconds"] / result["i3dzoo convert"]["seconds"]
    print(f"  i3dzoo is {ratio:.1f} times faster")
    if arguments.json:
        arguments.json.write_text(json.dumps({**result, "ratio": round(ratio, 2)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
