"""Evaluation: every video once, its logits averaged over the views of a protocol.

Protocols:

- `center`, `tao`: the middle window and square of each video, as NVIDIA TAO evaluates.
- `paper`: the whole video at once, centre square, as the authors test.
- `multi:CLIPSxCROPS`: windows spread over the video by 1 (centre) or 3 squares, such as multi:10x3.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from i3dzoo.errors import RecipeError
from i3dzoo.metadata import Stream
from i3dzoo.training.clips import pinned
from i3dzoo.training.plan import share
from i3dzoo.training.predictions import Prediction
from i3dzoo.video import (
    CENTRE,
    WHOLE,
    BadVideo,
    Sampling,
    VideoDataset,
    normalise,
    together,
)

__all__ = ["Run", "one_by_one", "parse_protocol", "predict_videos"]

Run = Callable[[Iterable[Mapping[Stream, Tensor]]], Iterator[Tensor]]
"""From batches of clips by stream, float32 [V, C, T, H, W], to logits [V, classes], in order."""


def one_by_one(network: Callable[[Mapping[Stream, Tensor]], Tensor]) -> Run:
    """Return what runs a network on one batch after another."""
    return lambda batches: map(network, batches)


def parse_protocol(text: str) -> Sampling:
    """Return which views of a video a protocol takes.

    Raises:
        RecipeError: There is no such protocol.
    """
    if text in ("center", "centre", "tao"):
        return CENTRE
    if text == "paper":
        return WHOLE
    found = re.fullmatch(r"multi:([1-9]\d{0,2})x([13])", text)
    if found is None:
        raise RecipeError(
            f"there is no protocol {text!r}; expected center, tao, paper, or multi:CLIPSxCROPS "
            "with 1 or 3 crops, such as multi:10x3"
        )
    crop: Literal["centre", "three"] = "three" if found.group(2) == "3" else "centre"
    return Sampling("multi", clips=int(found.group(1)), crop=crop)


@torch.inference_mode()
def predict_videos(
    run: Run,
    datasets: Mapping[Stream, VideoDataset],
    *,
    labels: Collection[int] | None = None,
    device: torch.device | None = None,
    batch_size: int = 8,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    done: Collection[str] = (),
    skipped: Callable[[BadVideo], None] = lambda _: None,
) -> Iterator[Prediction]:
    """Predict each video once, in the order of the dataset.

    Args:
        run: From batches to logits; it may take batches before it gives logits, and so compute
            while the next is made.
        datasets: Of the same videos, by stream.
        labels: Class of each video in the order of the logits; None takes the dataset's.
        device: Where the network is.
        batch_size: Views at once, of one video or of several.
        rank: Number of this process; it takes every `world`-th video.
        world: Number of processes.
        workers: Processes that decode; 0 decodes in this one.
        done: Videos that need not be predicted again.
        skipped: Called with each video that cannot be read, where those are skipped.

    Yields:
        A prediction a video; one that was skipped is left out.
    """
    first = next(iter(datasets.values()))
    classes = list(first.labels if labels is None else labels)
    own = share(range(len(first)), rank, world)
    numbers = [number for number in own if first.entries[number].file not in done]
    device = device or torch.device("cpu")
    loader: DataLoader[_Video] = DataLoader(
        _Videos(datasets),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
    )
    groups = _groups(_readable(pinned(loader, device), skipped), batch_size)
    for videos, logits in _run(run, groups, datasets, device, batch_size):
        bounds = np.cumsum([len(video) for video in videos])[:-1]
        for video, part in zip(videos, np.split(logits, bounds), strict=True):
            file, label = first.entries[video.number].file, classes[video.number]
            yield Prediction(file, label, part.mean(0).astype(np.float32), len(video))


@dataclass
class _Video:
    """The views of a video by stream, uint8 [V, C, T, H, W]: none where it is bad."""

    number: int
    views: dict[Stream, Tensor]
    bad: tuple[BadVideo, ...] = ()

    def __len__(self) -> int:
        return min((len(views) for views in self.views.values()), default=0)

    def pin_memory(self) -> "_Video":
        """Return the views in pinned memory."""
        return replace(self, views={key: views.pin_memory() for key, views in self.views.items()})


class _Videos(Dataset[_Video]):
    def __init__(self, datasets: Mapping[Stream, VideoDataset]) -> None:
        self.datasets = datasets

    def __getitem__(self, number: int) -> _Video:
        samples = together(list(self.datasets.values()), number)
        found = [sample.views for sample in samples if sample.views is not None]
        count = min(map(len, found), default=0)  # a stream may have fewer windows than the other
        views = {key: each[:count] for key, each in zip(self.datasets, found, strict=bool(found))}
        return _Video(number, views, samples[0].bad)


def _readable(videos: Iterable[_Video], skipped: Callable[[BadVideo], None]) -> Iterator[_Video]:
    for video in videos:
        for one in video.bad:
            skipped(one)
        if len(video):
            yield video


def _groups(videos: Iterable[_Video], batch_size: int) -> Iterator[list[_Video]]:
    """Put videos together until they fill a batch; those of one group have views of one shape."""
    group: list[_Video] = []
    for video in videos:
        if group and _shapes(video) != _shapes(group[0]):
            yield group
            group = []
        group.append(video)
        if sum(map(len, group)) >= batch_size:
            yield group
            group = []
    if group:
        yield group


def _shapes(video: _Video) -> list[torch.Size]:
    return [views.shape[1:] for views in video.views.values()]


def _run(
    run: Run,
    groups: Iterable[list[_Video]],
    datasets: Mapping[Stream, VideoDataset],
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[list[_Video], npt.NDArray[np.float64]]]:
    """Yield each group with the logits of its views, float64 [V, classes]."""
    flying: deque[tuple[list[_Video], int]] = deque()  # with the number of batches of each

    def batches() -> Iterator[dict[Stream, Tensor]]:
        for videos in groups:
            views = {
                stream: torch.cat([v.views[stream].to(device, non_blocking=True) for v in videos])
                for stream in datasets
            }
            starts = range(0, sum(map(len, videos)), batch_size)
            flying.append((videos, len(starts)))
            for start in starts:
                part = slice(start, start + batch_size)
                yield {
                    stream: normalise(each[part], datasets[stream].spec)
                    for stream, each in views.items()
                }

    found: list[npt.NDArray[np.float64]] = []
    for logits in run(batches()):
        found.append(logits.double().cpu().numpy())
        if len(found) == flying[0][1]:
            yield flying.popleft()[0], np.concatenate(found)
            found = []
