"""The options and the results of a run."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from i3dzoo.video.info import Channels
from i3dzoo.video.plan import Plan

Forward = Callable[[Iterable[Tensor]], Iterator[Tensor]]
"""Runs a network on batches of clips, float32 [B, C, T, H, W]; yields outputs [B, ...] in order.

It may take further batches before it yields an output.
"""

_CPU_WORKERS: Final = 4
_GPU_WORKERS: Final = 16


@dataclass(frozen=True, eq=False)
class Planned:
    """What a network makes of one video.

    Attributes:
        video: The video, as it was named.
        plan: Its plan; `plan.info` describes it.
        outputs: For each clip, float32 [crops, ...].
    """

    video: str
    plan: Plan
    outputs: list[npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """How videos are run.

    Attributes:
        device: Where frames are resized and normalised, and batches are made.
        batch_size: Most clips in a batch; long or large clips are fewer.
        channels: What videos are opened as.
        workers: Most videos that are decoded at once; None chooses by the device.
        processes: Whether decoders are processes; None uses them for a GPU.
        planar: Whether colours are converted on the device; None does so on a GPU.
        ordered: Whether results come in the order of the videos; otherwise, as they are ready.
        quick: Whether a file is planned by its packets, and decoded once; see
            `i3dzoo.video._packet_table`. It is for plans that read the file that was opened.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 1
    channels: Channels | Callable[[Path], Channels] = "rgb"
    workers: int | None = None
    processes: bool | None = None
    planar: bool | None = None
    ordered: bool = True
    quick: bool = True

    @property
    def on_gpu(self) -> bool:
        """Whether the device is an NVIDIA GPU."""
        return self.device.type == "cuda"

    def decoders(self, videos: int | None) -> tuple[int, int]:
        """Return how many decoders to have for so many videos, and the threads of each."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        cores = max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)  # of torchrun
        workers = self.workers or min(cores, _GPU_WORKERS if self.on_gpu else _CPU_WORKERS)
        workers = max(workers if videos is None else min(workers, videos), 1)
        return workers, max(cores // workers, 1)
