"""Find the images of a clip in a folder.

A folder is one clip if it holds one numbered series of images and nothing else, or one of the
layouts with optical flow: rgb/, u/ and v/ (NVIDIA TAO), or img_*, flow_x_* and flow_y_* in one
folder (TSN, dense_flow). Anything else is refused, because its images may be thumbnails, masks, or
frames of several clips.
"""

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from i3dzoo.errors import VideoError
from i3dzoo.video.info import Channels

FLOW_HELP: Final = "a .npy or .npz array [T, H, W, 2], or a folder with u/ and v/ images"

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
VIDEO_SUFFIXES: Final = frozenset(
    {".3gp", ".asf", ".avi", ".divx", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".npy", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
_VIDEOS: Final = VIDEO_SUFFIXES | {".npz"}
SYSTEM_FILES: Final = frozenset({"thumbs.db", "desktop.ini"})  # hidden files are ignored, too
_DIGITS: Final = re.compile("[0-9]+")
_PLANE: Final = re.compile(r"(flow_?)?([xyuv])(_?\*)", re.IGNORECASE)
_PARTNERS: Final = {"x": "y", "u": "v", "X": "Y", "U": "V"}
Series = dict[int, Path]  # images by number, in order

_RULE: Final = "a folder is one clip if it holds one numbered series of images and nothing else"


@dataclass(frozen=True)
class Images:
    """The images of a clip in order: a list for RGB, or two for x and y of optical flow."""

    planes: tuple[list[Path], ...]
    notes: tuple[str, ...] = ()


def find_images(path: Path, channels: Channels) -> Images:
    """Return the images of a clip, and what is odd about them."""
    images, others = _list(path)
    subfolders = {name for name in others if name in ("rgb", "u", "v") and (path / name).is_dir()}
    if subfolders and not images:
        return _of_tao(path, channels, subfolders)
    series = _split(path, images, others)
    flow = next(((x, y) for x in series if (y := _partner(x)) in series), None)
    frames = [name for name in series if flow is None or name not in flow]
    if len(frames) > 1 or (frames and _is_flow(frames[0])):
        counts = [f"{name} ({len(images)})" for name, images in series.items()]
        raise VideoError(
            f"{path}: holds {', '.join(counts[:4])}, which are not RGB and optical flow of one "
            f"clip; {_RULE}: move each series to a folder of its own"
        )
    if channels == "rgb":
        if not frames:
            raise VideoError(
                f"{path}: holds optical flow ({' and '.join(flow or ())}), but the model takes RGB"
            )
        note = f"read {frames[0]}; {' and '.join(flow)} are optical flow" if flow else None
        return _images([series[frames[0]]], note)
    if flow is None:
        raise _no_flow(path)
    note = f"read {' and '.join(flow)} as optical flow of ±20 pixels"
    return _flow_images(path, flow, series[flow[0]], series[flow[1]], note)


def _of_tao(path: Path, channels: Channels, subfolders: set[str]) -> Images:
    """Return the images of rgb/, or of u/ and v/."""
    if channels == "rgb":
        if "rgb" not in subfolders:
            raise VideoError(f"{path}: holds optical flow (u/ and v/), but the model takes RGB")
        return _images([_only(path / "rgb")])
    if not {"u", "v"} <= subfolders:
        raise _no_flow(path)
    return _flow_images(path, ("u/", "v/"), _only(path / "u"), _only(path / "v"))


def _only(folder: Path) -> Series:
    """Return the only series of a folder, or an empty one."""
    images, others = _list(folder)
    series = _split(folder, images, others) if images or folder.name == "rgb" else {"": {}}
    if len(series) > 1:
        raise VideoError(f"{folder}: holds {' and '.join(list(series)[:4])}; {_RULE}")
    return next(iter(series.values()))


def _flow_images(
    path: Path, names: tuple[str, str], x: Series, y: Series, note: str | None = None
) -> Images:
    """Return the images of optical flow, which must have the same numbers."""
    if x.keys() != y.keys() or not x:
        raise VideoError(
            f"{path}: {names[0]} holds {len(x)} images and {names[1]} {len(y)}; "
            "expected the same numbers in both"
        )
    return _images([x, y], note)


def _images(planes: list[Series], note: str | None = None) -> Images:
    """Return the images of a clip, and what is odd about them."""
    notes = [note] if note else []
    first = planes[0]
    steps = [(after - before, before) for before, after in itertools.pairwise(first)]
    if len({step for step, _ in steps}) > 1:
        step, before = max(steps)
        notes.append(f"no images between {first[before].name} and {first[before + step].name}")
    return Images(tuple(list(plane.values()) for plane in planes), tuple(notes))


def _list(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images, and the names of everything else, without hidden files."""
    images, others = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in SYSTEM_FILES:
                    continue
                if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not entry.is_dir():  # noqa: PTH122 - fast
                    images.append(folder / entry.name)
                else:
                    others.append(entry.name)
    except OSError as error:
        raise VideoError(f"{folder}: cannot be listed: {error.strerror}") from error
    return images, sorted(others)


def _split(folder: Path, images: list[Path], others: list[str]) -> dict[str, Series]:
    """Return the numbered series of a folder by names such as `img_*`."""
    videos = [name for name in others if Path(name).suffix.lower() in _VIDEOS]
    if videos and not images:
        raise VideoError(
            f"{folder}: is a folder of {len(videos)} videos, such as {videos[0]}; pass the videos "
            f"themselves, as {folder}/*{Path(videos[0]).suffix}"
        )
    if not images:
        hint = f"; it holds {others[0]}: pass what is in the folder" if others else ""
        raise VideoError(f"{folder}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}){hint}")
    if others:
        remedy = "pass the videos themselves" if videos else "move it to another folder"
        raise VideoError(
            f"{folder}: holds {(videos or others)[0]} beside images such as "
            f"{min(images).name}; {_RULE}: {remedy}"
        )
    groups: dict[str, list[Path]] = {}
    for image in images:
        groups.setdefault(_DIGITS.sub("*", image.stem), []).append(image)
    return {name: _order(folder, name, groups[name]) for name in sorted(groups)}


def _order(folder: Path, name: str, images: list[Path]) -> Series:
    """Return the images of one series in the order of their numbers."""
    numbers = [[int(digits) for digits in _DIGITS.findall(image.stem)] for image in images]
    columns = list(zip(*numbers, strict=True))
    varying = [column for column in columns if len(set(column)) > 1] or columns[-1:]
    example = min(images).name
    if not varying:
        raise VideoError(f"{folder}: holds {example}, whose name has no number; {_RULE}")
    if len(varying) > 1:
        raise VideoError(
            f"{folder}: holds {example} and {max(images).name}, whose names differ in "
            f"{len(varying)} numbers, so they may be several clips; {_RULE}"
        )
    ordered = sorted(zip(varying[0], images, strict=True))
    for (number, first), (following, second) in itertools.pairwise(ordered):
        if number == following:
            raise VideoError(f"{folder}: {first.name} and {second.name} have the same number")
    suffixes = {image.suffix.lower().replace("jpeg", "jpg") for image in images}
    if len(suffixes) > 1:
        raise VideoError(
            f"{folder}: holds {name} with the suffixes {' and '.join(sorted(suffixes))}; {_RULE}"
        )
    return dict(ordered)


def _is_flow(name: str) -> bool:
    """Whether a series can only be optical flow, unlike `x_*`."""
    match = _PLANE.fullmatch(name)
    return match is not None and match[1] is not None


def _partner(name: str) -> str | None:
    """Return the name of the vertical flow that belongs to a horizontal one: `flow_y_*`."""
    match = _PLANE.fullmatch(name)
    plane = _PARTNERS.get(match[2]) if match else None
    return f"{match[1] or ''}{plane}{match[3]}" if match and plane else None


def _no_flow(path: Path) -> VideoError:
    return VideoError(
        f"{path}: holds no optical flow, but the model takes it; expected {FLOW_HELP}"
    )
