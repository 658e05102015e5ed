"""The error of FVD in each precision that a device computes in, and the speed of the network.

    python benchmarks/fvd_precision.py VIDEOS --write CLIPS.npy
    python benchmarks/fvd_precision.py CLIPS.npy [--count 512] [--batch-size 32] [--json OUT.json]

The first line cuts clips from the videos of a folder and writes them as uint8 [N, T, H, W, 3]; the
second needs no video decoder. The real set has random crops of the clips, some of them mirrored.
The fake sets have other crops of the same clips, so that FVD is small, and the crops of the real
set with blur and with noise. All precisions get the same frames of 224x224. An error is the
difference from FVD of the same sets in the reference's precision, relative to it; clips/s is of the
network alone.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.fused import FusedEngine
from i3dzoo.engines.torch import DTYPES, TorchEngine
from i3dzoo.errors import OptionError
from i3dzoo.fetch.find import find, open_checkpoint
from i3dzoo.fvd import Statistics, frechet_distance
from i3dzoo.pretrained import build

EDGE: Final = 224
SETS: Final = ("real", "other crops", "blur", "noise")
MODES: Final = ("fp64", *(f"PyTorch {name}" for name in DTYPES), "fused fp16", "fused bf16")

Run = Callable[[Tensor], Tensor]


def write_clips(folder: Path, file: Path, frames: int, each: int, edge: int) -> None:
    """Write clips of a folder's videos, spread over each video, as squares of `edge` pixels."""
    from i3dzoo.fvd.video_sets import FolderOfVideos

    clips, videos = [], FolderOfVideos(folder)
    for number in range(len(videos)):
        video = videos.open(number)
        room = video.frames - frames
        if room < 0:
            print(f"{video.name}: left out, {video.frames} frames")
            continue
        for start in sorted({round(room * part / max(each - 1, 1)) for part in range(each)}):
            pixels = torch.stack(list(video.read(range(start, start + frames)))).float()
            size = min(pixels.shape[2:])
            top, left = ((length - size) // 2 for length in pixels.shape[2:])
            square = pixels[..., top : top + size, left : left + size]
            scaled = F.interpolate(square, (edge, edge), mode="bilinear", antialias=True)
            clips.append(scaled.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
    np.save(file, np.stack(clips))
    print(f"{file}: {len(clips)} clips of {frames} frames, {edge}x{edge}")


def batches(clips: Tensor, kind: str, count: int, size: int, device: str) -> Iterator[Tensor]:
    """Yield clips from -1 to 1, [size, 3, T, 224, 224] on the device, the same at each call."""
    choice = np.random.default_rng(kind == "other crops")
    noise = torch.Generator(device).manual_seed(2)
    for _ in range(count // size):
        batch = []
        for _ in range(size):
            clip = clips[choice.integers(len(clips))].permute(0, 3, 1, 2)
            edge = int(min(clip.shape[2:]) * choice.uniform(0.6, 1))
            top, left = (int(choice.integers(length - edge + 1)) for length in clip.shape[2:])
            crop = clip[..., top : top + edge, left : left + edge].to(device).float()
            crop = crop.flip(3) if choice.random() < 0.5 else crop
            batch.append(F.interpolate(crop, (EDGE, EDGE), mode="bilinear", antialias=True))
        frames = torch.stack(batch)
        if kind == "blur":
            flat = F.interpolate(frames.flatten(0, 1), (EDGE // 4, EDGE // 4), mode="area")
            flat = F.interpolate(flat, (EDGE, EDGE), mode="bilinear")
            frames = flat.unflatten(0, frames.shape[:2])
        elif kind == "noise":
            frames = frames + 20 * torch.randn(frames.shape, generator=noise, device=device)
        pixels = frames.round().clamp(0, 255)  # as a file of uint8 holds them
        yield (pixels * 2 / 255 - 1).transpose(1, 2).contiguous()


def network(checkpoint: Checkpoint, mode: str, device: str) -> Run:
    """Return the function from clips to features [B, 400]."""
    library, _, precision = mode.partition(" ")
    if mode == "fp64":
        double = build(checkpoint).double().to(device)
        return lambda clips: double.step_logits(clips.double()).mean(1)
    if library == "PyTorch":
        engine = TorchEngine.from_checkpoint(checkpoint, device, precision)  # type: ignore[arg-type] # MODES has the names
        return lambda clips: engine.step_logits(clips).mean(1)
    fused = FusedEngine.from_checkpoint(checkpoint, precision)  # type: ignore[arg-type] # likewise
    return lambda clips: fused.step_logits(clips).mean(1)


def embed(run: Run, inputs: Iterator[Tensor], device: str) -> tuple[Statistics, list[float]]:
    """Return the statistics of the features, and the seconds of each batch."""
    statistics, seconds = Statistics(), []
    for clips in inputs:
        _wait(device)
        begin = time.perf_counter()
        with torch.inference_mode():
            features = run(clips)
        _wait(device)
        seconds.append(time.perf_counter() - begin)
        statistics.update(features.double().cpu().numpy())
    return statistics, seconds


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(arguments: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """Return a row for each precision: FVD, errors and clips/s."""
    clips = torch.from_numpy(np.load(arguments.clips)[:, : arguments.frames])
    checkpoint = open_checkpoint(find(arguments.model))
    rows: list[dict[str, Any]] = []
    for mode in MODES[MODES.index(arguments.reference) :]:
        try:
            run = network(checkpoint, mode, device)
        except OptionError as error:
            print(f"{mode}: left out, {error}", flush=True)
            continue
        seconds: list[float] = []
        sets = []
        for kind in SETS:
            inputs = batches(clips, kind, arguments.count, arguments.batch_size, device)
            statistics, own = embed(run, inputs, device)
            sets.append(statistics)
            seconds += own
        real, *fakes = sets
        fvd = {
            name: frechet_distance(real, fake) for name, fake in zip(SETS[1:], fakes, strict=True)
        }
        exact = rows[0]["fvd"] if rows else fvd
        rows.append(
            {
                "mode": mode,
                "fvd": fvd,
                "error": {name: value / exact[name] - 1 for name, value in fvd.items()},
                # the first batch also warms up
                "clips_per_second": arguments.batch_size / float(np.median(seconds[1:])),
            }
        )
        print(rows[-1], flush=True)
        del run
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, help="array of clips, or a folder of videos")
    parser.add_argument("--write", type=Path, help="write the clips of a folder, and end")
    parser.add_argument("--each", type=int, default=3, help="clips of a video that is written")
    parser.add_argument("--edge", type=int, default=192, help="pixels of the clips written")
    parser.add_argument("--count", type=int, default=512, help="clips of each set")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--model", default="rgb_scratch")
    parser.add_argument("--reference", choices=MODES[:2], default="fp64")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.write:
        write_clips(
            arguments.clips, arguments.write, arguments.frames, arguments.each, arguments.edge
        )
        return
    if arguments.count % arguments.batch_size:
        parser.error("--count must be a multiple of --batch-size")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = measure(arguments, device)
    machine = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(
        f"\n{machine}, PyTorch {torch.__version__}; {arguments.count} clips a set, "
        f"{arguments.frames} frames; reference {rows[0]['mode']}\n"
    )
    print(f"| | clips/s | {' | '.join(f'FVD, {name} | error' for name in SETS[1:])} |")
    print("|---" * (2 + 2 * len(SETS[1:])) + "|")
    for row in rows:
        cells = (f"{row['fvd'][name]:.4f} | {row['error'][name]:+.1e}" for name in SETS[1:])
        print(f"| {row['mode']} | {row['clips_per_second']:.0f} | {' | '.join(cells)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
