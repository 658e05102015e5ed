"""Optical flow of a video as a video: it is computed when its frames are read.

Frame i of the flow leads from sample i to sample i + 1. The last sample has none after it: its flow
is that of the sample before, so that flow and RGB have as many frames; a single sample does not
move.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from i3dzoo.errors import VideoError
from i3dzoo.files import atomic_write, make_folder
from i3dzoo.records import Record, read_json
from i3dzoo.video.decode import probe, stream
from i3dzoo.video.flow import BOUND, FlowMethod, flows, load_cv2, quantise, to_grey
from i3dzoo.video.info import Frames, FrameSource, VideoInfo
from i3dzoo.video.plan import Resize, resize_pixels
from i3dzoo.video.sampling import Samples


def computed_flow(
    samples: Samples,
    resize: Resize,
    method: FlowMethod = "tvl1",
    device: str = "cpu",
    bound: float = BOUND,
    keep: Path | None = None,
    video: str = "",
) -> VideoInfo:
    """Describe the optical flow of a video, at the size and the rate of the network's input.

    Args:
        samples: The RGB video at the rate of the network.
        resize: How its frames are resized before flow is computed.
        method: How flow is computed.
        device: Where the method `torch` computes; read such a flow in the main process only.
        bound: Displacements are clipped to ±bound pixels, and quantised to 0..255.
        keep: A .npy file, uint8 [N, H, W, 2], to which all frames are written when one is read
            first; if it exists, it is read instead. A JSON beside it says what it holds.
        video: A digest of the video, for this JSON.
    """
    height, width = resize.target(samples.info.height, samples.info.width)
    info = dataclasses.replace(
        samples.info,
        kind="npy",
        channels="xy",
        frames=len(samples),
        height=height,
        width=width,
        fps=samples.fps,
        times=samples.times,
        keyframes=(),
        floats=False,
    )
    source: FrameSource = _Computed(samples, resize, method, device, bound)
    if keep is not None:
        about = FlowRecord(
            video=video,
            method=flow_name(method),
            bound=bound,
            fps=samples.fps,
            resize=f"{resize}, {resize.interpolation}",
        )
        source = _Kept(dataclasses.replace(info, source=source), keep, about)
    return dataclasses.replace(info, source=source)


def flow_name(method: FlowMethod) -> str:
    """Return the name of a method with its implementation, for records."""
    if method == "torch":
        return "TV-L1 of i3dzoo in PyTorch"
    title = "TV-L1" if method == "tvl1" else "Farnebäck"
    return f"{title} of OpenCV {load_cv2().__version__}"


class FlowRecord(Record, frozen=True, kw_only=True):
    """How a file of optical flow was made; `video` is a digest of the video."""

    video: str
    method: str
    bound: float
    fps: float | None
    resize: str


def check_flow(path: Path, video: str) -> None:
    """Check that a file of optical flow is of a video, if a JSON beside it says so.

    Raises:
        VideoError: It is of another video.
    """
    described = path.with_suffix(".json")
    if described.exists() and read_json(described, FlowRecord, error=VideoError).video != video:
        raise VideoError(
            f"{path}: holds the optical flow of another video, as {described.name} there says"
        )


@dataclass(frozen=True, eq=False)
class _Kept:
    """Computed flow that is written to a file before it is read from there."""

    flow: VideoInfo
    path: Path
    about: FlowRecord

    def read(self, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, Frames]]:
        """Yield (index, uint8 [H, W, 2]) for each wanted frame, in increasing order.

        Raises:
            VideoError: The file holds flow of another video, or that was made in another way.
            OutputError: It cannot be written.
        """
        flow, path = self.flow, self.path
        described = path.with_suffix(".json")
        shape = (flow.frames, flow.height, flow.width, 2)
        if not path.exists() or not described.exists():
            make_folder(path.parent)
            with atomic_write(path) as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for _, frame in stream(flow, np.arange(flow.frames)):
                    file.write(np.ascontiguousarray(frame).tobytes())
            with atomic_write(described) as file:
                file.write(json.dumps(self.about.to_dict(), indent=1).encode())
        kept, about = probe(path, "xy"), read_json(described, FlowRecord, error=VideoError)
        if (kept.frames, kept.height, kept.width) != shape[:3] or about != self.about:
            raise VideoError(
                f"{path}: holds optical flow of another video, or that was made in another way, as "
                f"{described.name} there says; remove it, or name another folder"
            )
        return stream(kept, wanted)


@dataclass(frozen=True, eq=False)
class _Computed:
    samples: Samples
    resize: Resize
    method: FlowMethod
    device: str
    bound: float

    def read(self, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, Frames]]:
        """Yield (index, uint8 [H, W, 2]) for each wanted frame, in increasing order."""
        last = len(self.samples) - 2
        if last < 0:
            height, width = self.resize.target(self.samples.info.height, self.samples.info.width)
            still = quantise(np.zeros((height, width, 2), np.float32), self.bound)
            yield from ((index, still) for index in wanted.tolist())
            return
        pairs = np.unique(np.minimum(wanted, last))
        runs = np.split(pairs, np.flatnonzero(np.diff(pairs) > 1) + 1)
        samples = np.concatenate([[*run, run[-1] + 1] for run in runs])
        greys = self._greys(samples)
        flow, asked = None, set(wanted.tolist())
        for run in runs:
            own = (next(greys) for _ in range(len(run) + 1))
            for index, field in zip(
                run.tolist(), flows(own, self.method, self.device), strict=True
            ):
                flow = quantise(field, self.bound)
                if index in asked:
                    yield index, flow
        if wanted[-1] > last and flow is not None:
            yield int(wanted[-1]), flow

    def _greys(self, samples: npt.NDArray[np.int64]) -> Iterator[Frames]:
        """Yield the resized grey frames of samples; several may be the same source frame."""
        sources = self.samples.indices[samples]
        frames = stream(self.samples.info, sources)
        grey = None
        for before, source in pairwise([-1, *sources.tolist()]):
            if source != before or grey is None:
                _, frame = next(frames)
                pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None]
                resized = resize_pixels(pixels, self.resize)[0].permute(1, 2, 0)
                grey = to_grey(resized.round().to(torch.uint8).numpy())
            yield grey
