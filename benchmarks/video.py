"""Time decoding and transforming clips: i3dzoo, OpenCV and a plain PyAV loop, in one run.

Everything runs on one core with one thread, in alternating runs. Each side makes the same network
input, float32 [3, 64, 224, 224], from the same 64 frames: short side 256, centre crop, [-1, 1].
The windows are at the start, in the middle and at the end of every video. OpenCV and the plain
loop decode from the first frame and stop at the end of the window; `to the end` decodes all
frames, as code does that collects them first. i3dzoo uses the index of `i3dzoo prepare`, and the
time to make it is shown. This needs the extra `flow` and a folder of videos:

    python benchmarks/video.py CLIPS [--runs 5] [--json results.json]
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import torch.nn.functional as F

from i3dzoo.checkpoints.metadata import default_input
from i3dzoo.video import (
    CENTRE,
    FrameCache,
    Index,
    Sampling,
    VideoDataset,
    clip_at,
    normalise,
    probe,
    read,
    resample,
    resized_size,
)
from i3dzoo.video.index import make_entry
from i3dzoo.video.views import ViewReader

SPEC = default_input("rgb")
LONG = 128  # frames of a longer video
Window = tuple[Path, int]  # first frame


def av_frames(path: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Decode as PyAV's documentation shows."""
    with av.open(str(path), metadata_errors="ignore") as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def cv_frames(path: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Decode as OpenCV's documentation shows."""
    capture = cv2.VideoCapture(str(path))
    while True:
        there, frame = capture.read()
        if not there:
            break
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    capture.release()


def collect(
    frames: Iterator[np.ndarray[Any, Any]], first: int, stop: bool
) -> list[np.ndarray[Any, Any]]:
    """Keep the 64 frames from `first` on, looped where there are fewer."""
    kept = []
    for number, frame in enumerate(frames):
        if number >= first and len(kept) < SPEC.frames:
            kept.append(frame)
        if stop and len(kept) == SPEC.frames:
            break
    return [kept[number % len(kept)] for number in range(SPEC.frames)]


def by_torch(kept: list[np.ndarray[Any, Any]]) -> torch.Tensor:
    """Resize, crop and scale in float32."""
    frames = torch.from_numpy(np.stack(kept)).permute(0, 3, 1, 2).float()
    size = resized_size(frames.shape[2], frames.shape[3], 256)
    frames = F.interpolate(frames, size, mode="bilinear", align_corners=False)
    top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
    frames = frames[:, :, top : top + 224, left : left + 224]
    return (frames / 255 * 2 - 1).transpose(0, 1).contiguous()


def by_opencv(kept: list[np.ndarray[Any, Any]]) -> torch.Tensor:
    """Resize with OpenCV, crop and scale."""
    height, width = resized_size(*kept[0].shape[:2], 256)
    top, left = (height - 224) // 2, (width - 224) // 2
    resized = [
        cv2.resize(frame, (width, height))[top : top + 224, left : left + 224] for frame in kept
    ]
    return torch.from_numpy(np.stack(resized)).permute(3, 0, 1, 2).float() / 255 * 2 - 1


class Fixed(ViewReader):
    """Reads the windows of the benchmark instead of random ones."""

    first = 0

    def _windows(self, info: Any, random: Any) -> Any:  # noqa: ARG002 - nothing is drawn
        return [clip_at(resample(info, None), self.first, self.spec.frames)]


def sides(data: Fixed, numbers: dict[Path, int]) -> dict[str, Callable[[Window], torch.Tensor]]:
    """Return what makes input of a window, by name."""

    def ours(window: Window) -> torch.Tensor:
        data.first = window[1]
        views = data.read(numbers[window[0]], np.random.default_rng(0))
        return normalise(views, SPEC)[0]

    return {
        "i3dzoo": ours,
        "PyAV loop": lambda w: by_torch(collect(av_frames(w[0]), w[1], True)),
        "PyAV loop to the end": lambda w: by_torch(collect(av_frames(w[0]), w[1], False)),
        "OpenCV": lambda w: by_opencv(collect(cv_frames(w[0]), w[1], True)),
    }


def compare(
    makers: dict[str, Callable[[Window], torch.Tensor]], windows: list[Window], runs: int
) -> dict[str, float]:
    """Return frames per second of each side, of the median of its runs over all windows."""
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for run in range(runs + 1):
        for name, make in makers.items():
            start = time.perf_counter()
            for window in windows:
                make(window)
            if run:  # the first only warms the caches
                seconds[name].append(time.perf_counter() - start)
    frames = len(windows) * SPEC.frames
    return {name: frames / statistics.median(times) for name, times in seconds.items()}


def check(makers: dict[str, Callable[[Window], torch.Tensor]], windows: list[Window]) -> None:
    """Make sure that all sides give the same pictures."""
    for window in windows:
        truth = makers["PyAV loop"](window)
        for name, make in makers.items():
            difference = float((make(window) - truth).abs().mean()) * 127.5
            # OpenCV converts colours itself, with other roundings.
            if difference > 2:
                raise SystemExit(f"{name} differs by {difference:.2f} grey levels: {window}")


def cached(index: Index, epochs: int = 4) -> dict[str, float]:
    """Return seconds of an epoch of decoding, of the first with a cache, and of later ones."""
    result = {}
    cache = FrameCache(1 << 31)
    for name, kept in (("decoding", None), ("cached", cache)):
        data = VideoDataset(index, SPEC, sampling=Sampling("random", crop="random"), cache=kept)
        times = []
        for epoch in range(epochs):
            start = time.perf_counter()
            for number in range(len(data)):
                data.sample(epoch, number)
            times.append(time.perf_counter() - start)
        result[f"{name}, first epoch"] = times[0]
        result[f"{name}, later epochs"] = statistics.median(times[1:])
    cache.close()
    return result


def long_file(folder: Path, source: Path, seconds: int) -> Path:
    """Encode a real clip over and over, H.264 with the encoder's own keyframes."""
    path = folder / "long.mp4"
    frames = list(av_frames(source))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "veryfast"}
        for number in range(seconds * 25):
            frame = av.VideoFrame.from_ndarray(frames[number % len(frames)], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def deep(path: Path, start: int, runs: int) -> dict[str, float]:
    """Return seconds to the 64 frames at a time deep in a long file that was probed before."""
    info = probe(path)

    def opencv() -> object:
        capture = cv2.VideoCapture(str(path))
        capture.set(cv2.CAP_PROP_POS_FRAMES, start * 25)
        return [capture.read() for _ in range(SPEC.frames)]

    makers: dict[str, Callable[[], object]] = {
        "i3dzoo": lambda: read(info, range(start * 25, start * 25 + SPEC.frames)),
        "PyAV loop": lambda: collect(av_frames(path), start * 25, True),
        "OpenCV, POS_FRAMES": opencv,
    }
    times: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(runs):
        for name, make in makers.items():
            begin = time.perf_counter()
            make()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def table(title: str, numbers: dict[str, float], unit: str, digits: int = 0) -> None:
    """Print numbers, and each as a ratio to the first."""
    print(title)
    base = next(iter(numbers.values()))
    for name, value in numbers.items():
        print(f"  {name:24} {value:10,.{digits}f} {unit}   {base / value:8.2f}")


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=300, help="of the long file")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    paths = sorted(p for p in arguments.clips.iterdir() if p.suffix in (".avi", ".mp4"))
    begin = time.perf_counter()
    infos = {path: probe(path) for path in paths}
    indexing = time.perf_counter() - begin
    entries = [make_entry(i, p.name, "a", (None,) * 3, p.stat().st_size) for p, i in infos.items()]
    index = Index(arguments.clips, "clips", "videos", ("a",), tuple(entries))
    makers = sides(
        Fixed(index, entries, SPEC, CENTRE), {path: number for number, path in enumerate(paths)}
    )
    print(
        f"{platform.processor() or platform.machine()}, one core, Python "
        f"{platform.python_version()}, PyAV {av.__version__}, OpenCV {cv2.__version__}, "
        f"PyTorch {torch.__version__}; medians of {arguments.runs} runs, in turn"
    )
    print(f"indexing {len(paths)} videos: {indexing:.2f} s, once")
    result: dict[str, dict[str, float]] = {}
    groups = {
        f"HMDB51 and others under {LONG} frames": [p for p in paths if infos[p].frames < LONG],
        f"longer videos ({LONG} frames or more)": [p for p in paths if infos[p].frames >= LONG],
    }
    for title, group in groups.items():
        windows = []
        for path in group:
            spare = max(infos[path].frames - SPEC.frames, 0)
            windows += [(path, first) for first in sorted({0, spare // 2, spare})]
        check(makers, windows)
        result[title] = compare(makers, windows, arguments.runs)
        table(f"{title}: {len(group)} videos", result[title], "frames/s")
    result["cache"] = cached(index)
    table("An epoch of one random clip a video", result["cache"], "s", 3)
    with tempfile.TemporaryDirectory() as folder:
        path = long_file(Path(folder), paths[0], arguments.seconds)
        start = arguments.seconds * 9 // 10
        result["deep"] = deep(path, start, 3)
        table(f"64 frames at {start} s of {arguments.seconds} s", result["deep"], "s", 3)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
