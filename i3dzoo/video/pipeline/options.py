"""The options and the results of a run."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from i3dzoo.errors import OptionError
from i3dzoo.video._nvdec import missing as nvdec_missing
from i3dzoo.video.info import Channels
from i3dzoo.video.plan import Plan

Forward = Callable[[Iterable[Tensor]], Iterator[Tensor]]
"""Runs a network on batches of clips, float32 [B, C, T, H, W]; yields outputs [B, ...] in order.

It may take further batches before it yields an output.
"""

DecoderName = Literal["auto", "cpu", "nvdec"]

_CPU_WORKERS: Final = 4
_GPU_WORKERS: Final = 16
_NVDEC_WORKERS: Final = 8  # beside those of the CPU
_AUTO: Final[DecoderName] = "cpu"  # what `auto` is on a GPU


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
        workers: Most videos that are decoded on the CPU at once; None chooses by the device.
        decoder: `nvdec` decodes on the GPU what NVDEC decodes to the same bits, and as much as
            possible on the CPU beside it; `cpu` decodes nothing there; `auto` is `cpu`.
        nvdec_workers: Most videos that are decoded by NVDEC at once; None chooses.
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
    decoder: DecoderName = "auto"
    nvdec_workers: int | None = None
    processes: bool | None = None
    planar: bool | None = None
    ordered: bool = True
    quick: bool = True

    @property
    def on_gpu(self) -> bool:
        """Whether the device is an NVIDIA GPU."""
        return self.device.type == "cuda"

    @property
    def gpu(self) -> int:
        """The number of the GPU: that of the device, or the current one; 0 without any."""
        index: Any = self.device.index  # None without a number, which PyTorch's types leave out
        if index is None and self.on_gpu and torch.cuda.is_available():
            index = torch.cuda.current_device()
        return int(index or 0)

    def __post_init__(self) -> None:
        """Check that NVDEC can be used if it is asked for."""
        if self.decoder == "nvdec":
            why = nvdec_missing() if self.on_gpu else f"the device is {self.device.type}"
            if why:
                raise OptionError(f"decoder nvdec needs an NVIDIA GPU: {why}; use decoder cpu")

    def nvdec(self, videos: int | None) -> int:
        """Return how many of the decoders for so many videos decode by NVDEC."""
        name = _AUTO if self.decoder == "auto" else self.decoder
        if name == "cpu" or not self.on_gpu:
            return 0
        most = _NVDEC_WORKERS if self.nvdec_workers is None else self.nvdec_workers
        return most if videos is None else min(most, videos)

    def decoders(self, videos: int | None) -> tuple[int, int]:
        """Return how many decoders to have for so many videos, and the threads of each."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        cores = max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)  # of torchrun
        chosen = min(cores, _GPU_WORKERS if self.on_gpu else _CPU_WORKERS)
        workers = chosen if self.workers is None else self.workers
        workers += self.nvdec(videos)
        workers = max(workers if videos is None else min(workers, videos), 1)
        return workers, max(cores // workers, 1)
