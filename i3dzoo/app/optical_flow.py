"""The optical flow of a video that was dropped: what a flow network reads, and what people see."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from i3dzoo.app.previews import FPS, encode
from i3dzoo.checkpoints.metadata import Input, default_input
from i3dzoo.errors import VideoError
from i3dzoo.files import atomic_write
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video import Frames, Samples, VideoInfo, resample, stream
from i3dzoo.video.flow import BOUND, FlowMethod, flows, quantise, to_grey
from i3dzoo.video.transforms import frame_size, resize_frame

_STRONG: Final = 8.0  # pixels a frame that have the full colour


@dataclass(frozen=True, eq=False)
class OpticalFlow:
    """The flow of a video.

    Attributes:
        path: uint8 [N - 1, H, W, 2], as `i3dzoo prepare --flow` stores it.
        edges: Seconds at which each of its frames starts, and at which the last ends, float64 [N].
        note: How it was computed.
    """

    path: Path
    edges: npt.NDArray[np.float64]
    note: str


def methods() -> dict[str, FlowMethod]:
    """Return the methods that this installation has, by the name that the page shows."""
    if importlib.util.find_spec("cv2") is None:
        return {"TV-L1, in PyTorch": "torch"}
    return {"TV-L1, as published": "tvl1", "Farnebäck, fast": "farneback"}


def compute_flow(
    info: VideoInfo,
    spec: Input | None,
    method: FlowMethod,
    folder: Path,
    preview: Path,
    most_seconds: float,
    progress: Progress = SILENT,
) -> OpticalFlow:
    """Compute the flow from each frame to the next, at the rate and size of a network's input.

    Args:
        info: The RGB video.
        spec: The input of the flow network; None is the published one.
        method: How flow is computed.
        folder: Where `flow.npy` is written.
        preview: Where the video of the flow in colours is written.
        most_seconds: A longer video is refused.
        progress: Shows the pairs of frames.

    Raises:
        VideoError: The video is too long, or has one frame.
        DependencyError: OpenCV is not installed.
    """
    spec = default_input("flow") if spec is None else spec
    samples = resample(info, spec.fps)
    pairs, rate = len(samples) - 1, samples.fps or FPS
    _check_length(info, pairs, pairs / rate, most_seconds)
    times = np.arange(len(samples)) / FPS if samples.times is None else samples.times
    path, shape = folder / "flow.npy", frame_size(info.height, info.width, spec)
    bound = spec.flow_bound or BOUND
    progress.start("computing optical flow", pairs, "items")

    def frames() -> Iterator[tuple[float, Frames]]:
        greys = (to_grey(frame) for frame in _sampled(samples, shape))
        for number, field in enumerate(flows(greys, method)):
            file.write(quantise(field, bound).tobytes())
            progress.update(number + 1)
            yield float(times[number]), colours(field)

    with atomic_write(path) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (pairs, *shape, 2)}
        np.lib.format.write_array_header_1_0(file, header)
        encode(frames(), preview, float(times[-1]))
    name = next(name for name, value in methods().items() if value == method)
    note = (
        f"optical flow of {pairs} pairs of frames at {rate:g} fps, {name}, within ±{bound:g} pixels"
    )
    return OpticalFlow(path, times, note)


def _check_length(info: VideoInfo, pairs: int, seconds: float, most_seconds: float) -> None:
    if pairs < 1:
        raise VideoError(f"{info.path.name}: has one frame, and optical flow needs two")
    if seconds > most_seconds:
        raise VideoError(
            f"{info.path.name}: lasts {seconds:.0f} s, and the page computes optical flow for at "
            f"most {most_seconds:g} s: it takes long; cut the video, or leave flow out"
        )


def _sampled(samples: Samples, shape: tuple[int, int]) -> Iterator[Frames]:
    """Yield the resized frames of samples; a frame can occur several times."""
    place = 0
    for index, frame in stream(samples.info, samples.indices):
        resized = resize_frame(frame, shape)
        while place < len(samples) and samples.indices[place] == index:
            yield resized
            place += 1


def colours(field: npt.NDArray[np.float32]) -> Frames:
    """Show flow [H, W, 2] in pixels as RGB [H, W, 3]: the hue is the direction, white is rest."""
    x, y = field[..., 0], field[..., 1]
    strength = np.minimum(np.hypot(x, y) / _STRONG, 1)[..., None]
    angles = np.arctan2(y, x)[..., None] - np.array([0, 2, 4]) * np.pi / 3
    hue = np.clip(0.5 + np.cos(angles), 0, 1)
    picture: Frames = np.rint(255 * (1 - strength * (1 - hue))).astype(np.uint8)
    return picture
