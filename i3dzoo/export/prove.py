"""Proof that an exported network computes what PyTorch computes, before its file takes its name."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import FormatError
from i3dzoo.export.options import INPUT, OUTPUT, PIXELS, ExportOptions, Precision, Size
from i3dzoo.export.rounding import BITS
from i3dzoo.loading import build
from i3dzoo.metadata import Input
from i3dzoo.video import VideoInfo, load_clips, preprocess, probe, sampling, stream
from i3dzoo.video.transforms import resize_frames

__all__ = ["TOLERANCE", "Case", "Proof", "Runner", "cases", "middle_clip", "probe_clip", "prove"]

Runner = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""From an array for each input to an array for each output, by name."""

TOLERANCE: Final[dict[Precision, float]] = {
    "fp32": 1e-4,
    "fp16": 2e-2,
    "bf16": 1e-1,
    "int8": 2e-1,
}
"""The largest difference that passes where no other is asked for, as a part of the largest logit.

Half precision keeps 11 bits of a number and bfloat16 8, and errors add up over 22 convolutions;
int8 keeps 8 bits of the largest number.
"""

OTHER_SIZE: Final = (11, 49, 66)  # odd, and with a last map that is smaller than 7x7
_BLUR: Final = 16  # pixels from one random value to the next


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        shapes: Of the inputs, by name.
        error: Largest difference of any output from PyTorch's.
        largest: Largest magnitude among PyTorch's outputs.
        same_top: Whether every clip has the same first class.
    """

    shapes: dict[str, tuple[int, ...]]
    error: float
    largest: float
    same_top: bool

    def __str__(self) -> str:
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes.values())
        top = "same top-1" if self.same_top else "another top-1"
        return (
            f"{shapes}: largest difference {self.error:.2g} of {self.largest:.3g} "
            f"({self.error / max(self.largest, 1e-30):.2g}), {top}"
        )


@dataclass(frozen=True)
class Proof:
    """What was compared, on what, and by what.

    Attributes:
        runner: What ran the exported network.
        clip: The video that was shown, or the seed of random clips.
        cases: Each comparison.
        tolerance: The largest difference that passed, per case.
    """

    runner: str
    clip: str
    cases: tuple[Case, ...]
    tolerance: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return dataclasses.asdict(self)


def prove(
    where: str,
    run: Runner,
    runner: str,
    checkpoints: Sequence[Checkpoint],
    options: ExportOptions,
    *,
    clip: Path | None = None,
    seed: int = 0,
    atol: float | None = None,
    shown: Sequence[tuple[int, Size]] | None = None,
) -> Proof:
    """Compare an exported network with PyTorch, batch by batch and size by size.

    Args:
        where: The file to be, for messages.
        run: The exported network.
        runner: What runs it, for the record.
        checkpoints: What was exported.
        options: How it was exported.
        clip: A video to show; None shows seeded noise.
        seed: Of the noise.
        atol: Largest difference that passes, in logits; None takes `TOLERANCE`.
        shown: Batches, and sizes of the axes that are dynamic; None takes `cases`.

    Raises:
        FormatError: A difference is larger, or an output is not finite.
        VideoError: The video cannot be decoded.
    """
    middle_clip.cache_clear()  # the file may be another by now
    networks = [build(checkpoint).float() for checkpoint in checkpoints]
    done, tolerances = [], []
    for batch, size in cases(options) if shown is None else shown:
        inputs, clips = _show(checkpoints, options, batch, size, clip, seed)
        found = run(inputs)
        for name, array in found.items():
            if not np.isfinite(array).all():
                raise FormatError(
                    f"{where}: was not written: {runner} gives {name} that are not finite at batch "
                    f"{batch}; its numbers do not fit {options.precision}, use another --precision"
                )
        case = _compare({n: a.shape for n, a in inputs.items()}, found, networks, clips, options)
        allowed = _tolerance(options) * max(case.largest, 1.0) if atol is None else atol
        if not case.error <= allowed:  # also where the error is not a number
            raise FormatError(
                f"{where}: was not written: {runner} differs from PyTorch by {case.error:.3g} at "
                f"{next(iter(case.shapes.values()))} where {allowed:.3g} is allowed; pass a larger "
                "--atol if that is good enough, or another --precision"
            )
        done.append(case)
        tolerances.append(allowed)
    return Proof(
        runner, str(clip) if clip else f"noise, seed {seed}", tuple(done), tuple(tolerances)
    )


def _tolerance(options: ExportOptions) -> float:
    """Return what passes; of weights that were rounded beforehand, as much as of their type."""
    if options.precision == "fp32" and options.bits is not None:
        return TOLERANCE["fp16" if options.bits >= BITS["fp16"] else "bf16"]
    return TOLERANCE[options.precision]


def cases(options: ExportOptions) -> list[tuple[int, Size]]:
    """Return what is compared: batches of one and two, and another size where it is open."""
    found: list[tuple[int, Size]] = [(batch, (None, None, None)) for batch in (1, 2)]
    if options.dynamic:
        found.append((2, OTHER_SIZE))
    return found


def _show(
    checkpoints: Sequence[Checkpoint],
    options: ExportOptions,
    batch: int,
    size: Size,
    clip: Path | None,
    seed: int,
) -> tuple[dict[str, Array], list[torch.Tensor]]:
    """Return what the exported network and what PyTorch is given."""
    generator = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    clips = []
    for checkpoint in checkpoints:
        metadata = checkpoint.metadata
        spec = _spec(metadata.input, options, size)
        if options.pixels:
            frames = _frames(spec, options.pixels, batch, clip, generator)
            inputs[PIXELS[metadata.stream]] = frames
            clips.append(torch.stack([preprocess(each, spec) for each in frames]))
            continue
        edges = [
            own if other is None else other
            for own, other in zip((spec.crop, spec.crop), _open(options, size)[1:], strict=True)
        ]
        shown = _floats(spec, edges, batch, clip, generator)
        inputs[INPUT[metadata.stream]] = shown
        clips.append(torch.from_numpy(shown))
    return inputs, clips


def _open(options: ExportOptions, size: Size) -> Size:
    """Return the wanted size along the axes that are dynamic, None along the others."""
    frames, height, width = (
        n if axis in options.dynamic else None
        for axis, n in zip(("frames", "height", "width"), size, strict=True)
    )
    return frames, height, width


def _spec(spec: Input, options: ExportOptions, size: Size) -> Input:
    return dataclasses.replace(spec, frames=_open(options, size)[0] or spec.frames)


def _floats(
    spec: Input, edges: Sequence[int], batch: int, clip: Path | None, generator: np.random.Generator
) -> Array:
    """Return float clips [B, C, T, H, W]."""
    height, width = edges
    if clip is None:
        shape = (batch, len(spec.mean), spec.frames, height, width)
        return generator.uniform(-1, 1, shape).astype("f4")
    pixels = middle_clip(clip, spec)
    resized = torch.nn.functional.interpolate(pixels, (height, width))
    # the second of a batch runs backwards, so that the two differ
    return torch.stack([(resized, resized.flip(1))[i % 2] for i in range(batch)]).numpy()


@functools.lru_cache(maxsize=4)  # of one proof: a stream or two, and each in two lengths
def middle_clip(clip: Path, spec: Input) -> torch.Tensor:
    """Return a video's middle clip, float32 [C, T, crop, crop]."""
    info = probe(clip, spec.channels)
    chosen = sampling.clips(sampling.resample(info, spec.fps), spec.frames, 1)
    ((_, pixels),) = load_clips(info, chosen, spec)
    return pixels


def probe_clip(clip: Path, spec: Input, pixels: tuple[int, int] | None) -> VideoInfo:
    """Look at a video that shall be shown.

    Args:
        clip: The video.
        spec: What the network takes.
        pixels: Height and width of frames, where the export takes frames.

    Raises:
        VideoError: The video cannot be decoded.
        FormatError: Its frames are of another size.
    """
    info = probe(clip, spec.channels)
    if pixels is not None and (info.height, info.width) != pixels:
        raise FormatError(
            f"{clip}: has frames of {info.width}x{info.height} pixels, and the export takes "
            f"{pixels[1]}x{pixels[0]}; show a video of that size with --clip"
        )
    return info


def _frames(
    spec: Input,
    pixels: tuple[int, int],
    batch: int,
    clip: Path | None,
    generator: np.random.Generator,
) -> Array:
    """Return uint8 frames [B, T, H, W, C]."""
    if clip is None:
        # enlarged, since what is between pixels that differ by all they can is a matter of rounding
        count = (batch * spec.frames, *(-(-edge // _BLUR) for edge in pixels), len(spec.mean))
        noise = torch.from_numpy(generator.integers(0, 256, count, "u1"))
        large = resize_frames(noise, pixels).permute(0, 2, 3, 1).numpy()
        return large.reshape(batch, spec.frames, *pixels, -1)
    info = probe_clip(clip, spec, pixels)
    (chosen,) = sampling.clips(sampling.resample(info, spec.fps), spec.frames, 1)
    kept = dict(stream(info, chosen.indices))
    shown = np.stack([kept[index] for index in chosen.indices.tolist()])
    return np.stack([(shown, shown[::-1])[i % 2] for i in range(batch)])


def _compare(
    shapes: dict[str, tuple[int, ...]],
    found: Mapping[str, Array],
    networks: Sequence[Any],
    clips: Sequence[torch.Tensor],
    options: ExportOptions,
) -> Case:
    expected: dict[str, Array] = {}
    joint = len(networks) > 1
    with torch.inference_mode():
        logits = []
        for network, clip in zip(networks, clips, strict=True):
            suffix = f"_{'rgb' if network.in_channels == 3 else 'of'}" if joint else ""
            if network.num_classes:
                steps = network.step_logits(clip)
                logits.append(steps.mean(1).numpy())
                if options.steps:
                    expected["fc_steps"] = steps.numpy()
            if options.features or not network.num_classes:
                expected[f"features{suffix}"] = network.features(clip).numpy()
        if logits:
            expected[OUTPUT] = np.sum(logits, axis=0)
    if set(found) != set(expected):
        raise FormatError(f"the export gives {sorted(found)}; expected {sorted(expected)}")
    # numpy's maximum, unlike Python's, of a NaN is NaN
    error = float(np.max([np.abs(found[name] - want).max() for name, want in expected.items()]))
    first = OUTPUT if OUTPUT in expected else min(expected)
    same = np.array_equal(found[first].argmax(-1), expected[first].argmax(-1))
    return Case(shapes, error, float(np.abs(expected[first]).max()), bool(same))
