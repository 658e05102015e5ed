"""Compare an exported network with PyTorch."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.metadata import Input
from i3dzoo.engines.torch import TorchEngine
from i3dzoo.errors import FormatError
from i3dzoo.exporters.job import Case, ExportJob, Parity
from i3dzoo.onnx.options import OUTPUT, ExportOptions, Precision, Size
from i3dzoo.video import centre_clip, preprocess, probe, sampling, stream
from i3dzoo.video.transforms import resize_frames

Runner = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Runs an exported network: from an array for each input to an array for each output, by name."""

TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2, "bf16": 1e-1}
"""The largest difference that passes by default, as a part of the largest logit.

Half precision and TF32 have 11 significant bits and bfloat16 has 8; errors add up over 22
convolutions.
"""

_OTHER_SIZE: Final = (13, 49, 66)  # odd, and with a last map that is smaller than 7x7
_NOISE_CELL: Final = 16  # pixels from one random value to the next


def check_parity(
    job: ExportJob, run: Runner, runner: str, batches: Sequence[tuple[int, Size]] | None = None
) -> Parity:
    """Compare an exported network with PyTorch, batch by batch.

    `batches` has the size of each batch, and its frames, height and width where axes are dynamic.
    None compares batches of one and two, and another size if an axis is dynamic.
    """
    if batches is None:
        batches = [(1, (None, None, None)), (2, (None, None, None))]
        batches += [(2, _OTHER_SIZE)] if job.options.dynamic else []
    engines = [
        TorchEngine.from_checkpoint(checkpoint, job.device, "fp32")
        for checkpoint in job.checkpoints
    ]
    read_clip = functools.cache(centre_clip)
    cases = []
    job.progress.start("comparisons with PyTorch", len(batches), "items")
    for batch, size in batches:
        inputs, clips = _make_inputs(job, batch, size, read_clip)
        outputs = run(inputs)
        for name, array in outputs.items():
            if not np.isfinite(array).all():
                raise FormatError(
                    f"{job.path}: was not written: {runner} returns {name} with values that are "
                    f"not finite at batch {batch}; {job.options.precision} cannot hold the numbers "
                    "of this network, so use another --precision"
                )
        expected = _expected_outputs(engines, clips, job.options)
        case = _compare(job, inputs, outputs, expected)
        if not case.error <= case.tolerance:  # also if the error is not a number
            raise FormatError(
                f"{job.path}: was not written: {runner} differs from PyTorch by {case.error:.3g} "
                f"at {next(iter(case.shapes.values()))}; expected at most {case.tolerance:.3g}. "
                "Pass a larger --atol if this is good enough, or another --precision"
            )
        cases.append(case)
        job.progress.update(len(cases))
    clip = job.parity.clip
    return Parity(runner, str(clip) if clip else f"noise, seed {job.parity.seed}", tuple(cases))


def _make_inputs(
    job: ExportJob, batch: int, size: Size, read_clip: Callable[[Path, Input], torch.Tensor]
) -> tuple[dict[str, Array], list[torch.Tensor]]:
    """Return the inputs of the exported network, and the clips for PyTorch."""
    video, generator = job.parity.clip, np.random.default_rng(job.parity.seed)
    inputs: dict[str, Array] = {}
    clips = []
    for checkpoint in job.checkpoints:
        name, shape = job.options.input_shape(checkpoint.metadata, batch, size)
        spec = checkpoint.metadata.input.replace(frames=shape[1 if job.options.pixels else 2])
        if job.options.pixels:
            frames = (
                _noise_frames(shape, generator)
                if video is None
                else _alternate(_video_frames(spec, job.options.pixels, video), batch)
            )
            inputs[name] = frames
            clips.append(torch.stack([preprocess(clip, spec) for clip in frames]))
            continue
        if video is None:
            clip = generator.uniform(-1, 1, shape).astype("f4")
        else:
            middle = torch.nn.functional.interpolate(read_clip(video, spec), shape[3:])
            clip = _alternate(middle.transpose(0, 1).numpy(), batch).swapaxes(1, 2)
        inputs[name] = clip
        clips.append(torch.from_numpy(clip))
    return inputs, clips


def _alternate(frames: Array, batch: int) -> Array:
    """Return a batch of clips [T, ...], every other reversed in time, so that they differ."""
    return np.stack([frames[::-1] if number % 2 else frames for number in range(batch)])


def _noise_frames(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Return uint8 frames [B, T, H, W, C] of noise that is smooth, as real frames are.

    Resizing has no agreed result between pixels that differ as much as they can.
    """
    batch, frames, height, width, channels = shape
    cells = (batch * frames, -(-height // _NOISE_CELL), -(-width // _NOISE_CELL), channels)
    noise = torch.from_numpy(generator.integers(0, 256, cells, "u1"))
    return resize_frames(noise, (height, width)).permute(0, 2, 3, 1).numpy().reshape(shape)


def _video_frames(spec: Input, pixels: tuple[int, int], video: Path) -> Array:
    """Return the uint8 frames [T, H, W, C] of a video's middle clip."""
    info = probe(video, spec.decoded)
    if (info.height, info.width) != pixels:
        raise FormatError(
            f"{video}: expected frames of {pixels[1]}x{pixels[0]} pixels, as --pixels says, found "
            f"{info.width}x{info.height}; pass a video of that size with --clip"
        )
    (sample,) = sampling.clips(sampling.resample(info, spec.fps), spec.frames, 1, spec.sampling)
    decoded = dict(stream(info, sample.indices))
    return np.stack([decoded[index] for index in sample.indices.tolist()])


def _expected_outputs(
    engines: Sequence[TorchEngine], clips: Sequence[torch.Tensor], options: ExportOptions
) -> dict[str, Array]:
    """Return PyTorch's outputs, by the names of the exported network's."""
    outputs: dict[str, Array] = {}
    logits = []
    for engine, clip in zip(engines, clips, strict=True):
        suffix = f"_{'rgb' if clip.shape[1] == 3 else 'of'}" if len(engines) > 1 else ""
        if engine.num_classes:
            steps = engine.step_logits(clip).cpu()
            logits.append(steps.mean(1).numpy())
            if options.steps:
                outputs["fc_steps"] = steps.numpy()
        if options.features or not engine.num_classes:
            outputs[f"features{suffix}"] = engine.features(clip).cpu().numpy()
    if logits:
        outputs[OUTPUT] = np.sum(logits, axis=0)
    return outputs


def _compare(
    job: ExportJob,
    inputs: dict[str, Array],
    outputs: Mapping[str, Array],
    expected: dict[str, Array],
) -> Case:
    if set(outputs) != set(expected):
        raise FormatError(
            f"{job.path}: was not written: expected the outputs {sorted(expected)}, found "
            f"{sorted(outputs)}"
        )
    # NumPy's maximum of a NaN is NaN; Python's is not
    error = float(np.max([np.abs(outputs[name] - want).max() for name, want in expected.items()]))
    main = OUTPUT if OUTPUT in expected else min(expected)
    largest = float(np.abs(expected[main]).max())
    tolerance = job.parity.atol
    if tolerance is None:
        tolerance = TOLERANCE[job.options.precision] * max(largest, 1.0)
    same_top = np.array_equal(outputs[main].argmax(-1), expected[main].argmax(-1))
    shapes = {name: array.shape for name, array in inputs.items()}
    return Case(shapes, error, largest, same_top, tolerance)
