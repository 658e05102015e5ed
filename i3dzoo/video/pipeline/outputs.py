"""The outputs of the network: from the device, and to the videos that they belong to."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Fetched:
    """The output of a batch on its way from a device.

    On a GPU, the copy begins at once, and `array` waits for it alone. What the network computes
    after it goes on, also if it writes its next output to the same memory.
    """

    def __init__(self, output: Tensor) -> None:
        self._event: Any = None
        if output.device.type == "cuda":
            self._host = torch.empty(output.shape, dtype=torch.float32, pin_memory=True)
            self._host.copy_(output, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch has no types here
            self._event.record(torch.cuda.current_stream(output.device))
        else:
            self._host = output.float().cpu()

    @property
    def ready(self) -> bool:
        """Whether nothing has to be waited for."""
        return self._event is None

    def array(self) -> npt.NDArray[np.float32]:
        """Wait for the output, and return it."""
        if self._event is not None:
            self._event.synchronize()
        array: npt.NDArray[np.float32] = self._host.numpy()
        return array


class Outputs:
    """The outputs of a video's clips, which come one crop at a time.

    Those of one shape are in one array that is made for all clips. Small arrays that were kept
    between the large ones of the network would keep the allocator from reusing the memory of those,
    and a process would grow with the length of a video.
    """

    def __init__(self, clips: int, crops: int) -> None:
        self.count, self._clips, self._crops = 0, clips, crops
        self._joined: npt.NDArray[np.float32] | None = None
        self._others: dict[int, npt.NDArray[np.float32]] = {}

    @property
    def complete(self) -> bool:
        """Whether every crop of every clip has its output."""
        return self.count == self._clips * self._crops

    def add(self, clip: int, crop: int, output: npt.NDArray[np.float32]) -> None:
        """Copy the output of a crop of a clip."""
        if self._joined is None:
            self._joined = np.empty((self._clips, self._crops, *output.shape), np.float32)
        place = self._joined[clip]
        if output.shape != self._joined.shape[2:]:
            if clip not in self._others:
                self._others[clip] = np.empty((self._crops, *output.shape), np.float32)
            place = self._others[clip]
        place[crop] = output
        self.count += 1

    def arrays(self) -> list[npt.NDArray[np.float32]]:
        """Return for each clip [crops, ...]."""
        if self._joined is None:
            return []
        return [self._others.get(clip, own) for clip, own in enumerate(self._joined)]
