"""Optical flow as the paper has it: TV-L1 on grey frames, clipped to ±20 pixels, in 8 bits.

Flow is of the frames as they are given: computed at the size and rate that the network is fed, for
displacements are pixels a frame. Channel 0 is x, to the right; channel 1 is y, down.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import DependencyError, DeviceError, ShapeError
from i3dzoo.video.records import Frames

__all__ = ["BOUND", "ENGINES", "Engine", "dequantise", "flows", "load_cv2", "quantise", "to_grey"]

Engine = Literal["tvl1", "farneback", "torch"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
"""`tvl1` and `farneback` are OpenCV's; `torch` is TV-L1 in PyTorch, for GPUs."""

BOUND = 20.0
"""Largest displacement in pixels a frame that is kept (arXiv:1705.07750 and its code's README)."""

Fields = npt.NDArray[np.float32]

_BATCH = 16  # pairs that the engine of PyTorch takes at once


def to_grey(frames: Frames) -> Frames:
    """Turn RGB, uint8 [..., 3], into the luma of Rec. 601, uint8 [...], rounded as by OpenCV."""
    weights = np.array([9798, 19235, 3735], dtype=np.int32)  # 0.299, 0.587, 0.114 times 2**15
    luma = np.asarray(frames.astype(np.int32) @ weights, dtype=np.int32)
    rounded: Frames = ((luma + (1 << 14)) >> 15).astype(np.uint8)
    return rounded


def quantise(field: npt.NDArray[np.floating[Any]], bound: float = BOUND) -> Frames:
    """Clip a displacement to ±bound and map it to 0..255: round((f + bound) / (2 bound) * 255)."""
    clipped = np.clip(field, -bound, bound)
    stored: Frames = np.rint((clipped + bound) * (255 / (2 * bound))).astype(np.uint8)
    return stored


def dequantise(stored: Frames, bound: float = BOUND) -> Fields:
    """Undo `quantise`, to within bound / 255: 0.08 pixels for a bound of 20."""
    return stored.astype(np.float32) * np.float32(2 * bound / 255) - np.float32(bound)


def flows(
    frames: Iterable[Frames], engine: Engine = "tvl1", device: str = "cpu"
) -> Iterator[Fields]:
    """Yield the flow from each frame to the next.

    Args:
        frames: Grey, uint8 [H, W], of one size; held only two (`torch`: 17) at a time.
        engine: `tvl1`, `farneback` or `torch`.
        device: Of `torch`.

    Yields:
        float32 [H, W, 2], pixels a frame, one fewer than frames.

    Raises:
        DependencyError: OpenCV with its contributed modules is not installed.
        DeviceError: PyTorch cannot compute on the device.
        ShapeError: A frame is not grey, or of another size than the one before.
    """
    pairs = itertools.pairwise(_checked(frames))
    if engine == "torch":
        from i3dzoo.video.tvl1 import tvl1

        _check_device(device)
        while batch := list(itertools.islice(pairs, _BATCH)):
            first, second = (np.stack(side) for side in zip(*batch, strict=True))
            yield from tvl1(first, second, device=device)
        return
    compute = _opencv(engine)
    for first, second in pairs:
        yield compute(first, second)


def _checked(frames: Iterable[Frames]) -> Iterator[Frames]:
    size = None
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 2 or (size and frame.shape != size):
            expected = f"[{size[0]}, {size[1]}]" if size else "[H, W]"
            raise ShapeError(
                f"a frame for optical flow is {frame.dtype} {list(frame.shape)}; "
                f"expected uint8 {expected}"
            )
        size = frame.shape
        yield frame


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DeviceError(
            f"optical flow cannot be computed on {device!r}: {reason}; --device cpu can always be "
            "used, and --flow tvl1 is faster there"
        ) from error


def load_cv2() -> Any:
    """Import OpenCV.

    Raises:
        DependencyError: It is not installed, or lacks the contributed modules.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            "optical flow by OpenCV needs the extra flow: pip install 'i3dzoo[flow]'; "
            "--flow torch needs nothing more"
        ) from error
    return cv2


def _opencv(engine: Engine) -> Callable[[Frames, Frames], Fields]:
    cv2 = load_cv2()
    if engine == "farneback":
        # The values of OpenCV's own example: 3 levels, windows of 15, 3 iterations, degree 5.
        def farneback(first: Frames, second: Frames) -> Fields:
            field: Fields = cv2.calcOpticalFlowFarneback(
                first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0
            )
            return field

        return farneback
    if not hasattr(cv2, "optflow"):
        raise DependencyError(
            f"OpenCV {cv2.__version__} is installed without its contributed modules, which hold "
            "TV-L1; uninstall it and run pip install 'i3dzoo[flow]'"
        )
    solver = cv2.optflow.DualTVL1OpticalFlow_create()

    def tvl1(first: Frames, second: Frames) -> Fields:
        field: Fields = solver.calc(first, second, None)
        return field

    return tvl1
