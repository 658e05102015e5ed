"""Prepared datasets as the training loop takes them: one or two streams of the same videos."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from i3dzoo.errors import DatasetError
from i3dzoo.metadata import Input, Stream
from i3dzoo.training.clips import Clip
from i3dzoo.training.recipe import Augment
from i3dzoo.video import CENTRE, TRAIN, FrameCache, Sampling, VideoDataset, normalise, together

__all__ = ["OnBadVideo", "VideoClips", "augmented_input", "open_streams", "training_sampling"]

OnBadVideo = Literal["error", "skip"]


def augmented_input(spec: Input, augment: Augment) -> Input:
    """Return a checkpoint's input with what a recipe changes of it."""
    fps = spec.fps
    if augment.fps == "native":
        fps = None
    elif augment.fps != "checkpoint":
        fps = float(augment.fps)
    keys = ("frames", "resize", "crop", "mean", "std")
    changed = {key: getattr(augment, key) for key in keys if getattr(augment, key) is not None}
    return replace(spec, **changed, fps=fps)


def training_sampling(augment: Augment) -> Sampling:
    """Return which views of a video are trained on."""
    crop: Literal["random", "centre"] = "random" if augment.train_crop == "random" else "centre"
    return replace(TRAIN, crop=crop, flip=augment.flip)


def open_streams(
    data: Path,
    specs: Mapping[Stream, Input],
    split: int | None,
    role: Literal["train", "test"] | None,
    sampling: Sampling = CENTRE,
    *,
    seed: int = 0,
    on_bad_video: OnBadVideo = "error",
    cache: FrameCache | None = None,
) -> dict[Stream, VideoDataset]:
    """Open the same videos once for each stream.

    Args:
        data: A prepared dataset, or a folder in TAO's layout.
        specs: What each stream's network takes.
        split: 1, 2 or 3; None where the folder holds one role alone.
        role: `train` or `test`; None likewise.
        sampling: Which views of a video make up its sample.
        seed: Of windows, crops and flips; the same for all streams, which go together.
        on_bad_video: `error` or `skip`.
        cache: Keeps decoded frames.

    Raises:
        MissingFileError: There is no such dataset.
        DatasetError: It is malformed, or has no video of this role.
    """
    return {
        stream: VideoDataset(
            data,
            spec,
            split,
            role,
            sampling,
            seed=seed,
            on_bad_video=on_bad_video,
            cache=cache,
        )
        for stream, spec in specs.items()
    }


class VideoClips:
    """One clip a video, by stream; what the training loop reads.

    Args:
        datasets: Of the same videos, by stream; one view a video.
        classes: Names of the classes in the order of the logits; None takes the dataset's. A label
            map with an order of its own, such as TAO's, is respected.
        clips_per_video: Clips of each video in an epoch, each drawn for itself.

    Raises:
        DatasetError: A video's class is not among `classes`.
    """

    def __init__(
        self,
        datasets: Mapping[Stream, VideoDataset],
        classes: Sequence[str] | None = None,
        clips_per_video: int = 1,
    ) -> None:
        self.datasets, self.clips_per_video = datasets, clips_per_video
        first = next(iter(datasets.values()))
        self.classes = tuple(classes or first.index.classes)
        numbers = {name: number for number, name in enumerate(self.classes)}
        unknown = sorted({entry.label for entry in first.entries} - set(numbers))
        if unknown:
            raise DatasetError(
                f"{first.index.root}: has videos of the class {unknown[0]}, which is not among the "
                f"{len(self.classes)} classes ({', '.join(self.classes[:3])}, …)"
            )
        self.labels = tuple(numbers[entry.label] for entry in first.entries) * clips_per_video
        self.videos = tuple(entry.file for entry in first.entries)

    @property
    def digest(self) -> str:
        """SHA-256 of the videos' names and classes, and of the order of the classes."""
        first = next(iter(self.datasets.values()))
        videos = [[entry.file, entry.label] for entry in first.entries]
        return hashlib.sha256(json.dumps([self.classes, videos]).encode()).hexdigest()

    def clip(self, epoch: int, number: int) -> Clip:
        """Return one clip by stream: uint8 [C, T, H, W]; of the next video where it is bad."""
        again, video = divmod(number, len(self.videos))
        # Not by set_epoch, which all workers share: they may be at clips of different epochs.
        drawn = epoch * self.clips_per_video + again
        samples = together(list(self.datasets.values()), video, drawn)
        views: dict[str, Tensor] = {
            stream: sample.views[0]
            for stream, sample in zip(self.datasets, samples, strict=True)
            if sample.views is not None
        }
        if len(views) < len(samples):
            raise DatasetError(f"{self.videos[video]}: cannot be read: {samples[0].bad[0].reason}")
        return Clip(views, self.labels[samples[0].index], samples[0].bad)

    def normalise(self, stream: str, clips: Tensor) -> Tensor:
        """Return uint8 clips [B, C, T, H, W] as the network takes them, on their device."""
        spec = next(dataset.spec for name, dataset in self.datasets.items() if name == stream)
        return normalise(clips, spec)
