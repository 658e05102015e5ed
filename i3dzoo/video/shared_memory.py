"""A buffer of batches in shared memory, from worker processes to a GPU.

What a worker of PyTorch's DataLoader sends lies in memory pages that are new to the training
process. Each page costs a fault, and the batch is copied once more to be pinned: 130 ms for a batch
of 154 MB, which an H100 computes in 84 ms. Here the workers write into slots of shared memory that
are mapped and pinned once, and send the number of the slot.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, multiprocessing

from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.errors import ShapeError

_SHARED = Path("/dev/shm")  # noqa: S108 - the shared memory of Linux, not a temporary file

Shapes = Mapping[Stream, tuple[int, int, int, int]]
"""Shape of a clip by stream: [C, T, H, W]."""


def pin_memory(address: int, size: int) -> bool:
    """Pin memory for copies to a GPU; return whether it could be."""
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call] # torch has no types here
    return int(runtime.cudaHostRegister(address, size, 0)) == 0


def unpin_memory(address: int) -> None:
    """Undo `pin_memory`."""
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call] # torch has no types here
    runtime.cudaHostUnregister(address)


@dataclass(frozen=True)
class Filled:
    """What a worker sends: the slot, the number of clips in it, and the rest of the batch."""

    slot: int
    count: int
    rest: Any


class SharedBuffer:
    """Slots for batches of uint8 clips in shared memory, [slots, B, T, H, W, C] by stream."""

    def __init__(self, shapes: Shapes, batch_size: int, slots: int) -> None:
        """Make empty slots: one for each batch that workers may have ahead or that is in use."""
        self.memory: dict[Stream, Tensor] = {}
        for stream, (channels, *shape) in shapes.items():
            empty: Any = torch.empty((slots, batch_size, *shape, channels), dtype=torch.uint8)
            self.memory[stream] = empty.share_memory_()
        self.batch_size = batch_size
        self._free: Any = multiprocessing.get_context().SimpleQueue()
        for slot in range(slots):
            self._free.put(slot)
        self._pinned: list[int] = []

    @staticmethod
    def fits(shapes: Shapes, batch_size: int, slots: int) -> bool:
        """Whether all training processes of this machine have enough shared memory for a buffer."""
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        clip = sum(torch.Size(shape).numel() for shape in shapes.values())
        needed = processes * slots * batch_size * clip
        return _SHARED.is_dir() and shutil.disk_usage(_SHARED).free > needed

    def pin(self) -> None:
        """Pin the memory where possible, so that copies to a GPU are asynchronous."""
        for memory in self.memory.values():
            if pin_memory(memory.data_ptr(), memory.nbytes):
                self._pinned.append(memory.data_ptr())

    def unpin(self) -> None:
        """Undo `pin`."""
        while self._pinned:
            unpin_memory(self._pinned.pop())

    def fill(self, clips: Sequence[Mapping[Stream, Tensor]], rest: Any) -> Filled:
        """Write clips, [C, T, H, W] by stream, into a free slot; called by a worker."""
        if len(clips) > self.batch_size:
            raise ShapeError(
                f"a batch has {len(clips)} clips, and the first batch had {self.batch_size}; "
                "load the largest batch first"
            )
        slot = self._free.get()
        for stream, memory in self.memory.items():
            for place, clip in zip(memory[slot], clips, strict=False):
                place.copy_(clip[stream].permute(1, 2, 3, 0))
        return Filled(slot, len(clips), rest)

    def to_device(
        self, filled: Iterator[Filled], device: torch.device
    ) -> Iterator[tuple[dict[Stream, Tensor], Any]]:
        """Yield the clips of each batch, [B, C, T, H, W] on a device, and its rest.

        A thread copies the next batch on a CUDA stream of its own, and then frees the slot.
        """
        on_gpu = device.type == "cuda"
        copies = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call] # torch has no types here

        def move() -> tuple[dict[Stream, Tensor], Any] | None:
            if (sent := next(filled, None)) is None:
                return None
            clips = {}
            with torch.cuda.stream(copies):
                for stream, memory in self.memory.items():
                    view = memory[sent.slot, : sent.count].permute(0, 4, 1, 2, 3)
                    clips[stream] = view.to(device, non_blocking=True, copy=True)
            if copies is not None:
                copies.synchronize()
            self._free.put(sent.slot)
            return clips, sent.rest

        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(move)
            while (batch := coming.result()) is not None:
                coming = thread.submit(move)
                if on_gpu:
                    for clips in batch[0].values():
                        clips.record_stream(torch.cuda.current_stream(device))
                yield batch
