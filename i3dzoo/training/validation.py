"""Predict the validation videos of a run, with the loader of its training.

It reads RGB and optical flow of a video together, and takes frames from the run's cache. `evaluate`
reads videos by `i3dzoo.video.pipeline`, with the same pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.distributed import ProcessGroup, shard
from i3dzoo.evaluation.predictions import VideoPrediction
from i3dzoo.video import BadVideo, Batch, VideoDataset, load_batches


@torch.inference_mode()
def predict_validation(
    network: Callable[[Mapping[Stream, Tensor]], Tensor],
    dataset: VideoDataset,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    processes: ProcessGroup = ProcessGroup(),  # noqa: B008 - it is frozen
    workers: int = 0,
    skipped: Callable[[BadVideo], None] = lambda _: None,
) -> Iterator[VideoPrediction]:
    """Predict this process's share of the videos, each once, in the order of the dataset.

    Args:
        network: Returns logits [V, classes] of views, float32 [V, C, T, H, W] by stream.
        dataset: The videos and their views.
        device: Device of the views.
        batch_size: Most views, of one video or of several, that run at once.
        processes: The processes that share the videos.
        workers: Processes that decode; 0 decodes in this one.
        skipped: Called with each video that cannot be read, if the dataset skips those.
    """
    own = shard(range(len(dataset)), processes.rank, processes.world_size)
    batches = ((0, [number]) for number in own)
    loaded = load_batches(dataset, batches, device=device, workers=workers)
    for videos in _group(loaded, batch_size, skipped):
        views = {
            stream: torch.cat([video.clips[stream] for video in videos]) for stream in dataset.specs
        }
        logits = []
        for start in range(0, sum(video.views[0] for video in videos), batch_size):
            part = {
                stream: dataset.normalise(stream, clips[start : start + batch_size])
                for stream, clips in views.items()
            }
            logits.append(network(part).cpu().double())
        bounds = np.cumsum([video.views[0] for video in videos])[:-1]
        rows_by_video = np.split(torch.cat(logits).numpy(), bounds)
        for video, rows in zip(videos, rows_by_video, strict=True):
            number = video.videos[0]
            mean = rows.mean(0).astype(np.float32)
            yield VideoPrediction(dataset.videos[number], dataset.label(number), mean, len(rows))


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
