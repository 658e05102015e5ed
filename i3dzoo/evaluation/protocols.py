"""Predict the videos of a dataset by a protocol, which defines the views of each video.

The logits of a video are averaged over its views. Protocols:

- `center`, `tao`: the middle window and the centre square of a video, as NVIDIA TAO evaluates.
- `paper`: the whole video at once, centre square, as the authors of I3D test.
- `multi:CLIPSxCROPS`: windows spread over the video, with 1 (centre) or 3 squares each, such as
  multi:10x3.
"""

import re
from collections.abc import Callable, Collection, Iterator
from functools import partial

import numpy as np
import torch

from i3dzoo.distributed import ProcessGroup, shard
from i3dzoo.errors import RecipeError
from i3dzoo.evaluation.predictions import VideoPrediction
from i3dzoo.video import CENTRE, WHOLE, BadVideo, Sampling, VideoDataset
from i3dzoo.video.bad_videos import UNREADABLE
from i3dzoo.video.pipeline import Forward, KnownVideo, PipelineOptions, run_plans


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


def predict_dataset(
    forward: Forward,
    dataset: VideoDataset,
    *,
    device: torch.device | None = None,
    batch_size: int = 8,
    processes: ProcessGroup = ProcessGroup(),  # noqa: B008 - it is frozen
    workers: int | None = None,
    done: Collection[str] = (),
    skipped: Callable[[BadVideo], None] = lambda _: None,
) -> Iterator[VideoPrediction]:
    """Predict this process's share of the videos, each once, in the order of the dataset.

    The pixels are those that `load_batches` gives to the validation of `finetune`.

    Args:
        forward: The network; yields logits [V, classes] of views.
        dataset: The videos, of one stream, and their views, none of which is random.
        device: Where views are made; None for the CPU.
        batch_size: Most views, of one video or of several, that run at once.
        processes: The processes that share the videos.
        workers: Most videos that are decoded at once; 0 decodes one, and in this process. None
            chooses by the device.
        done: Names of videos that are left out.
        skipped: Called with each video that cannot be read, if the dataset skips those.
    """
    (stream,) = dataset.specs
    own = shard(range(len(dataset)), processes.rank, processes.world_size)
    numbers = [number for number in own if dataset.videos[number] not in done]
    videos = [
        KnownVideo(dataset.videos[number], partial(dataset.plan, stream, number))
        for number in numbers
    ]
    options = PipelineOptions(
        device=device or torch.device("cpu"),
        batch_size=batch_size,
        workers=workers,
        processes=False if workers == 0 else None,
    )
    results = run_plans(forward, videos, options=options)
    for number, result in zip(numbers, results, strict=True):
        if isinstance(result, BadVideo):
            if dataset.on_bad_video == "error" or not isinstance(result.error, UNREADABLE):
                raise result.error or RuntimeError(result.reason)
            skipped(BadVideo(result.file, result.reason))
            continue
        views = np.concatenate(result.outputs).astype(np.float64)
        yield VideoPrediction(
            dataset.videos[number],
            dataset.label(number),
            views.mean(0).astype(np.float32),
            len(views),
        )
