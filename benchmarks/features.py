"""Features of videos: the pipeline, a plain loop, and the network alone, in one run.

    python benchmarks/features.py CLIPS [--model rgb_imagenet] [--stride 64] [--copies 1]

CLIPS are video files, or a folder of them. With --copies N, the pipeline gets each of them N times,
so that it runs long enough on a GPU; the plain loop gets each once. The plain loop does what
extractors commonly do: it decodes a video with PyAV, transforms each window of it as float32, and
runs one window at a time. The network alone runs windows of random numbers, in batches as large as
those of the pipeline, and one at a time. The sides take turns; the table has the median of the
runs, of wall time and of the time of this process on all processors, which other work on the
machine changes less. "GPU busy" is how often a kernel ran, of samples every 50 ms. The plain loop
and the pipeline make the same features, and their difference is printed.
"""

import argparse
import contextlib
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F

from i3dzoo.engines.base import Engine, load_engine
from i3dzoo.engines.videos import batch_size_of, run_videos
from i3dzoo.network.architecture import POOLED
from i3dzoo.video import BadVideo, VideoInfo, resized_size, sampling
from i3dzoo.video.plan import Plan, resize_of

FRAMES = 64


def starts(count: int, stride: int) -> list[int]:
    """Return the first frames of the windows that fit into a video."""
    return [*range(0, count - FRAMES + 1, stride)]


def plain_loop(engine: Engine, videos: list[Path], stride: int) -> list[np.ndarray[Any, Any]]:
    """Decode, transform and run one window after the other."""
    features = []
    for video in videos:
        with av.open(str(video), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        rows = []
        for start in starts(len(frames), stride):
            clip = torch.from_numpy(np.stack(frames[start : start + FRAMES])).permute(0, 3, 1, 2)
            size = resized_size(*clip.shape[2:], 256)
            clip = F.interpolate(clip.float(), size, mode="bilinear", align_corners=False)
            top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
            clip = clip[..., top : top + 224, left : left + 224] / 255 * 2 - 1
            batch = clip.transpose(0, 1)[None].to(engine.device)
            rows.append(engine.features(batch).float().cpu().numpy()[0])
        features.append(np.stack(rows))
    return features


def pipeline(
    engine: Engine, videos: list[Path], stride: int, batch_size: int
) -> list[np.ndarray[Any, Any]]:
    """Run the videos through the pipeline."""
    spec = engine.metadata.input  # type: ignore[union-attr] # it was loaded from a checkpoint

    def plan(info: VideoInfo) -> Plan:
        samples = sampling.resample(info, None)
        firsts = starts(len(samples), stride)
        clips = tuple(sampling.clip_at(samples, first, FRAMES) for first in firsts)
        return Plan(info, clips, spec, resize_of(spec))

    forward = partial(engine.stream, endpoint=POOLED)
    features = []
    for result in run_videos(engine, videos, plan, forward=forward, batch_size=batch_size):
        if isinstance(result, BadVideo):
            raise SystemExit(result.reason)
        features.append(np.stack([output[0] for output in result.outputs]))
    return features


def network_alone(engine: Engine, windows: int, batch_size: int) -> None:
    """Run as many windows of random numbers."""
    clips = torch.rand(batch_size, 3, FRAMES, 224, 224, device=engine.device) * 2 - 1

    def batches() -> Iterator[torch.Tensor]:
        for begin in range(0, windows, batch_size):
            yield clips[: min(batch_size, windows - begin)]

    for output in engine.stream(batches(), POOLED):
        output.float().cpu()


@contextlib.contextmanager
def watched_gpu(device: torch.device) -> Iterator[list[int]]:
    """Sample the utilization of a GPU in percent while the block runs; nothing on a CPU."""
    samples: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            samples.append(torch.cuda.utilization(device))

    thread = threading.Thread(target=watch)
    if device.type == "cuda":
        thread.start()
    try:
        yield samples
    finally:
        ended.set()
        if thread.ident:
            thread.join()


def timed(side: Callable[[], Any], device: torch.device) -> tuple[tuple[float, float, float], Any]:
    """Return the seconds a side takes, of all processors, GPU busy in percent, and its result."""
    begin, processors = time.perf_counter(), time.process_time()
    with watched_gpu(device) as samples:
        result = side()
    busy = statistics.mean(samples) if samples else 0.0
    return (time.perf_counter() - begin, time.process_time() - processors, busy), result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", default="rgb_imagenet")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--stride", type=int, default=64)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--copies", type=int, default=1)
    arguments = parser.parse_args()
    videos = [
        file
        for path in arguments.clips
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if file.suffix in (".mp4", ".avi", ".mkv", ".webm", ".mov")
    ]
    engine = load_engine(arguments.model, arguments.engine)
    batch_size = arguments.batch_size or batch_size_of(engine)
    stride = arguments.stride
    made = pipeline(engine, videos, stride, batch_size)  # also warms up
    windows = sum(map(len, made))
    many = videos * arguments.copies
    network_alone(engine, 1, 1)
    sides: dict[str, tuple[int, Callable[[], Any]]] = {
        "plain loop": (windows, lambda: plain_loop(engine, videos, stride)),
        "pipeline": (
            windows * arguments.copies,
            lambda: pipeline(engine, many, stride, batch_size),
        ),
        "network alone, one at a time": (windows, lambda: network_alone(engine, windows, 1)),
        f"network alone, batches of {batch_size}": (
            windows * arguments.copies,
            lambda: network_alone(engine, windows * arguments.copies, batch_size),
        ),
    }
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    for _ in range(arguments.runs):
        for name, (_, side) in sides.items():
            numbers, result = timed(side, engine.device)
            measured[name].append(numbers)
            if name == "plain loop":
                plain = result
    difference = max(
        float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in zip(plain, made, strict=True)
    )
    device = torch.cuda.get_device_name() if engine.device.type == "cuda" else platform.machine()
    print(
        f"{len(videos)} videos, {arguments.copies} times for the pipeline; windows of {FRAMES} "
        f"frames at stride {stride}; {type(engine).__name__} on {device}, {os.cpu_count()} cores\n"
    )
    medians = {
        name: [statistics.median(column) / sides[name][0] for column in zip(*values, strict=True)]
        for name, values in measured.items()
    }
    alone, alone_processors, _ = medians[[*sides][-1]]
    print("| | windows | windows/s | of the network alone | processor s | of the network alone |"
          " GPU busy |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name, (wall, processors, busy) in medians.items():
        count = sides[name][0]
        print(
            f"| {name} | {count} | {1 / wall:.2f} | {alone / wall:.2f} | "
            f"{processors * count:.2f} | {alone_processors / processors:.2f} | "
            f"{busy * count:.0f} % |"
        )
    print(f"\nlargest difference of the features, of their norm: {difference:.1e}")


if __name__ == "__main__":
    main()
