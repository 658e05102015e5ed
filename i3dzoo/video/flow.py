"""Optical flow as in the paper: TV-L1 on grey frames, clipped to ±20 pixels, in 8 bits.

Displacements are in pixels per frame, so flow must be computed at the size and frame rate of the
network's input. Channel 0 is x, to the right; channel 1 is y, down.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from i3dzoo.devices import Device, choose_device
from i3dzoo.errors import DependencyError, ShapeError
from i3dzoo.video.info import Frames

FlowMethod = Literal["tvl1", "farneback", "torch"]
"""`tvl1` and `farneback` are OpenCV's; `torch` is TV-L1 in PyTorch, for GPUs."""

FlowStore = Literal["jpg", "npy"]
"""`jpg`: u/ and v/ with grey images, as NVIDIA TAO reads them; `npy`: a lossless uint8 array."""

BOUND: Final = 20.0
"""Displacements are clipped to ±20 pixels per frame (arXiv:1705.07750 and its code's README)."""

Flow = npt.NDArray[np.float32]

_BATCH = 16  # pairs of frames that `torch` computes at once


def to_grey(frames: Frames) -> Frames:
    """Convert RGB, uint8 [..., 3], to Rec. 601 luma, uint8 [...], rounded as in OpenCV."""
    weights = np.array([9798, 19235, 3735], dtype=np.int32)  # 0.299, 0.587, 0.114 times 2**15
    luma = np.asarray(frames.astype(np.int32) @ weights, dtype=np.int32)
    rounded: Frames = ((luma + (1 << 14)) >> 15).astype(np.uint8)
    return rounded


def quantise(field: npt.NDArray[np.floating[Any]], bound: float = BOUND) -> Frames:
    """Clip displacements to ±bound and map them to 0..255: round((f + bound) / (2 bound) * 255)."""
    clipped = np.clip(field, -bound, bound)
    stored: Frames = np.rint((clipped + bound) * (255 / (2 * bound))).astype(np.uint8)
    return stored


def flows(
    frames: Iterable[Frames], method: FlowMethod = "tvl1", device: Device = "cpu"
) -> Iterator[Flow]:
    """Yield the flow from each frame to the next, float32 [H, W, 2] in pixels per frame.

    Frames are grey and of one size, uint8 [H, W]; two are held at a time, 17 by `torch`, which is
    the only method that uses `device`.
    """
    pairs = itertools.pairwise(_checked(frames))
    if method == "torch":
        from i3dzoo.video.tvl1 import tvl1

        choose_device(device)
        while batch := list(itertools.islice(pairs, _BATCH)):
            first, second = (np.stack(side) for side in zip(*batch, strict=True))
            yield from tvl1(first, second, device=device)
        return
    compute = _opencv(method)
    for first, second in pairs:
        yield compute(first, second)


def _checked(frames: Iterable[Frames]) -> Iterator[Frames]:
    size = None
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 2 or (size and frame.shape != size):
            expected = f"[{size[0]}, {size[1]}]" if size else "[H, W]"
            raise ShapeError(
                f"expected frames for optical flow as uint8 {expected}, "
                f"found {frame.dtype} {list(frame.shape)}"
            )
        size = frame.shape
        yield frame


def load_cv2() -> Any:
    """Import OpenCV; without it, raise a DependencyError that names the extra."""
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            "optical flow with OpenCV needs the extra flow: pip install 'i3dzoo[flow]'; "
            "--flow torch works without it"
        ) from error
    return cv2


def _opencv(method: FlowMethod) -> Callable[[Frames, Frames], Flow]:
    cv2 = load_cv2()
    if method == "farneback":
        # The values of OpenCV's example: 3 levels, windows of 15 pixels, 3 iterations, degree 5.
        def farneback(first: Frames, second: Frames) -> Flow:
            field: Flow = cv2.calcOpticalFlowFarneback(
                first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0
            )
            return field

        return farneback
    if not hasattr(cv2, "optflow"):
        raise DependencyError(
            f"OpenCV {cv2.__version__} is installed without its contributed modules, which include "
            "TV-L1; uninstall it and run pip install 'i3dzoo[flow]'"
        )
    solver = cv2.optflow.DualTVL1OpticalFlow_create()

    def tvl1(first: Frames, second: Frames) -> Flow:
        field: Flow = solver.calc(first, second, None)
        return field

    return tvl1
