"""Write a video with the predicted classes drawn on its frames."""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av
import av.error
import numpy as np

from i3dzoo.errors import DependencyError, OutputError
from i3dzoo.files import atomic_write, check_output
from i3dzoo.report.thumbnails import to_rgb
from i3dzoo.text import printable, shorten
from i3dzoo.video import Frames, stream

if TYPE_CHECKING:
    from i3dzoo.predict import Prediction

SUFFIXES: Final = (".mp4", ".mkv", ".mov")

_FPS: Final = 25.0  # of frames without a rate
_TIME_BASE: Final = Fraction(1, 10_000)
_LONGEST: Final = 60  # characters of a label


def check_labelled_video(path: Path, force: bool = False) -> None:
    """Check before long work that a labelled video can be drawn and written."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"{path}: expected a video's suffix, one of {', '.join(SUFFIXES)}; found "
            f"{path.suffix or 'none'}"
        )
    check_output(path, force)
    _font(12)


def write_labelled_video(
    prediction: "Prediction", path: Path, *, top_k: int = 3, force: bool = False
) -> Path:
    """Write the frames of a video with its most probable classes, over time if it has a timeline.

    Source frames keep their times; frames without a rate are shown at 25 fps. A row or column is
    added to frames of odd size.

    Raises:
        OutputError: The file exists already, or cannot be written.
        DependencyError: Pillow or Matplotlib, whose font is used, is not installed.
        VideoError: The video cannot be read.
    """
    check_labelled_video(path, force)
    info = prediction.info
    times = np.arange(info.frames) / _FPS if info.times is None else info.times
    height, width = info.height + info.height % 2, info.width + info.width % 2
    font = _font(max(height // 16, 12))
    with atomic_write(path) as file, av.open(file, "w", _container(path)) as container:
        output: Any = container.add_stream(
            _codec(), rate=Fraction(info.fps or _FPS).limit_denominator(1001)
        )
        output.height, output.width, output.pix_fmt = height, width, "yuv420p"
        output.codec_context.time_base = _TIME_BASE
        for index, frame in stream(info, range(info.frames)):
            padded = np.pad(
                to_rgb(frame),
                ((0, height - info.height), (0, width - info.width), (0, 0)),
                mode="edge",
            )
            lines = _lines(prediction, float(times[index]), index, top_k)
            picture = av.VideoFrame.from_ndarray(_draw(padded, lines, font), format="rgb24")
            picture.pts = round(float(times[index]) / _TIME_BASE)
            picture.time_base = _TIME_BASE
            container.mux(output.encode(picture))
        container.mux(output.encode(None))
    return path


def _container(path: Path) -> str:
    return {".mkv": "matroska"}.get(path.suffix.lower(), path.suffix.lower().removeprefix("."))


def _codec() -> str:
    return next((name for name in ("libx264", "mpeg4") if name in av.codecs_available), "mpeg4")


def _lines(prediction: "Prediction", seconds: float, index: int, top_k: int) -> list[str]:
    """Return the classes to draw on a frame."""
    timeline = prediction.timeline
    if timeline is None:
        scores = [(score.label, score.probability) for score in prediction.top[:top_k]]
    else:
        moment = seconds if timeline.unit == "s" else float(index)
        step = int(np.searchsorted(timeline.ends, moment, side="right"))
        row = timeline.probabilities[min(step, len(timeline.ends) - 1)]
        best = np.argsort(-row, kind="stable")[:top_k].tolist()
        scores = [(timeline.labels[number], float(row[number])) for number in best]
    return [
        f"{probability:4.0%}  {printable(shorten(label, _LONGEST))}"
        for label, probability in scores
    ]


def _font(size: int) -> Any:
    """Return a font that has the letters of most languages written in Latin, Greek or Cyrillic."""
    try:
        import matplotlib
        from PIL import ImageFont
    except ImportError as error:
        raise DependencyError(
            "drawing on videos needs Matplotlib and Pillow: pip install 'i3dzoo[plot]'"
        ) from error
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _draw(frame: Frames, lines: list[str], font: Any) -> Frames:
    """Draw lines of text at the bottom left, white on a dark ground."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(np.ascontiguousarray(frame))
    draw = ImageDraw.Draw(image, "RGBA")
    text, margin = "\n".join(lines), font.size // 2
    place = (margin, image.height - margin)
    box = draw.multiline_textbbox(place, text, font=font, anchor="ld")
    draw.rectangle((0, box[1] - margin, box[2] + margin, image.height), fill=(0, 0, 0, 150))
    draw.multiline_text(place, text, font=font, anchor="ld", fill=(255, 255, 255))
    return np.asarray(image, dtype=np.uint8)
