"""Evaluation: every video once, its logits averaged over the views of a protocol.

Protocols:

- `center`, `tao`: the middle window and square of each video, as NVIDIA TAO evaluates.
- `paper`: the whole video at once, centre square, as the authors test.
- `multi:CLIPSxCROPS`: windows spread over the video by 1 (centre) or 3 squares, such as multi:10x3.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from i3dzoo.errors import RecipeError
from i3dzoo.metadata import Stream
from i3dzoo.training.plan import share
from i3dzoo.training.predictions import Prediction
from i3dzoo.video import CENTRE, WHOLE, Sampling, VideoDataset, normalise

__all__ = ["parse_protocol", "predict_videos"]

Network = Callable[[Mapping[str, Tensor]], Tensor]


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
    network: Network,
    datasets: Mapping[Stream, VideoDataset],
    *,
    labels: Collection[int] | None = None,
    device: torch.device | None = None,
    batch_size: int = 8,
    rank: int = 0,
    world: int = 1,
    done: Collection[str] = (),
) -> Iterator[Prediction]:
    """Predict each video once.

    Args:
        network: Maps clips by stream, each float32 [V, C, T, H, W], to logits [V, classes].
        datasets: Of the same videos, by stream.
        labels: Class of each video in the order of the logits; None takes the dataset's.
        device: Where the network is.
        batch_size: Views at once.
        rank: Number of this process; it takes every `world`-th video.
        world: Number of processes.
        done: Videos that need not be predicted again.

    Yields:
        A prediction a video; a video that was skipped as bad is left out.
    """
    first = next(iter(datasets.values()))
    classes = list(first.labels if labels is None else labels)
    for number in share(range(len(first)), rank, world):
        video = first.entries[number].file
        if video in done:
            continue
        views = {stream: dataset[number].views for stream, dataset in datasets.items()}
        present = {stream: found for stream, found in views.items() if found is not None}
        if len(present) < len(views):
            continue
        count = min(len(found) for found in present.values())
        total = np.zeros(0)
        for start in range(0, count, batch_size):
            clips: dict[str, Tensor] = {
                stream: normalise(
                    found[start : min(start + batch_size, count)].to(device or "cpu"),
                    datasets[stream].spec,
                )
                for stream, found in present.items()
            }
            summed = network(clips).float().sum(0).double().cpu().numpy()
            total = summed if not total.size else total + summed
        yield Prediction(video, classes[number], (total / count).astype(np.float32), count)
