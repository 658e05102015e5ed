"""Convert decoded frames to RGB: upright, at their display size, drawn over white."""

from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter

from i3dzoo.errors import VideoError
from i3dzoo.limits import MAX_PIXELS
from i3dzoo.video.info import Frames

DECODER_PIXELS: Final = str(MAX_PIXELS * 9 // 8)  # FFmpeg counts padding

_ROWS: Final = 256  # drawn over white at once, since the arithmetic takes more memory than a frame

_MOST_ASPECT: Final = 16  # a pixel that is longer than this is a damaged header

# The numbers are those of ISO/IEC 23091-2, which FFmpeg uses.
_HDR: Final = {16: "PQ", 18: "HLG"}
_BT2020: Final = 9


def display_size(
    path: Path, frame: av.VideoFrame, aspect: Fraction | None
) -> tuple[int, int, tuple[str, ...]]:
    """Return the height and width at which a video is shown, and remarks about how it is shown.

    `aspect` is the width of a pixel divided by its height; None if the file does not say.
    """
    height, width = frame.height, frame.width
    remarks = []
    if aspect and aspect != 1 and 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT:
        width = max(round(width * aspect), 1)
        if width != frame.width:
            remarks.append(
                f"its pixels are not square ({aspect.numerator}:{aspect.denominator}); frames of "
                f"{frame.width}x{height} pixels are shown at {width}x{height}"
            )
    check_pixels(path, height, width)
    transfer = _HDR.get(frame.color_trc)
    if transfer or frame.color_primaries == _BT2020:
        remarks.append(
            f"it has {f'HDR ({transfer})' if transfer else 'BT.2020'} colours, which are not "
            "converted; models are trained on SDR: convert it first for colours as in their data"
        )
    if quarter_turns(frame) % 2:
        height, width = width, height
    return height, width, tuple(remarks)


def check_pixels(path: Path, height: int, width: int) -> None:
    """Raise a VideoError if frames of this size are too large."""
    if height * width > MAX_PIXELS:
        raise VideoError(
            f"{path}: has frames of {width}x{height} pixels; expected at most {MAX_PIXELS:,} "
            "pixels: make it smaller first"
        )


def quarter_turns(frame: av.VideoFrame) -> int:
    """Return how often a frame must be turned by 90 degrees, against the clock."""
    return round(frame.rotation / 90) % 4


def to_array(
    frame: av.VideoFrame,
    reformatter: VideoReformatter,
    path: Path,
    size: tuple[int, int] | None = None,
) -> Frames:
    """Convert a frame to upright uint8 RGB [H, W, 3] of a size, drawn over white."""
    turns = quarter_turns(frame)
    width, height = frame.width, frame.height
    if size is not None:
        width, height = size if turns % 2 else size[::-1]
    transparent = frame.format.name == "pal8" or any(
        part.is_alpha for part in frame.format.components
    )
    try:
        target = "rgba" if transparent else "rgb24"
        pixels = reformatter.reformat(frame, width, height, target).to_ndarray()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: pixel format {frame.format.name} cannot be converted to RGB "
            f"({reason(error)}); encode the video again with ffmpeg"
        ) from error
    image = np.asarray(pixels, dtype=np.uint8)
    if transparent:
        image = over_white(image)
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def over_white(image: Frames) -> Frames:
    """Draw uint8 RGBA [H, W, 4] over white; return RGB [H, W, 3]."""
    drawn = np.empty((*image.shape[:2], 3), np.uint8)
    for top in range(0, len(image), _ROWS):
        rows, target = image[top : top + _ROWS], drawn[top : top + _ROWS]
        target[...] = rows[..., :3]
        clear = rows[..., 3] == 0
        if ((rows[..., 3] == 255) | clear).all():
            target[clear] = 255
        else:
            alpha = rows[..., 3:].astype(np.uint16)
            mixed = rows[..., :3] * alpha + 255 * (255 - alpha)
            target[...] = (mixed + 127) // 255
    return drawn


def reason(error: Exception) -> str:
    """Return what went wrong in an FFmpeg error, without its number."""
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
