"""One clip into a prepared dataset: the video, its frames as images, its optical flow."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np

from i3dzoo._files import atomic_write, output_error
from i3dzoo.errors import DatasetError, VideoError
from i3dzoo.video.decode import probe, stream
from i3dzoo.video.flow import Engine, flows, load_cv2, quantise, to_grey
from i3dzoo.video.index import Entry, FlowEntry, Layout, Roles, describe
from i3dzoo.video.records import Frames, VideoInfo
from i3dzoo.video.sampling import resample
from i3dzoo.video.transforms import resize_frame, resized_size

__all__ = ["FlowStore", "Job", "Settings", "extract_clip"]

FlowStore = Literal["jpg", "npy"]

JPEG_QUALITY = 95  # of u/ and v/; RGB has FFmpeg's best scale, 2


@dataclass(frozen=True)
class Settings:
    """How a dataset is prepared.

    Attributes:
        layout: What becomes of the clips.
        fps: Rate of extracted frames and of flow; None for each video's own.
        short_side: Of extracted frames and of flow in pixels; None for their own size.
        flow: Engine of optical flow; None for none.
        flow_store: `jpg`: u/ and v/ with grey images, as NVIDIA TAO reads them; `npy`: one uint8
            array a clip, without loss.
        device: Of the engine `torch`.
    """

    layout: Layout = "videos"
    fps: float | None = None
    short_side: int | None = 256
    flow: Engine | None = None
    flow_store: FlowStore = "jpg"
    device: str = "cpu"


@dataclass(frozen=True)
class Job:
    """A clip to prepare.

    Attributes:
        source: The video file.
        name: What the lists call it.
        root: Folder of the dataset that is made.
        label: Its class.
        roles: In the splits.
        settings: How.
    """

    source: Path
    name: str
    root: Path
    label: str
    roles: Roles
    settings: Settings

    @property
    def stem(self) -> str:
        """The name without its suffix: of folders of frames and of flow."""
        return Path(self.name).stem


def extract_clip(job: Job) -> Entry:
    """Prepare one clip; one that cannot be read becomes an entry with an error.

    Folders and files appear under their final names only when they are whole.

    Raises:
        OutputError: The dataset's folder cannot be written.
    """
    settings = job.settings
    file = f"{settings.layout}/{job.label}/{job.name if settings.layout == 'videos' else job.stem}"
    try:
        info = probe(job.source)
        if settings.flow is not None and info.frames < 2:
            raise VideoError(f"{job.source}: has 1 frame, and optical flow takes two")
    except ValueError as error:
        return Entry(file, job.label, job.roles, error=_reason(job.source, error))
    target = job.root / file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        entry = describe(info, file, job.label, job.roles, job.source.stat().st_size)
        if settings.layout == "videos":
            _place(job.source, target)
            if settings.flow is not None:
                entry = dataclasses.replace(entry, flow=_flow_alone(job, info))
            return entry
        return _frame_folder(job, info, entry, target)
    except VideoError as error:
        return Entry(file, job.label, job.roles, error=_reason(job.source, error))
    except OSError as error:
        raise output_error(target, error) from error


def _reason(source: Path, error: Exception) -> str:
    return str(error).removeprefix(f"{source}: ")


def _place(source: Path, target: Path) -> None:
    """Link a file to its place, or copy it where that is on another file system."""
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with source.open("rb") as file, atomic_write(target) as copy:
            shutil.copyfileobj(file, copy, 1 << 20)


def _frame_folder(job: Job, info: VideoInfo, entry: Entry, target: Path) -> Entry:
    """Write a folder of images, with rgb/, u/ and v/ in TAO's layout."""
    settings = job.settings
    height, width = _size(info, settings)
    samples = resample(info, settings.fps)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    rgb = part / "rgb" if settings.layout == "tao" else part
    rgb.mkdir(parents=True)
    shared = settings.layout == "tao" and settings.flow_store == "jpg"
    flow = None
    if settings.flow is None:
        for number, frame in enumerate(_frames(info, samples.indices, (height, width)), 1):
            write_jpeg(rgb / f"{number:06d}.jpg", frame)
    else:
        flow_part = part if shared else _flow_part(job)

        def written() -> Iterator[Frames]:
            for number, frame in enumerate(_frames(info, samples.indices, (height, width)), 1):
                write_jpeg(rgb / f"{number:06d}.jpg", frame)
                yield to_grey(frame)

        count = _write_flow(written(), settings, flow_part)
        file = entry.file if shared else _settle_flow(job, flow_part)
        flow = FlowEntry(file, count, height, width)
    size = sum(path.stat().st_size for path in rgb.iterdir())
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    times = None
    if settings.fps is None or samples.fps == info.fps:
        times = entry.times
    return dataclasses.replace(
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


def _flow_alone(job: Job, info: VideoInfo) -> FlowEntry:
    """Compute the flow of a video that stays a video."""
    settings = job.settings
    height, width = _size(info, settings)
    samples = resample(info, settings.fps)
    part = _flow_part(job)
    greys = (to_grey(frame) for frame in _frames(info, samples.indices, (height, width)))
    count = _write_flow(greys, settings, part)
    rate = None if samples.fps == info.fps else samples.fps
    return FlowEntry(_settle_flow(job, part), count, height, width, rate)


def _flow_part(job: Job) -> Path:
    folder = job.root / "flow" / job.label
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f".{job.stem}.part"


def _settle_flow(job: Job, part: Path) -> str:
    """Give the finished flow its name, and return it."""
    suffix = ".npy" if job.settings.flow_store == "npy" else ""
    target = part.with_name(job.stem + suffix)
    if target.is_dir():
        shutil.rmtree(target)
    part.replace(target)
    return f"flow/{job.label}/{target.name}"


def _write_flow(greys: Iterable[Frames], settings: Settings, part: Path) -> int:
    """Compute flow and write it; return the number of fields."""
    if settings.flow is None:
        raise DatasetError("no engine of optical flow is chosen")
    fields = (quantise(field) for field in flows(greys, settings.flow, settings.device))
    if settings.flow_store == "npy":
        array = np.stack(list(fields))
        with part.open("wb") as file:
            np.save(file, array)
        return len(array)
    write = _grey_writer()
    for plane in ("u", "v"):
        shutil.rmtree(part / plane, ignore_errors=True)
        (part / plane).mkdir(parents=True)
    count = 0
    for field in fields:
        count += 1
        for channel, plane in enumerate(("u", "v")):
            write(part / plane / f"{count:06d}", np.ascontiguousarray(field[..., channel]))
    return count


def _grey_writer() -> Callable[[Path, Frames], None]:
    """Return what writes a grey image: JPEG by OpenCV; without it PNG, which TAO reads too."""
    try:
        cv2 = load_cv2()
    except ImportError:
        return lambda stem, image: _encode(stem.with_suffix(".png"), image, "png", "gray")

    def write(stem: Path, image: Frames) -> None:
        path = stem.with_suffix(".jpg")
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not done:
            raise DatasetError(f"{path}: OpenCV cannot encode {list(image.shape)} as JPEG")
        path.write_bytes(data.tobytes())

    return write


def write_jpeg(path: Path, image: Frames) -> None:
    """Write uint8 RGB [H, W, 3] as a JPEG with full colour resolution."""
    _encode(path, image, "mjpeg", "yuvj444p")


def _encode(path: Path, image: Frames, codec: str, pixels: str) -> None:
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = image.shape[:2]  # type: ignore[attr-defined] # of a video codec
    encoder.pix_fmt = pixels  # type: ignore[attr-defined] # likewise
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    if codec == "mjpeg":
        encoder.qmin = encoder.qmax = 2  # type: ignore[attr-defined] # likewise
    source = "gray" if image.ndim == 2 else "rgb24"
    frame = av.VideoFrame.from_ndarray(image, format=source).reformat(format=pixels)
    packets = [*encoder.encode(frame), *encoder.encode(None)]  # type: ignore[attr-defined] # likewise
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


def _size(info: VideoInfo, settings: Settings) -> tuple[int, int]:
    if settings.short_side is None:
        return info.height, info.width
    return resized_size(info.height, info.width, settings.short_side)


def _frames(
    info: VideoInfo, indices: np.ndarray[tuple[int], np.dtype[np.int64]], size: tuple[int, int]
) -> Iterator[Frames]:
    """Yield the frames at these indices, which rise and may repeat, resized."""
    place = 0
    for index, frame in stream(info, indices, threads=1):
        resized = resize_frame(frame, size)
        while place < len(indices) and indices[place] == index:
            yield resized
            place += 1
