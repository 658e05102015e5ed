"""Batches from workers to a GPU through memory that stays.

What a worker of PyTorch's loader sends lies in pages that are new to the process that trains, and
each costs a fault; then it is copied once more to be pinned. A batch of 154 MB takes 130 ms that
way, and an H100 is done with it in 84. Here workers write into slots of shared memory that are
mapped and pinned once, and send the number of the slot.
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

__all__ = ["Ring"]

_SHARED = Path("/dev/shm")  # noqa: S108 - where Linux has its shared memory, not a file of ours


@dataclass(frozen=True)
class _Filled:
    """What a worker sends: the slot, how many clips are in it, and what else there is to say."""

    slot: int
    count: int
    rest: Any


class Ring:
    """Slots for batches, in shared memory.

    Attributes:
        memory: By stream: [slots, B, T, H, W, C].
    """

    def __init__(self, clip: Mapping[str, Tensor], batch_size: int, slots: int) -> None:
        """Make empty slots.

        Args:
            clip: A clip by stream, [C, T, H, W]; all others have its shapes and types.
            batch_size: Most clips of a batch.
            slots: How many; as many as the workers may have ahead, and those in use.
        """
        self.memory: dict[str, Tensor] = {}
        for stream, view in clip.items():
            shape = (slots, batch_size, *view.shape[1:], view.shape[0])
            empty: Any = torch.empty(shape, dtype=view.dtype)
            self.memory[stream] = empty.share_memory_()
        self._free: Any = multiprocessing.get_context().SimpleQueue()
        for slot in range(slots):
            self._free.put(slot)
        self._pinned: list[int] = []

    @staticmethod
    def fits(clip: Mapping[str, Tensor], batch_size: int, slots: int) -> bool:
        """Whether the system has that much shared memory; containers often have very little.

        Each process that was started on this machine makes a ring, all of them at once.
        """
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        size = sum(view.numel() * view.itemsize for view in clip.values())
        needed = here * slots * batch_size * size
        return _SHARED.is_dir() and shutil.disk_usage(_SHARED).free > needed

    def pin(self) -> None:
        """Pin the memory, so that copies to a GPU are asynchronous, if that works."""
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call] # torch has no types here
        for memory in self.memory.values():
            address = memory.data_ptr()
            if int(runtime.cudaHostRegister(address, memory.nbytes, 0)) == 0:
                self._pinned.append(address)

    def unpin(self) -> None:
        """Undo `pin`."""
        runtime: Any = torch.cuda.cudart() if self._pinned else None  # type: ignore[no-untyped-call] # likewise
        while self._pinned:
            runtime.cudaHostUnregister(self._pinned.pop())

    def fill(self, clips: Sequence[Mapping[str, Tensor]], rest: Any) -> _Filled:
        """Write clips into a free slot; in a worker."""
        slot = self._free.get()
        for stream, memory in self.memory.items():
            for place, clip in zip(memory[slot], clips, strict=False):
                place.copy_(clip[stream].permute(1, 2, 3, 0))
        return _Filled(slot, len(clips), rest)

    def batches(
        self, filled: Iterator[_Filled], device: torch.device
    ) -> Iterator[tuple[dict[str, Tensor], Any]]:
        """Yield batches by stream, [B, C, T, H, W] on a device, with what came along.

        While one is worked on, a thread copies the next one, on a GPU beside the kernels that run;
        its slot is free again when all of it is there.
        """
        on_gpu = device.type == "cuda"
        copies = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call] # torch has no types here

        def move() -> tuple[dict[str, Tensor], Any] | None:
            if (sent := next(filled, None)) is None:
                return None
            moved = {}
            with torch.cuda.stream(copies):
                for key, memory in self.memory.items():
                    view = memory[sent.slot, : sent.count].permute(0, 4, 1, 2, 3)
                    moved[key] = view.to(device, non_blocking=True, copy=True)
            if copies is not None:
                copies.synchronize()
            self._free.put(sent.slot)
            return moved, sent.rest

        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(move)
            while (batch := coming.result()) is not None:
                coming = thread.submit(move)
                if on_gpu:
                    for view in batch[0].values():
                        view.record_stream(torch.cuda.current_stream(device))
                yield batch
