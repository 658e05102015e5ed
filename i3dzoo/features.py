"""Features of videos: what the network sees before it names anything.

The pooled 1024 numbers are what FVD and most users of I3D features take; any other endpoint is
averaged over its positions, and over its time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from i3dzoo._files import atomic_write
from i3dzoo.architecture import ENDPOINTS, MIN_FRAMES
from i3dzoo.arrays import Array
from i3dzoo.errors import FormatError, MetadataError, UnknownNameError
from i3dzoo.video import load_clips, probe, sampling

if TYPE_CHECKING:
    import torch

    from i3dzoo.engines import Engine

__all__ = ["POOLED", "SUFFIXES", "Features", "extract", "write_features"]

POOLED: Final = "pooled"
"""What comes before the head: the last endpoint, average-pooled."""

SUFFIXES: Final = (".npy", ".npz", ".safetensors")


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a video.

    Attributes:
        vectors: float32 [windows, channels], or [1, channels] where their mean was asked for.
        spans: Where each window begins and ends in seconds, float64 [windows, 2]; NaN where the
            source has no frame rate.
        notes: What was sampled and how, and what is wrong with the video, one sentence each.
    """

    vectors: Array
    spans: Array
    notes: tuple[str, ...]


def extract(
    model: "Engine",
    path: str | Path,
    *,
    endpoint: str = POOLED,
    clips: int | None = None,
    stride: int | None = None,
    mean: bool = False,
) -> Features:
    """Return the features of a video.

    Args:
        model: From `i3dzoo.load`, or any other engine from `i3dzoo.engines.load_engine`; all but
            PyTorch give the pooled features only.
        path: A video; see `i3dzoo.video.probe`.
        endpoint: `pooled`, or of `i3dzoo.architecture.ENDPOINTS`.
        clips: Windows spread over the video; None covers it from end to end.
        stride: Frames from one window to the next where they cover it; None is their length.
        mean: Average the windows.

    Raises:
        MissingFileError: There is nothing at this path.
        VideoError: The video cannot be decoded, or is not of the stream that the model takes.
        MetadataError: The model has no metadata, or was exported without features.
        UnknownNameError: There is no such endpoint, or the engine does not give it.
        FormatError: The features are not finite, so the weights are broken.
    """
    if endpoint not in (POOLED, *ENDPOINTS):
        raise UnknownNameError(
            f"no endpoint is called {endpoint!r}; there are {POOLED}, {', '.join(ENDPOINTS)}"
        )
    if model.metadata is None:
        raise MetadataError("the model has no metadata; i3dzoo.load gives one that has")
    spec = model.metadata.input
    info = probe(path, spec.channels)
    samples = sampling.resample(info, spec.fps)
    frames = max(spec.frames, MIN_FRAMES)
    if clips is not None or len(samples) <= frames:
        chosen = sampling.clips(samples, frames, clips or 1)
    else:
        chosen = sampling.windows(samples, frames, stride or frames)
    loaded = (pixels for _, pixels in load_clips(info, chosen, spec))
    vectors = np.stack([each.float().cpu().numpy() for each in _run(model, loaded, endpoint)])
    if not np.isfinite(vectors).all():
        raise FormatError(
            f"{path}: its features are not finite: the weights are broken; try `i3dzoo verify`"
        )
    return Features(
        vectors.mean(0, keepdims=True) if mean else vectors,
        np.array([(clip.start, clip.end) for clip in chosen], "f8"),
        (*info.warnings, samples.note, f"windows of {frames} frames: {len(chosen)}"),
    )


def write_features(path: Path, features: Features) -> Path:
    """Write a video's features: the vectors alone as .npy, with `spans` as .npz or .safetensors.

    Raises:
        OutputError: It cannot be written.
        MetadataError: The suffix is none of `SUFFIXES`.
    """
    arrays = {"features": features.vectors, "spans": features.spans}
    if path.suffix not in SUFFIXES:
        raise MetadataError(f"{path}: is of no known kind; expected {', '.join(SUFFIXES)}")
    with atomic_write(path) as file:
        if path.suffix == ".npy":
            np.save(file, features.vectors)
        elif path.suffix == ".npz":
            np.savez(file, allow_pickle=False, **arrays)
        else:
            from safetensors.numpy import save

            file.write(save(arrays))
    return path


def _run(
    model: "Engine", clips: Iterable["torch.Tensor"], endpoint: str
) -> Iterator["torch.Tensor"]:
    """Yield the features [channels] of clips [C, T, H, W]."""
    import torch

    from i3dzoo.engines import device_of, run_clips
    from i3dzoo.model import InceptionI3d

    if endpoint == POOLED:
        yield from run_clips(model, clips, features=True)
    elif isinstance(model, InceptionI3d):
        for clip in clips:
            with torch.inference_mode():
                found = model.endpoints(clip[None].to(device_of(model)), [endpoint])[endpoint]
            yield found[0].mean((1, 2, 3))
    else:
        raise UnknownNameError(
            f"exported models give the pooled features, not {endpoint}; use --engine torch"
        )
