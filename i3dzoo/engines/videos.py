"""Run an engine on the clips of many videos; see `i3dzoo.video.pipeline`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from i3dzoo.engines.base import Engine
from i3dzoo.engines.exported import ExportedEngine
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video import BadVideo, VideoInfo
from i3dzoo.video.pipeline import Forward, PipelineOptions, Planned, run_plans
from i3dzoo.video.plan import Plan

CPU_BATCH: Final = 4
GPU_BATCH: Final = 16
_GPU_CLIP_BYTES: Final = 1 << 30  # of one clip of 64x224x224 in float32, with room


def batch_size_of(engine: Engine) -> int:
    """Return the number of clips that an engine runs at once, by its device and its memory."""
    if isinstance(engine, ExportedEngine) and engine.batch_limit is not None:
        return min(engine.batch_limit, GPU_BATCH)
    if engine.device.type != "cuda":
        return CPU_BATCH
    memory = torch.cuda.get_device_properties(engine.device).total_memory
    return max(min(memory // _GPU_CLIP_BYTES, GPU_BATCH), 1)


def run_videos(
    engine: Engine,
    videos: Iterable[str | Path],
    plan: Callable[[VideoInfo], Plan],
    *,
    forward: Forward | None = None,
    batch_size: int | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> Iterator[Planned | BadVideo]:
    """Run an engine on the clips of videos; a video that fails does not stop the others.

    Args:
        engine: The engine.
        videos: The videos; taken as they are needed.
        plan: Returns what the engine takes of a video.
        forward: Runs batches; by default, it yields their logits [B, steps, classes].
        batch_size: Clips that run at once; None chooses by the device.
        progress: Shows the videos, or the clips if there is one video.
        options: Further fields of `PipelineOptions`.

    Yields:
        For each video its outputs, or why there are none.
    """
    chosen = PipelineOptions(
        device=engine.device, batch_size=batch_size or batch_size_of(engine), **options
    )
    count = len(videos) if isinstance(videos, Sequence) else None
    on_clips = _clip_progress(progress, str(videos[0])) if count == 1 else None  # type: ignore[index] # a sequence
    if count != 1:
        progress.start("videos", count, "items")
    for done, result in enumerate(
        run_plans(forward or engine.stream, videos, plan, chosen, on_clips), 1
    ):
        if count != 1:
            progress.update(done)
        yield result


def _clip_progress(progress: Progress, video: str) -> Callable[[int, int], None]:
    """Show the clips of a video that has several."""

    def show(done: int, total: int) -> None:
        if total > 1:
            if done <= 1:
                progress.start(f"clips of {Path(video).name}", total, "items")
            progress.update(done)

    return show
