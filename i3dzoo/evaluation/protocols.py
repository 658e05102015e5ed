"""Predict the videos of a dataset by a protocol, which defines the views of each video.

The logits of a video are averaged over its views. Protocols:

- `center`, `tao`: the middle window and the centre square of a video, as NVIDIA TAO evaluates.
- `paper`: the whole video at once, centre square, as the authors of I3D test.
- `multi:CLIPSxCROPS`: windows spread over the video, with 1 (centre) or 3 squares each, such as
  multi:10x3.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.distributed import ProcessGroup, shard
from i3dzoo.errors import RecipeError
from i3dzoo.evaluation.predictions import VideoPrediction
from i3dzoo.video import CENTRE, WHOLE, BadVideo, Batch, Sampling, VideoDataset, load_batches

Forward = Callable[[Iterable[Mapping[Stream, Tensor]]], Iterator[Tensor]]
"""Runs a network on batches of views, float32 [V, C, T, H, W], and yields their logits in order.

It may take further batches before it yields logits, so that loading and computing overlap.
"""


def parse_protocol(text: str) -> Sampling:
    """Return the views that a protocol takes of a video."""
    if text in ("center", "centre", "tao"):
        return CENTRE
    if text == "paper":
        return WHOLE
    match = re.fullmatch(r"multi:([1-9]\d{0,2})x([13])", text)
    if match is None:
        raise RecipeError(
            f"unknown protocol {text!r}; expected center, tao, paper, or multi:CLIPSxCROPS with 1 "
            "or 3 crops, such as multi:10x3"
        )
    return Sampling("multi", clips=int(match[1]), crop="three" if match[2] == "3" else "centre")


@torch.inference_mode()
def predict_dataset(
    forward: Forward,
    dataset: VideoDataset,
    *,
    device: torch.device | None = None,
    batch_size: int = 8,
    processes: ProcessGroup = ProcessGroup(),  # noqa: B008 - it is frozen
    workers: int = 0,
    done: Collection[str] = (),
    skipped: Callable[[BadVideo], None] = lambda _: None,
) -> Iterator[VideoPrediction]:
    """Predict this process's share of the videos, each once, in the order of the dataset.

    Up to `batch_size` views, of one video or of several, run at once, on `device` or the CPU. The
    videos in `done` are left out. `skipped` is called with each video that cannot be read, if the
    dataset skips those.
    """
    targets = dataset.targets
    own = shard(range(len(dataset)), processes.rank, processes.world_size)
    batches = [(0, [number]) for number in own if dataset.videos[number] not in done]
    loaded = load_batches(dataset, batches, device=device or "cpu", workers=workers)
    groups = _group(loaded, batch_size, skipped)
    for videos, logits in _run(forward, groups, dataset, batch_size):
        bounds = np.cumsum([video.views[0] for video in videos])[:-1]
        for video, views in zip(videos, np.split(logits, bounds), strict=True):
            number = video.videos[0]
            yield VideoPrediction(
                dataset.videos[number],
                dataset.labels[number] if targets is None else _classes(targets[number]),
                views.mean(0).astype(np.float32),
                len(views),
            )


def _classes(target: npt.NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(target).tolist())


def _group(
    videos: Iterable[Batch], batch_size: int, skipped: Callable[[BadVideo], None]
) -> Iterator[list[Batch]]:
    """Group successive videos until they fill a batch; all views of a group have one shape."""
    group: list[Batch] = []
    group_shapes = None
    for video in videos:
        for bad in video.bad:
            skipped(bad)
        if not len(video):
            continue
        shapes = [clips.shape[1:] for clips in video.clips.values()]
        if group and shapes != group_shapes:
            yield group
            group = []
        group.append(video)
        group_shapes = shapes
        if sum(video.views[0] for video in group) >= batch_size:
            yield group
            group = []
    if group:
        yield group


def _run(
    forward: Forward, groups: Iterable[list[Batch]], dataset: VideoDataset, batch_size: int
) -> Iterator[tuple[list[Batch], npt.NDArray[np.float64]]]:
    """Yield each group with the logits of its views, float64 [V, classes]."""
    pending: deque[tuple[list[Batch], int]] = deque()  # groups, with their numbers of batches

    def batches() -> Iterator[dict[Stream, Tensor]]:
        for videos in groups:
            views = {
                stream: torch.cat([video.clips[stream] for video in videos])
                for stream in dataset.specs
            }
            starts = range(0, sum(video.views[0] for video in videos), batch_size)
            pending.append((videos, len(starts)))
            for start in starts:
                yield {
                    stream: dataset.normalise(stream, clips[start : start + batch_size])
                    for stream, clips in views.items()
                }

    outputs: list[npt.NDArray[np.float64]] = []
    for logits in forward(batches()):
        outputs.append(logits.cpu().double().numpy())
        if len(outputs) == pending[0][1]:
            yield pending.popleft()[0], np.concatenate(outputs)
            outputs = []
