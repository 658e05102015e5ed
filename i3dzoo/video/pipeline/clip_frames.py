"""Make the clips of one video of its frames, on a device.

Each frame is resized and normalised once. A ring holds the frames that clips still need.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from i3dzoo.video.decode import stream_exact
from i3dzoo.video.plan import ZEROS, Plan, Resize

_CHUNK_VALUES = 1 << 23  # float32 values of resized frames that are made at once: 32 MiB


class ClipFrames:
    """The frames of a video, which come in order, and the clips that they complete.

    Args:
        plan: The clips, and how their frames are resized, cropped and normalised.
        device: Where this happens.

    Attributes:
        wanted: The frames that the clips need, increasing.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        edge = plan.spec.crop
        if plan.info.floats and (plan.info.height, plan.info.width) == (edge, edge):
            plan = dataclasses.replace(plan, resize=Resize())  # they are the input already
        self.plan, self.device = plan, device
        self._corners = plan.corners()
        tops, lefts = zip(*self._corners.values(), strict=True)
        self._top, self._left = min(tops), min(lefts)
        self._height, self._width = max(tops) - self._top + edge, max(lefts) - self._left + edge
        needed = [np.unique(clip.indices[clip.indices != ZEROS]) for clip in plan.clips]
        everything = np.concatenate(needed) if needed else np.zeros(0, np.int64)
        self.wanted: npt.NDArray[np.int64] = np.unique(everything)
        self._first, self._last = self._positions(needed)
        height, width = plan.resize.target(plan.info.height, plan.info.width)
        largest = max(height * width, plan.info.height * plan.info.width) * len(plan.spec.mean)
        self._step = max(min(_CHUNK_VALUES // largest, 64), 1)
        self._normalise = _Normalise(plan, device)
        self._ring = torch.empty(0)
        self._done = 0  # frames of `wanted` that have come
        self._next = 0  # the clip that comes next

    @property
    def complete(self) -> bool:
        """Whether all clips were made."""
        return self._next == len(self.plan.clips)

    def _positions(
        self, needed: list[npt.NDArray[np.int64]]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return by clip: the first position in `wanted` needed from there on, and its last one."""
        count = len(self.wanted)
        first = [np.searchsorted(self.wanted, own[0]) if len(own) else count for own in needed]
        last = [np.searchsorted(self.wanted, own[-1]) if len(own) else -1 for own in needed]
        return (
            np.minimum.accumulate(np.array(first, np.int64)[::-1])[::-1],
            np.maximum.accumulate(np.array(last, np.int64)),
        )

    def add(self, frames: Tensor) -> Iterator[tuple[int, int]]:
        """Take the next frames, and yield the clips that they complete, as `ready` does.

        Args:
            frames: uint8 [n, H, W, C], or floats from -1 to 1, on the device.
        """
        for part in torch.split(frames, self._step):
            prepared = self._prepare(part)
            if not self._ring.numel():
                shape = (prepared.shape[0], self._room(), *prepared.shape[2:])
                self._ring = prepared.new_empty(shape)
            positions = torch.arange(self._done, self._done + len(part)) % self._ring.shape[1]
            self._ring.index_copy_(1, positions.to(self.device, non_blocking=True), prepared)
            self._done += len(part)
            yield from self.ready()

    def ready(self) -> Iterator[tuple[int, int]]:
        """Yield the number of each clip whose frames have come, and that of each of its crops.

        `write` gives its values, until the next one is asked for.
        """
        while not self.complete and self._last[self._next] < self._done:
            self._next += 1
            for place in range(len(self.plan.crops)):
                yield self._next - 1, place

    def write(self, number: int, place: int, clip: Tensor) -> None:
        """Write a clip as input of the network: float32 [C, T, edge, edge] on the device."""
        indices = self.plan.clips[number].indices
        zeros = indices == ZEROS
        if zeros.all():
            clip.zero_()
            return
        rows = np.searchsorted(self.wanted, np.where(zeros, self.wanted[0], indices))
        rows %= self._ring.shape[1]
        crop, edge = self.plan.crops[place], self.plan.spec.crop
        top, left = self._corners[crop]
        top, left = top - self._top, left - self._left
        squares = self._ring[:, :, top : top + edge, left : left + edge]
        index = torch.from_numpy(rows).to(self.device, non_blocking=True)
        torch.index_select(squares, 1, index, out=clip)
        if crop.mirrored:
            self._normalise.mirror(clip)
        if zeros.any():
            clip[:, torch.from_numpy(zeros).to(self.device)] = 0

    def _room(self) -> int:
        """Return how many frames the ring must hold: a clip's, and those that come at once."""
        span = int((self._last - self._first).max()) + 1
        return min(span + self._step, len(self.wanted))

    def _prepare(self, frames: Tensor) -> Tensor:
        """Resize frames [n, H, W, C], cut out what the crops need, and normalise: [C, n, h, w]."""
        pixels, floats = self.plan.resized(frames.permute(0, 3, 1, 2))
        bottom, right = self._top + self._height, self._left + self._width
        return self._normalise(pixels[..., self._top : bottom, self._left : right], floats)


def load_plan(plan: Plan, device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Decode a video once in this thread, and yield each clip as input of the network.

    Yields:
        For each clip, float32 [crops, C, T, edge, edge] on the device.

    Raises:
        VideoError: The video has changed since it was probed.
        ShapeError: Its frames are smaller than the crop.
    """
    device = torch.device(device)
    frames = ClipFrames(plan, device)

    def clips() -> Iterator[tuple[int, int]]:
        yield from frames.ready()
        for _, frame in stream_exact(plan.info, frames.wanted):
            pixels = torch.from_numpy(np.array(frame))[None]
            yield from frames.add(pixels.to(device, non_blocking=True))

    edge, channels = plan.spec.crop, len(plan.spec.mean)
    for number, place in clips():
        if place == 0:
            length = len(plan.clips[number].indices)
            shape = len(plan.crops), channels, length, edge, edge
            clip = torch.empty(shape, device=device)
        frames.write(number, place, clip[place])
        if place == len(plan.crops) - 1:
            yield clip


class _Normalise:
    """Turns pixels [n, C, h, w] into values [C, n, h, w]: `(p / 255 - mean) / std`.

    Floats from -1 to 1 stay what they are, to the bit, if mean and std are 0.5.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.reversed = plan.spec.channels == "bgr"
        # made once a video: a GPU is waited for whenever numbers are copied to it
        self.mean = torch.tensor(plan.spec.mean, dtype=torch.float32).view(-1, 1, 1).to(device)
        self.std = torch.tensor(plan.spec.std, dtype=torch.float32).view(-1, 1, 1).to(device)
        self.negated = plan.spec.channels == "xy" and plan.negate
        self.opposite = (1 - 2 * plan.spec.mean[0]) / plan.spec.std[0]

    def __call__(self, pixels: Tensor, floats: bool) -> Tensor:
        values = pixels.flip(1) if self.reversed else pixels
        if floats:
            return (values * (0.5 / self.std) + (0.5 - self.mean) / self.std).transpose(0, 1)
        return ((values.float() / 255 - self.mean) / self.std).transpose(0, 1)

    def mirror(self, clip: Tensor) -> None:
        """Mirror a clip [C, T, edge, edge] in place, and negate the x of optical flow."""
        clip.copy_(clip.flip(-1))
        if self.negated:
            # p stands for (p / 255 * 2 - 1) * bound, so 255 - p is exactly its negative
            clip[0].neg_().add_(self.opposite)
