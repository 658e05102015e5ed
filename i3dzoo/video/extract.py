"""Prepare one video of a dataset: link it, or extract its frames, and compute its optical flow."""

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from msgspec.structs import replace

from i3dzoo.errors import DatasetError, MissingFileError, VideoError
from i3dzoo.files import atomic_write, output_error
from i3dzoo.video.decode import probe, stream
from i3dzoo.video.flow import (
    BOUND,
    FlowMethod,
    FlowStore,
    flows,
    load_cv2,
    quantise,
    to_grey,
)
from i3dzoo.video.index import Entry, FlowEntry, FlowSettings, Layout, Roles, make_entry
from i3dzoo.video.info import Frames, VideoInfo
from i3dzoo.video.sampling import resample
from i3dzoo.video.transforms import resize_frame, resized_size

JPEG_QUALITY = 95  # of u/ and v/; RGB has FFmpeg's best quality scale, 2


@dataclass(frozen=True)
class Settings:
    """How a dataset is prepared.

    `fps` and `short_side` are of extracted frames and of flow; None keeps those of each video.
    `device` is for the method `torch`.
    """

    layout: Layout = "videos"
    fps: float | None = None
    short_side: int | None = 256
    flow: FlowMethod | None = None
    flow_store: FlowStore = "jpg"
    device: str = "cpu"

    @property
    def of_flow(self) -> FlowSettings | None:
        """How optical flow is computed; None without flow."""
        if self.flow is None:
            return None
        return FlowSettings(
            method=self.flow,
            fps=self.fps,
            short_side=self.short_side,
            bound=BOUND,
            store=self.flow_store,
        )


@dataclass(frozen=True)
class ClipJob:
    """A video to prepare.

    `name` is its file in the split lists, `stem` the name of its folders of frames and of flow, and
    `root` the dataset's folder.
    """

    source: Path
    name: str
    stem: str
    root: Path
    label: str
    roles: Roles
    settings: Settings


def prepare_video(job: ClipJob) -> Entry:
    """Prepare one video; a video that cannot be read becomes an entry with an error."""
    settings = job.settings
    file = f"{settings.layout}/{job.label}/{job.name if settings.layout == 'videos' else job.stem}"
    try:
        info = probe(job.source)
        if settings.flow is not None and info.frames < 2:
            raise VideoError(f"{job.source}: has 1 frame; expected 2 or more, for optical flow")
    except ValueError as error:
        return Entry(file, job.label, job.roles, error=_reason(job.source, error))
    target = job.root / file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        entry = make_entry(info, file, job.label, job.roles, job.source.stat().st_size)
        if settings.layout == "videos":
            _place(job.source, target)
            if settings.flow is not None:
                entry = replace(entry, flow=_flow_alone(job, info))
            return entry
        return _frame_folder(job, info, entry, target)
    except VideoError as error:
        return Entry(file, job.label, job.roles, error=_reason(job.source, error))
    except OSError as error:
        raise output_error(target, error) from error


def index_video(job: ClipJob) -> Entry:
    """Describe one video where it is, and compute its flow; its class and roles are not set.

    A video that cannot be read becomes an entry with an error.
    """
    settings = job.settings
    try:
        info = probe(job.source)
        if settings.flow is not None and info.frames < 2:
            raise VideoError(f"{job.source}: has 1 frame; expected 2 or more, for optical flow")
        entry = make_entry(info, job.stem, job.label, job.roles, job.source.stat().st_size)
        return entry if settings.flow is None else replace(entry, flow=_flow_alone(job, info))
    except (ValueError, MissingFileError) as error:
        return Entry(job.stem, job.label, job.roles, error=_reason(job.source, error))
    except OSError as error:
        raise output_error(job.root / "flow", error) from error


def _reason(source: Path, error: Exception) -> str:
    return str(error).removeprefix(f"{source}: ")


def _place(source: Path, target: Path) -> None:
    """Hard-link a file to its place, or copy it to another file system."""
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with source.open("rb") as file, atomic_write(target) as copy:
            shutil.copyfileobj(file, copy, 1 << 20)


def _frame_folder(job: ClipJob, info: VideoInfo, entry: Entry, target: Path) -> Entry:
    """Write a folder of images, with rgb/, u/ and v/ in TAO's layout."""
    settings = job.settings
    height, width = _size(info, settings)
    samples = resample(info, settings.fps)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    rgb = part / "rgb" if settings.layout == "tao" else part
    rgb.mkdir(parents=True)
    shared = settings.layout == "tao" and settings.flow_store == "jpg"

    def written() -> Iterator[Frames]:
        for number, frame in enumerate(_frames(info, samples.indices, (height, width)), 1):
            write_jpeg(rgb / f"{number:06d}.jpg", frame)
            yield frame

    flow = None
    if settings.flow is None:
        deque(written(), maxlen=0)
    else:
        flow_part = part if shared else _flow_part(job)
        count = _write_flow(map(to_grey, written()), settings, flow_part)
        file = entry.file if shared else _finish_flow(job, flow_part)
        flow = FlowEntry(file, count, height, width)
    size = sum(path.stat().st_size for path in rgb.iterdir())
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    times = None
    if settings.fps is None or samples.fps == info.fps:
        times = entry.times
    return replace(
        entry,
        frames=len(samples),
        height=height,
        width=width,
        fps=samples.fps,
        times=times,
        keyframes=(),
        bytes=size,
        flow=flow,
    )


def _flow_alone(job: ClipJob, info: VideoInfo) -> FlowEntry:
    """Compute the flow of a video whose frames are not extracted."""
    settings = job.settings
    height, width = _size(info, settings)
    samples = resample(info, settings.fps)
    part = _flow_part(job)
    greys = map(to_grey, _frames(info, samples.indices, (height, width)))
    count = _write_flow(greys, settings, part)
    rate = None if samples.fps == info.fps else samples.fps
    return FlowEntry(_finish_flow(job, part), count, height, width, rate)


def _flow_part(job: ClipJob) -> Path:
    folder = job.root / "flow" / job.label
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f".{job.stem}.part"


def _finish_flow(job: ClipJob, part: Path) -> str:
    """Move finished flow to its final name, and return that name."""
    suffix = ".npy" if job.settings.flow_store == "npy" else ""
    target = part.with_name(job.stem + suffix)
    if target.is_dir():
        shutil.rmtree(target)
    part.replace(target)
    return f"flow/{job.label}/{target.name}"


def _write_flow(greys: Iterable[Frames], settings: Settings, part: Path) -> int:
    """Compute flow and write it; return the number of its frames."""
    if settings.flow is None:
        raise DatasetError("expected a method of optical flow, found none")
    quantised = (quantise(flow) for flow in flows(greys, settings.flow, settings.device))
    if settings.flow_store == "npy":
        array = np.stack(list(quantised))
        with part.open("w+b") as file:  # to "wb", NumPy writes itself, and hides a full disk
            np.save(file, array)
        return len(array)
    write = _grey_writer()
    for plane in ("u", "v"):
        shutil.rmtree(part / plane, ignore_errors=True)
        (part / plane).mkdir(parents=True)
    count = 0
    for flow in quantised:
        count += 1
        for channel, plane in enumerate(("u", "v")):
            write(part / plane / f"{count:06d}", np.ascontiguousarray(flow[..., channel]))
    return count


def _grey_writer() -> Callable[[Path, Frames], None]:
    """Return a writer of grey images: JPEG with OpenCV, else PNG, which TAO also reads."""
    try:
        cv2 = load_cv2()
    except ImportError:
        return lambda stem, image: _encode(stem.with_suffix(".png"), image, "png", "gray")

    def write(stem: Path, image: Frames) -> None:
        path = stem.with_suffix(".jpg")
        encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not encoded:
            raise DatasetError(f"{path}: OpenCV cannot encode {list(image.shape)} as JPEG")
        path.write_bytes(data.tobytes())

    return write


def write_jpeg(path: Path, image: Frames) -> None:
    """Write uint8 RGB [H, W, 3] as a JPEG with full colour resolution."""
    _encode(path, image, "mjpeg", "yuvj444p")


def _encode(path: Path, image: Frames, codec: str, pixels: str) -> None:
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = image.shape[:2]  # type: ignore[attr-defined] # of a video codec
    encoder.pix_fmt = pixels  # type: ignore[attr-defined] # of a video codec
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    if codec == "mjpeg":
        encoder.qmin = encoder.qmax = 2  # type: ignore[attr-defined] # of a video codec
    source = "gray" if image.ndim == 2 else "rgb24"
    frame = av.VideoFrame.from_ndarray(image, format=source).reformat(format=pixels)
    packets = [*encoder.encode(frame), *encoder.encode(None)]  # type: ignore[attr-defined] # of a video codec
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


def _size(info: VideoInfo, settings: Settings) -> tuple[int, int]:
    if settings.short_side is None:
        return info.height, info.width
    return resized_size(info.height, info.width, settings.short_side)


def _frames(
    info: VideoInfo, indices: np.ndarray[tuple[int], np.dtype[np.int64]], size: tuple[int, int]
) -> Iterator[Frames]:
    """Yield the resized frames at these indices, which are in order and may repeat."""
    place = 0
    for index, frame in stream(info, indices, threads=1):
        resized = resize_frame(frame, size)
        while place < len(indices) and indices[place] == index:
            yield resized
            place += 1
