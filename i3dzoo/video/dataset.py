"""A prepared dataset as a PyTorch dataset; docs/guides/data.md has examples."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from i3dzoo.checkpoints.metadata import Input, Stream
from i3dzoo.errors import DatasetError
from i3dzoo.text import listing
from i3dzoo.video.bad_videos import UNREADABLE, BadVideo
from i3dzoo.video.cache import FrameCache
from i3dzoo.video.index import Entry, Index
from i3dzoo.video.index_file import read_index
from i3dzoo.video.plan import Plan
from i3dzoo.video.splits import Role
from i3dzoo.video.transforms import normalise
from i3dzoo.video.views import CENTRE, Sampling, ViewReader

OnBadVideo = Literal["error", "skip"]

_MAX_SUBSTITUTES = 100


@dataclass(frozen=True, eq=False)
class Sample:
    """The views of one video.

    Attributes:
        views: By stream: [V, C, T, H, W]; empty if the video was skipped. Those of `VideoDataset`
            are uint8 in `torch.channels_last_3d` memory order, clip by clip and, within a clip,
            crop by crop.
        label: Number of its class.
        video: Number of the video; where a bad video was replaced, that of its substitute.
        bad: The videos that were skipped for this sample.
    """

    views: Mapping[Stream, Tensor]
    label: int
    video: int
    bad: tuple[BadVideo, ...] = ()


class VideoDataset(Dataset[Sample]):
    """Videos of one role of one split, as one stream or as RGB and optical flow together.

    A sample depends only on the seed, the epoch and its number, and not on the number of workers
    or on the order in which samples are read.

    Attributes:
        index: The dataset on disk.
        entries: The videos of this role.
        specs: Input of the network of each stream.
        sampling: Which views a sample has.
        classes: Names of the classes, in the order of the logits.
        labels: Class of each sample, as its number in `classes`; -1 in a multi-label dataset.
        targets: Classes of each video of a multi-label dataset, int64 [N, C] of 0 and 1; None if
            each video has one class.
        videos: Name of each video: its file, with the seconds of a segment.
        unusable: Videos of this role that are not in `entries` because the index says that they
            cannot be used.
    """

    def __init__(
        self,
        data: str | Path | Index,
        specs: Input | Mapping[Stream, Input],
        split: int | None = None,
        role: Role | None = None,
        sampling: Sampling = CENTRE,
        *,
        classes: Sequence[str] | None = None,
        clips_per_video: int = 1,
        seed: int = 0,
        on_bad_video: OnBadVideo = "error",
        cache: FrameCache | None = None,
        threads: int = 1,
    ) -> None:
        """Choose the videos; no video is opened.

        Args:
            data: An index, its path, the folder that holds it, or a folder in TAO's layout.
            specs: Input of the network, as in its checkpoint's metadata (`xy` channels read optical
                flow), or one for each stream.
            split: 1, 2 or 3; None, together with `role`, for all videos.
            role: `train`, `val` or `test`.
            sampling: `TRAIN`, `CENTRE`, `MULTI`, `WHOLE`, or a `Sampling` of your own.
            classes: Names of the classes in the order of the logits; None takes the dataset's.
            clips_per_video: Samples of each video in an epoch, each drawn separately.
            seed: Seed of windows, crops and flips.
            on_bad_video: `error` raises when a video cannot be read or the index says that it
                cannot be used. `skip` continues: with random windows, the former is replaced by the
                next video that can be read and the latter is left out; with other windows, the
                sample has no views. `Sample.bad` names the videos that were skipped.
            cache: Keeps decoded frames; the datasets of a run can share it.
            threads: Threads that decode one video; more than one only helps without workers.

        Raises:
            MissingFileError: The dataset does not exist.
            DatasetError: The dataset is malformed, no video has this role, a video has a class that
                is not in `classes`, a video cannot be used and `on_bad_video` is `error`, or no
                video can be used.
            ShapeError: The crop is larger than the short side.
        """
        self.index = data if isinstance(data, Index) else read_index(data)
        if isinstance(specs, Input):
            specs = {"flow" if specs.channels == "xy" else "rgb": specs}
        self.specs, self.sampling, self.seed = specs, sampling, seed
        self.on_bad_video, self.clips_per_video = on_bad_video, clips_per_video
        self.entries, self.unusable = self._select(split, role)
        self.classes = tuple(classes or self.index.classes)
        self.targets = self._target()
        labels = self._label() if self.targets is None else (-1,) * len(self.entries)
        self.labels = labels * clips_per_video
        self.videos = tuple(entry.name for entry in self.entries)
        self._readers: dict[Stream, ViewReader] = {
            stream: ViewReader(self.index, self.entries, spec, sampling, cache, threads)
            for stream, spec in specs.items()
        }

    def _select(
        self, split: int | None, role: Role | None
    ) -> tuple[tuple[Entry, ...], tuple[BadVideo, ...]]:
        """Return the videos of a role, and those that are left out."""
        entries, root = self.index.select(split, role), self.index.root
        unusable = [entry for entry in entries if entry.error is not None]
        if unusable and (self.on_bad_video == "error" or len(unusable) == len(entries)):
            some = self.on_bad_video == "error"
            raise DatasetError(
                f"{root}: {len(unusable)} of {len(entries)} videos cannot be used, "
                f"the first is {unusable[0].file} ({unusable[0].error})"
                f"{'; pass --on-bad-video skip to leave them out' if some else ''}"
            )
        if self.sampling.time != "random":
            return entries, ()
        bad = tuple(
            BadVideo(entry.name, f"{self.index.path(entry)}: {entry.error}") for entry in unusable
        )
        return tuple(entry for entry in entries if entry.error is None), bad

    def _target(self) -> npt.NDArray[np.int64] | None:
        if not any(entry.labels for entry in self.entries):
            return None
        numbers = self._numbers({label for entry in self.entries for label in entry.labels})
        targets = np.zeros((len(self.entries), len(self.classes)), np.int64)
        for row, entry in zip(targets, self.entries, strict=True):
            row[[numbers[label] for label in entry.labels]] = 1
        return targets

    def _label(self) -> tuple[int, ...]:
        numbers = self._numbers({entry.label for entry in self.entries})
        return tuple(numbers[entry.label] for entry in self.entries)

    def _numbers(self, labels: set[str]) -> dict[str, int]:
        """Return the number of each label; names match in any Unicode form."""
        numbers = {normalize("NFC", name): number for number, name in enumerate(self.classes)}
        forms = {label: normalize("NFC", label) for label in labels}
        unknown = sorted(set(forms.values()) - set(numbers))
        if unknown:
            raise DatasetError(
                f"{self.index.root}: has videos of the class {unknown[0]}, which is not among the "
                f"{len(self.classes)} classes ({listing(self.classes)})"
            )
        return {label: numbers[form] for label, form in forms.items()}

    def label(self, number: int) -> int | tuple[int, ...]:
        """Return the class of a sample, or its classes in a multi-label dataset."""
        if self.targets is None:
            return self.labels[number]
        return tuple(np.flatnonzero(self.targets[number % len(self.entries)]).tolist())

    @property
    def digest(self) -> str:
        """SHA-256 of the videos' files and classes, and of the order of the classes."""
        videos = [[entry.name, *(entry.labels or (entry.label,))] for entry in self.entries]
        return hashlib.sha256(json.dumps([self.classes, videos]).encode()).hexdigest()

    @property
    def clip_shapes(self) -> Mapping[Stream, tuple[int, int, int, int]] | None:
        """Shape of each clip by stream, [C, T, H, W], if every sample has one clip of it."""
        if self.sampling.time != "random" or self.sampling.crop == "three":
            return None
        return {
            stream: (len(spec.mean), spec.frames, spec.crop, spec.crop)
            for stream, spec in self.specs.items()
        }

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> Sample:
        return self.sample(0, number)

    def sample(self, epoch: int, number: int) -> Sample:
        """Read one sample.

        A video that one stream cannot read is bad for all streams.

        Args:
            epoch: Draws other windows, crops and flips in every epoch.
            number: 0 to the number of samples.

        Raises:
            IndexError: There is no sample of this number.
            VideoError, MissingFileError, DatasetError: The video is bad and `on_bad_video` is
                `error`, or too many videos in a row are bad.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of a dataset of {len(self)} samples")
        repeat, first = divmod(number, len(self.entries))
        random = self.sampling.time == "random"
        tries = min(len(self.entries), _MAX_SUBSTITUTES) if random else 1
        bad: list[BadVideo] = []
        for attempt in range(tries):
            video = (first + attempt) % len(self.entries)
            key = (self.seed, epoch * self.clips_per_video + repeat, first, attempt)
            try:
                return Sample(self._views(video, key), self.labels[video], video, tuple(bad))
            except (*UNREADABLE, OSError) as error:
                if self.on_bad_video == "error":
                    raise
                bad.append(BadVideo(self.entries[video].name, str(error)))
        if random:
            raise DatasetError(
                f"{tries} videos in a row cannot be read, the last {bad[-1].file}: {bad[-1].reason}"
            )
        return Sample({}, self.labels[first], first, tuple(bad))

    def plan(self, stream: Stream, number: int) -> Plan:
        """Return the views of a sample for `i3dzoo.video.pipeline`, if none of them is random.

        The pipeline's pixels are those of `sample`. Raises the errors of `sample` that are found
        before a video is opened.
        """
        return self._readers[stream].plan(number % len(self.entries))

    def _views(self, video: int, key: tuple[int, ...]) -> dict[Stream, Tensor]:
        # Each stream draws the same numbers, so that its windows, crops and flips are the same.
        views = {
            stream: reader.read(video, np.random.default_rng(key))
            for stream, reader in self._readers.items()
        }
        count = min(map(len, views.values()))  # flow is shorter and may have fewer windows
        return {stream: view[:count] for stream, view in views.items()}

    def normalise(self, stream: Stream, clips: Tensor) -> Tensor:
        """Return uint8 clips [N, C, T, H, W] as float32 input of a stream's network."""
        return normalise(clips, self.specs[stream])
