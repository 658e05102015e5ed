"""Collect clips of several videos into batches, in the memory of a device."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import torch
from torch import Tensor

Route = TypeVar("Route")

_OPEN: Final = 2  # batches of different shapes that are filled at the same time
_CLIP_PIXELS: Final = 64 * 224 * 224  # of a clip of a batch; of larger clips, there are fewer


@dataclass(eq=False)
class Batch(Generic[Route]):
    """Clips [B, C, T, H, W], and where the output of each belongs."""

    clips: Tensor
    routes: list[Route] = field(default_factory=list)

    @property
    def filled(self) -> Tensor:
        """The clips that are there."""
        return self.clips[: len(self.routes)]


class Batches(Generic[Route]):
    """Batches that are being filled, one for each shape of clips."""

    def __init__(self, device: torch.device, batch_size: int) -> None:
        self.device, self.batch_size = device, batch_size
        self._open: dict[tuple[int, ...], Batch[Route]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def make_room(self, shape: tuple[int, int, int, int]) -> Iterator[Batch[Route]]:
        """Yield a batch that has to end before a clip [C, T, H, W] can be added."""
        if shape not in self._open:
            if len(self._open) == _OPEN:
                yield self.end()
            _, frames, height, width = shape
            most = self.batch_size * _CLIP_PIXELS // (frames * height * width)
            size = max(min(self.batch_size, most), 1)
            self._open[shape] = Batch(torch.empty((size, *shape), device=self.device))

    def add(self, shape: tuple[int, ...], route: Route) -> tuple[Tensor, Batch[Route] | None]:
        """Return the memory of one more clip, and the batch if it is full with it."""
        batch = self._open[shape]
        place = batch.clips[len(batch.routes)]
        batch.routes.append(route)
        if len(batch.routes) < len(batch.clips):
            return place, None
        return place, self._open.pop(shape)

    def end(self) -> Batch[Route]:
        """Return the batch that was begun first, as it is."""
        return self._open.pop(next(iter(self._open)))
