"""Compare the engines of `i3dzoo predict` with the common PyTorch port on this machine.

    python benchmarks/inference.py rgb_scratch [--batch 1 --batch 4] [--precision fp32]
        [--engine torch --engine openvino] [--clip VIDEO] [--runs 5] [--frames 64]
        [--json inference.json]

All engines and the port run in one process, in turn. Times are medians, from float clips in
memory to logits in memory, and `of best` is the time as a part of the fastest engine's. `auto` is
the engine that `--engine auto` takes here. Errors are of the largest logit and of the norm of the
logits, from the port in float32 on the same clips: noise, or the centre of VIDEO. Speed-ups are
over the port in float32, whatever the precision. `i3dzoo bench` has more engines.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common_port import CommonPort

from i3dzoo import kernels
from i3dzoo.engines.base import Engine, load_engine
from i3dzoo.engines.choose import engines_here
from i3dzoo.errors import I3DZooError
from i3dzoo.pretrained import InceptionI3d, load
from i3dzoo.video import load_clips, probe, sampling

PORT = "common port"
Run = Callable[[Tensor], Tensor]


class Remarks:
    """Prints what `auto` says."""

    def start(self, *_: object) -> None:
        """Print nothing."""

    def update(self, *_: object, **__: object) -> None:
        """Print nothing."""

    def message(self, text: str) -> None:
        """Print a remark."""
        print(text, flush=True)


def engines(model: str, names: list[str], precisions: list[Any]) -> dict[str, Engine]:
    """Return the engines that run here, by name and precision; `auto` is the one that it takes."""
    loaded: dict[str, Engine] = {}
    for precision in precisions:
        default = ["fused"] if torch.cuda.is_available() else []
        for name in names or ["auto", *sorted(engines_here(precision)), *default]:
            try:
                engine = load_engine(model, name, precision=precision, progress=Remarks())
            except I3DZooError as error:
                print(f"{name} {precision}: {error}")
                continue
            label = f"auto ({engine.name})" if name == "auto" else name
            loaded[f"{label} {engine.precision}"] = engine
    return loaded


def real_clip(network: InceptionI3d, video: Path, frames: int) -> Tensor:
    """Return the centre clip of a video, float [1, C, T, H, W]."""
    if network.metadata is None:
        raise SystemExit("the model has no description of its input")
    spec = network.metadata.input
    info = probe(video, spec.decoded)
    clips = sampling.clips(sampling.resample(info, spec.fps), frames, 1, spec.sampling)
    ((_, pixels),) = load_clips(info, clips, spec)
    return pixels[None]


def measure(runs: dict[str, Run], clips: Tensor, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each function; the first of the rounds warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    logits: dict[str, Tensor] = {}
    for number in range(rounds + 1):
        for name, run in runs.items():
            kernels.set_enabled(name != PORT)  # the port has PyTorch's own pools and convolutions
            start = time.perf_counter()
            with torch.inference_mode():
                logits[name] = run(clips).float().cpu()
            if number:
                times[name].append(time.perf_counter() - start)
    exact, port = logits[PORT], median(times[PORT])
    best = min(median(taken) for name, taken in times.items() if name != PORT)
    return [
        {
            "engine": name,
            "batch": len(clips),
            "seconds": median(taken),
            "clips_per_second": len(clips) / median(taken),
            "of_best": median(taken) / best,
            "faster_than_port": port / median(taken),
            "error_of_largest": float((logits[name] - exact).abs().max() / exact.abs().max()),
            "error_of_norm": float((logits[name] - exact).norm() / exact.norm()),
            "same_top": bool(torch.equal(logits[name].argmax(1), exact.argmax(1))),
        }
        for name, taken in times.items()
    ]


def main() -> None:
    """Measure each batch size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--engine", action="append", default=[])
    parser.add_argument("--precision", action="append")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    network = load(options.model).eval()
    loaded = engines(options.model, options.engine, options.precision or ["fp32"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False
    port = CommonPort(network.float().to(device))
    runs: dict[str, Run] = {PORT: lambda clips: port(clips.to(device))}
    for name, engine in loaded.items():
        runs[name] = lambda clips, engine=engine: engine.step_logits(clips).mean(1)
    print(f"{device}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    rows = []
    for batch in options.batch or [1, 4]:
        shape = (batch, network.in_channels, options.frames, 224, 224)
        if options.clip:
            clip = real_clip(network, options.clip, options.frames)
            clips = clip.repeat(batch, 1, 1, 1, 1)
        else:
            clips = torch.rand(shape, generator=torch.manual_seed(0)) * 2 - 1
        for row in measure(runs, clips, options.runs):
            rows.append(row)
            print(
                "{engine:24} batch {batch}: {seconds:.3f} s, {clips_per_second:.2f} clips/s, "
                "{of_best:.2f} of best, {faster_than_port:.2f} times the port, error "
                "{error_of_largest:.1e} of the largest, {error_of_norm:.1e} of the norm, same top "
                "{same_top}".format(**row),
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
