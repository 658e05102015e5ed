"""Measure whether Kinetics pre-training helps, for RGB and for optical flow, in four runs.

    i3dzoo prepare generated gen --splits testTrainMulti_7030_splits --per-class all --size 150x112
    i3dzoo prepare hmdb51 gen data --flow farneback --flow-store npy --short-side 112
    i3dzoo convert rgb_scratch flow.safetensors --in-channels 2
    python benchmarks/pretraining.py run data runs --rgb rgb_scratch --flow flow.safetensors
    python benchmarks/pretraining.py draw runs docs/images/pretraining.png [--json results.json]

`run` fine-tunes from the weights and from random weights, all else equal, with one run on each GPU.
`draw` plots the curves in the runs' `metrics.jsonl`.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i3dzoo.training.metric_logger import read_metric_lines

STREAMS = ("rgb", "flow")
STARTS = {"checkpoint": "from Kinetics-400", "random": "from random weights"}
SETTINGS = {
    "augment.frames": "32",
    "augment.resize": "112",
    "augment.crop": "112",
    "augment.train_crop": "random",
    "augment.flip": "0",  # mirrored, a motion to the left is one to the right
    "network.batchnorm": "train",
    "optim.lr": "0.02",
    "optim.head_lr_scale": "1",
    "schedule.kind": "cosine",
    "loop.batch_size": "32",
    "loop.accumulate": "1",
    "loop.precision": "bf16",
    "loop.channels_last": "true",
    "evaluation.batch_size": "32",
}


def command(data: Path, out: Path, model: str, start: str, given: argparse.Namespace) -> list[str]:
    """Return the command of one run."""
    settings = SETTINGS | {
        "network.init": start,
        "loop.epochs": str(given.epochs),
        "loop.workers": str(given.workers),
        "schedule.warmup_epochs": str(min(0.5, given.epochs / 4)),
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    options = ["--data", str(data), "--from", model, "-o", str(out)]
    options += ["--cache-frames", str(given.cache_frames)]
    return [sys.executable, "-m", "i3dzoo", "finetune", "motions", *options, *words, *given.extra]


def run(given: argparse.Namespace) -> None:
    """Train the four runs, as many at once as there are GPUs."""
    gpus: queue.Queue[int] = queue.Queue()
    for number in range(given.gpus):
        gpus.put(number)
    models = {"rgb": given.rgb, "flow": given.flow}

    def train(stream: str, start: str) -> None:
        gpu = gpus.get()
        out = given.runs / f"{stream}_{start}"
        out.parent.mkdir(parents=True, exist_ok=True)
        with (given.runs / f"{out.name}.log").open("wb") as log:
            done = subprocess.run(
                command(given.data, out, models[stream], start, given),
                env={**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)},
                stdout=log,
                stderr=log,
                check=False,
            )
        gpus.put(gpu)
        print(f"{out.name}: exit {done.returncode}, {summary(out)}", flush=True)

    with ThreadPoolExecutor(given.gpus) as pool:
        jobs = [pool.submit(train, stream, start) for stream in STREAMS for start in STARTS]
        for job in jobs:
            job.result()


def summary(folder: Path) -> dict[str, Any]:
    """Return the steps, the validation by epoch and the duration of a run."""
    lines = read_metric_lines(folder / "metrics.jsonl")
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    return {
        "steps": len(steps),
        "top1": [round(line["top1"], 4) for line in epochs],
        "val_loss": [round(line["val_loss"], 4) for line in epochs],
        "seconds": round(lines[-1]["time"] - lines[0]["time"], 1) if lines else None,
    }


def draw(given: argparse.Namespace) -> None:
    """Plot validation top-1 and training loss of all runs, the streams side by side."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey="row", layout="tight")
    results = {}
    for column, stream in enumerate(STREAMS):
        above, below = axes[0][column], axes[1][column]
        above.set_title({"rgb": "RGB", "flow": "optical flow"}[stream])
        for start, words in STARTS.items():
            folder = given.runs / f"{stream}_{start}"
            results[folder.name] = summary(folder)
            lines = read_metric_lines(folder / "metrics.jsonl")
            steps = [line for line in lines if line["kind"] == "step"]
            epochs = [line for line in lines if line["kind"] == "epoch"]
            above.plot(
                [line["epoch"] for line in epochs],
                [100 * line["top1"] for line in epochs],
                marker="o",
                label=words,
            )
            losses, window = [line["loss"] for line in steps], 20
            at = range(window - 1, len(steps), 5)  # means of the last 20 steps, every fifth
            means = [sum(losses[i - window + 1 : i + 1]) / window for i in at]
            below.plot([steps[i]["epoch"] for i in at], means, label=words)
        above.axhline(100 / 51, color="grey", linestyle=":", label="chance")
        below.set_xlabel("epoch")
    axes[0][0].set_ylabel("validation top-1, %")
    axes[1][0].set_ylabel("training loss, nats")
    axes[0][0].legend()
    figure.savefig(given.picture, dpi=150)
    print(json.dumps(results, indent=1))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


def main() -> None:
    """Train or plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    steps = parser.add_subparsers(dest="what", required=True)
    step = steps.add_parser("run")
    step.add_argument("data", type=Path)
    step.add_argument("runs", type=Path)
    step.add_argument("--rgb", default="rgb_scratch")
    step.add_argument("--flow", required=True)
    step.add_argument("--epochs", type=int, default=6)
    step.add_argument("--workers", type=int, default=12)
    step.add_argument("--gpus", type=int, default=1)
    step.add_argument("--cache-frames", type=float, default=20)
    step = steps.add_parser("draw")
    step.add_argument("runs", type=Path)
    step.add_argument("picture", type=Path)
    step.add_argument("--json", type=Path)
    given, given.extra = parser.parse_known_args()  # other options are those of `i3dzoo finetune`
    if given.what == "run":
        run(given)
    else:
        draw(given)


if __name__ == "__main__":
    main()
