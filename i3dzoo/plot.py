"""A picture of a timeline: the video's frames above, the probabilities of its actions below."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from i3dzoo._files import atomic_write, check_output
from i3dzoo.errors import DependencyError, I3DZooError, OutputError
from i3dzoo.video import Frames, VideoInfo, stream

if TYPE_CHECKING:
    from i3dzoo.predict import Prediction, Timeline

__all__ = ["SUFFIXES", "check_plot", "plot_timeline"]

SUFFIXES = (".png", ".pdf", ".svg")

# Okabe and Ito's palette, which colour-blind readers can tell apart; black and yellow left out.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_INK, _FAINT = "#333333", "#DDDDDD"

_WIDTH, _HEIGHT = 11.0, 5.4  # inches
_LEFT, _RIGHT = 0.065, 0.755  # of the width; labels stand to the right
_STRIP = 0.20  # of the height, taken by the frames
_LONGEST_LABEL, _LONGEST_TITLE = 28, 64
_PLAIN: dict[str, Any] = {"parse_math": False}  # file names and labels may hold dollar signs


def check_plot(path: Path, force: bool = False) -> None:
    """Make sure, before the long work, that a plot can be drawn and written.

    Raises:
        DependencyError: Matplotlib is not installed.
        OutputError: The file exists, or has a suffix that is not among `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: plots are written as {', '.join(SUFFIXES)}; name one of these")
    check_output(path, force)
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise DependencyError("plots need Matplotlib: pip install 'i3dzoo[plot]'") from error


def plot_timeline(
    prediction: "Prediction", path: str | Path, *, top_k: int = 5, force: bool = False
) -> Path:
    """Draw how probable the strongest classes are over the video, with its frames along the top.

    Args:
        prediction: Made with `timeline=True`.
        path: PNG, PDF or SVG file to write.
        top_k: How many classes, those with the highest mean probability over time; at most 6.
        force: Replace the file if it exists.

    Returns:
        The path.

    Raises:
        DependencyError: Matplotlib is not installed.
        OutputError: The file exists or cannot be written.
        I3DZooError: The prediction has no timeline.
    """
    path = Path(path)
    check_plot(path, force)
    if prediction.timeline is None:
        raise I3DZooError(f"{prediction.path}: was predicted without timeline=True")
    # The Figure is used directly: pyplot keeps global state and looks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=150, facecolor="white")
    title = _shorten(prediction.path.name, _LONGEST_TITLE)
    figure.text(_LEFT, 0.945, title, size=14, weight="bold", color=_INK, **_PLAIN)
    best = prediction.top[0]
    summary = f"{best.label}  {best.probability:.1%} over the whole video"
    figure.text(_LEFT, 0.895, summary, size=10.5, color=_INK, **_PLAIN)
    timeline = prediction.timeline
    _draw_frames(figure, prediction.info, timeline)
    _draw_lines(figure, timeline, timeline.strongest(min(top_k, len(_COLOURS))))
    kind = path.suffix.lower().removeprefix(".")
    with atomic_write(path) as file, warnings.catch_warnings():
        # A glyph that the font lacks is drawn as a box; that is no reason to fail or to shout.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format=kind)
    return path


def _draw_frames(figure: Any, info: VideoInfo, timeline: "Timeline") -> None:
    """Draw as many frames as fit side by side, each above its own time."""
    width, height = (_RIGHT - _LEFT) * _WIDTH, _STRIP * _HEIGHT
    count = max(round(width / (height * min(max(info.width / info.height, 0.5), 2.5))), 1)
    for number, frame in enumerate(_thumbnails(info, timeline, count)):
        left = _LEFT + (_RIGHT - _LEFT) * number / count
        slot = (_RIGHT - _LEFT) / count
        axes = figure.add_axes((left + 0.001, 0.665, slot - 0.002, _STRIP))
        axes.imshow(_cut(frame, width / count / height), aspect="auto", interpolation="antialiased")
        axes.set_axis_off()


def _thumbnails(info: VideoInfo, timeline: "Timeline", count: int) -> list[Frames]:
    moments = timeline.ends[-1] * (np.arange(count) + 0.5) / count
    if info.times is not None and timeline.unit == "s":
        indices = np.searchsorted(info.times, moments, side="right") - 1
    else:
        indices = moments.astype(np.int64)
    indices = np.clip(indices, 0, info.frames - 1).astype(np.int64)
    # Thinned as they come, so that a few frames of a very large video do not fill the memory.
    step = max(min(info.height, info.width) // 360, 1)
    found = {index: frame[::step, ::step].copy() for index, frame in stream(info, indices)}
    return [_colour(found[index]) for index in indices.tolist()]


def _colour(frame: Frames) -> Frames:
    """Show optical flow as colour: x as red, y as green."""
    if frame.shape[2] == 3:
        return frame
    return np.concatenate([frame, np.full_like(frame[..., :1], 128)], axis=2)


def _cut(frame: Frames, aspect: float) -> Frames:
    """Cut the centre of a frame to a ratio of width to height."""
    height, width = frame.shape[:2]
    wide = min(width, max(round(height * aspect), 1))
    high = min(height, max(round(width / aspect), 1))
    top, left = (height - high) // 2, (width - wide) // 2
    return frame[top : top + high, left : left + wide]


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _draw_lines(figure: Any, timeline: "Timeline", classes: list[int]) -> None:
    axes = figure.add_axes((_LEFT, 0.1, _RIGHT - _LEFT, 0.545))
    middles = (timeline.starts + timeline.ends) / 2
    # The first and last steps reach to the ends of the video.
    x = np.concatenate([timeline.starts[:1], middles, timeline.ends[-1:]])
    for colour, index in zip(_COLOURS, classes, strict=False):
        y = 100 * timeline.probabilities[:, index]
        y = np.concatenate([y[:1], y, y[-1:]])
        axes.fill_between(x, y, color=colour, alpha=0.10, linewidth=0)
        axes.plot(x, y, color=colour, linewidth=2.2, solid_joinstyle="round", clip_on=False)
    axes.set_xlim(0, timeline.ends[-1])
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axes.set_xlabel("seconds" if timeline.unit == "s" else "frames", color=_INK)
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    _draw_key(figure, timeline, classes)


def _draw_key(figure: Any, timeline: "Timeline", classes: list[int]) -> None:
    """List the classes to the right, with the highest probability that each reaches."""
    weights = timeline.ends - timeline.starts
    for row, (colour, index) in enumerate(zip(_COLOURS, classes, strict=False)):
        label = _shorten(timeline.labels[index], _LONGEST_LABEL)
        values = timeline.probabilities[:, index]
        mean, peak = np.average(values, weights=weights), values.max()
        y = 0.615 - 0.085 * row
        figure.text(0.775, y, "\N{BLACK SQUARE}", size=12, color=colour)
        figure.text(0.795, y, label, size=10, weight="bold", color=_INK, **_PLAIN)
        figure.text(0.795, y - 0.033, f"mean {mean:.0%}, peak {peak:.0%}", size=9, color="#777777")
