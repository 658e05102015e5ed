"""Draw curves, confusion matrices, timelines and benchmarks with Matplotlib."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from i3dzoo.errors import I3DZooError, MetadataError
from i3dzoo.evaluation.metrics import Metrics
from i3dzoo.report.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAPER,
    POINT,
    PURPLE,
    SOFT,
    TRACK,
    check_plot,
    clean_axes,
    new_figure,
    save_figure,
    shorten,
    to_inline_svg,
)
from i3dzoo.report.run_folder import Column, MetricHistory, RunFolder
from i3dzoo.report.thumbnails import timeline_frames

if TYPE_CHECKING:
    from i3dzoo.bench import Measurement
    from i3dzoo.predict import Prediction, Timeline

# Okabe and Ito's palette, which colour-blind people can tell apart
_TIMELINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_LEFT, _RIGHT, _STRIP = 0.065, 0.755, 0.20  # of a timeline: its sides, height of the frames
_PLAIN: Final[dict[str, Any]] = {"parse_math": False}  # names may hold dollar signs
_MOST_POINTS, _MOST_TIPS, _MOST_MARKERS = 240, 120, 80
_STEPS = [1, 2, 5, 10]  # of the ticks


def plot_run(run: RunFolder, folder: Path) -> list[Path]:
    """Write a run's curves and, if it has predictions, its confusion matrix as PNG files."""
    plots = [plot_curves(run.history, folder / "curves.png")]
    if run.metrics is not None:
        plots.append(plot_confusion(run.metrics, run.run.labels, folder / "confusion.png"))
    return plots


def plot_curves(history: MetricHistory, path: str | Path) -> Path:
    """Draw loss, accuracy and learning rate over epochs as PNG; an earlier file is replaced."""
    figure = new_figure(11, 3.4, layout="constrained")
    for axes, panel in zip(figure.subplots(1, 3), curve_panels(history), strict=False):
        axes.set_title(panel.title, color=INK, size=11, loc="left", weight="bold")
        axes.set_xlabel("epoch", color=SOFT)
        if panel.empty:
            continue
        draw_panel(axes, panel)
        if len(panel.curves) > 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=SOFT)
    return save_figure(figure, Path(path), force=True)


@dataclass(frozen=True, eq=False)
class Curve:
    """A line of a panel over rising epochs `x`, with a gap where a value of `y` is not finite.

    A curve without a name is left out of the legend and of the values under the pointer. The style
    `faint` is for raw values behind a smoothed line.
    """

    name: str
    x: Column
    y: Column
    colour: str
    style: Literal["line", "faint", "markers"] = "line"


@dataclass(frozen=True)
class Panel:
    """Curves over epochs that share an axis, in 0..1 if `percent`, and from 0 if `zero`."""

    title: str
    curves: tuple[Curve, ...]
    percent: bool = False
    zero: bool = False
    small: bool = False

    @property
    def empty(self) -> bool:
        """Whether no curve has a finite value."""
        return not any(np.isfinite(curve.y).any() for curve in self.curves)


def curve_panels(history: MetricHistory) -> tuple[Panel, ...]:
    """Return the panels of a run: loss, accuracy, learning rate, speed and waiting for data."""
    epoch, evaluated = history.steps["epoch"], history.epochs["epoch"]

    def training(key: str, name: str) -> list[Curve]:
        x, y = thin(epoch, history.steps[key])
        window = len(y) // 25
        raw = [Curve("", x, y, BLUE, "faint")] if window > 1 else []
        return [*raw, Curve(name, x, smooth(y, window), BLUE)]

    def validation(key: str, name: str, colour: str) -> Curve:
        return Curve(name, evaluated, history.epochs[key], colour, "markers")

    def line(key: str, name: str, colour: str) -> tuple[Curve]:
        return (Curve(name, *thin(epoch, history.steps[key]), colour),)

    accuracy = (
        *training("top1", "training top-1"),
        validation("top1", "validation top-1", ORANGE),
        validation("top5", "top-5", GREEN),
        validation("mean_class", "mean class", PURPLE),
    )
    loss = (*training("loss", "training"), validation("val_loss", "validation", ORANGE))
    speed = line("clips_per_second", "clips/s", PURPLE)
    return (
        Panel("Loss", loss),
        Panel("Accuracy", accuracy, percent=True),
        Panel("Learning rate", line("lr", "rate", GREEN), small=True),
        Panel("Clips per second", speed, zero=True, small=True),
        Panel("Waiting for data", line("data_wait", "waiting", GREY), percent=True, small=True),
    )


def panel_svg(panel: Panel) -> str:
    """Draw a panel as SVG for the report."""
    width, height = (380, 190) if panel.small else (560, 250)
    figure = new_figure(width * POINT, height * POINT)
    axes = figure.add_axes((50 / width, 28 / height, 1 - 64 / width, 1 - 40 / height))
    draw_panel(axes, panel)
    return to_inline_svg(figure, panel.title, {"tips": _draw_tips(axes, panel)})


def draw_panel(axes: Any, panel: Panel) -> None:
    """Draw a panel that is not empty into Matplotlib's axes."""
    from matplotlib import ticker

    for curve in panel.curves:
        y = np.where(np.isfinite(curve.y), curve.y, np.nan)
        faint = curve.style == "faint"
        marked = curve.style == "markers" and len(y) <= _MOST_MARKERS
        axes.plot(
            curve.x,
            y,
            color=curve.colour,
            alpha=0.32 if faint else 1,
            linewidth=1 if faint else 2,
            label=curve.name or "_nolegend_",
            marker="o" if marked or np.isfinite(y).sum() == 1 else None,
            markersize=5,
            markerfacecolor=PAPER,
            markeredgewidth=1.6,
            solid_capstyle="round",
            clip_on=False,
        )
    values = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in panel.curves])
    low, high = 0.0 if panel.zero else float(values.min()), float(values.max())
    if panel.percent:
        axes.set_ylim(0, 1 if high >= 0.2 else max(1.2 * high, 0.01))
        axes.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=_STEPS))
    elif low > 0 and high > 50 * low:
        axes.set_yscale("log")
        axes.set_ylim(10.0 ** np.floor(np.log10(low)), 10.0 ** np.ceil(np.log10(high)))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
    else:
        high = high if high > low else low + (abs(low) or 1)
        ticks = ticker.MaxNLocator(5, steps=_STEPS).tick_values(low, high)
        axes.set(ylim=(ticks[0], ticks[-1]), yticks=ticks)
    axes.yaxis.set_major_formatter(
        lambda value, _: f"{100 * value:.3g} %" if panel.percent else f"{value:.4g}"
    )
    last = max(float(curve.x[np.isfinite(curve.y)].max(initial=0)) for curve in panel.curves)
    axes.set_xlim(0, last or 1)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, steps=_STEPS))
    clean_axes(axes)


def _draw_tips(axes: Any, panel: Panel) -> list[str]:
    """Cover the panel with invisible columns, and return the text of each: all values there."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    curves = [
        (curve, curve.x[np.isfinite(curve.y)], curve.y[np.isfinite(curve.y)])
        for curve in panel.curves
        if curve.name and np.isfinite(curve.y).any()
    ]
    places = np.unique(np.concatenate([x for _, x, _ in curves]))
    if len(places) > _MOST_TIPS:
        places = places[np.linspace(0, len(places) - 1, _MOST_TIPS).astype(int)]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    edges = np.concatenate([[left], (places[1:] + places[:-1]) / 2, [right]])
    columns = [
        Rectangle((start, bottom), end - start, top - bottom)
        for start, end in itertools.pairwise(edges.tolist())
    ]
    axes.add_collection(
        PatchCollection(columns, gid="tips", facecolor="none", edgecolor="none", clip_on=False)
    )
    texts = []
    for place in places.tolist():
        lines = [f"epoch {place:.4g}"]
        for curve, x, y in curves:
            value = y[np.abs(x - place).argmin()]
            lines.append(f"{curve.name}  {value:{'.1%' if panel.percent else '.4g'}}")
        texts.append("\n".join(lines))
    return texts


def thin(x: Column, y: Column, most: int = _MOST_POINTS) -> tuple[Column, Column]:
    """Average neighbouring points until at most `most` are left; drop those that are not finite."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) <= most:
        return x, y
    starts = np.linspace(0, len(x), most, endpoint=False).astype(int)
    counts = np.diff(starts, append=len(x))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def smooth(y: Column, window: int) -> Column:
    """Return the centred moving mean over `window` values, and over fewer at the ends."""
    if window < 2 or len(y) < 2:
        return y
    half = min(window // 2, len(y) - 1)
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    result: Column = (total[high] - total[low]) / (high - low)
    return result


def confusion_svg(metrics: Metrics, labels: Sequence[str]) -> str:
    """Draw a confusion matrix as SVG, with the numbers of a cell under the pointer."""
    figure, tips = _confusion_figure(metrics, labels, top=0)
    return to_inline_svg(figure, "Confusion matrix", {"cells": tips})


def plot_confusion(metrics: Metrics, labels: Sequence[str], path: str | Path) -> Path:
    """Draw a confusion matrix as PNG; an earlier file is replaced.

    The strength of a cell is its share of the row: blue for right predictions, orange for wrong.
    """
    figure, _ = _confusion_figure(metrics, labels, top=44)
    title = f"top-1 {metrics.top1:.1%}, {metrics.videos:,} videos"
    height = 72 * figure.get_figheight()
    figure.text(0.015, 1 - 18 / height, title, color=INK, size=13, weight="bold")
    legend = "rows: true class, columns: predicted class"
    figure.text(0.015, 1 - 34 / height, legend, color=SOFT, size=9)
    return save_figure(figure, Path(path), force=True)


def _confusion_figure(metrics: Metrics, labels: Sequence[str], top: float) -> tuple[Any, list[str]]:
    """Draw a matrix below a margin of `top` points; return it with the text of each cell."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    classes, confusion = len(labels), metrics.confusion
    cell = min(640 / classes, 56.0)
    size = min(max(cell * 0.8, 7.0), 12.0)
    names = [shorten(label) for label in labels] if classes <= 64 else []
    margin = max(map(len, names)) * size * 0.58 + 12 if names else 24.0
    side = cell * classes
    width, height = max(margin + side + 4, 300), margin + side + 4 + top
    figure = new_figure(width * POINT, height * POINT)
    axes = figure.add_axes((margin / width, 4 / height, side / width, side / height))
    axes.set(xlim=(0, classes), ylim=(classes, 0))
    axes.add_patch(Rectangle((0, 0), classes, classes, facecolor=TRACK, alpha=0.55))
    cells = [
        (row, column, count, total, count / total)
        for row, total in enumerate(confusion.sum(1).tolist())
        for column, count in enumerate(confusion[row].tolist())
        if count
    ]
    axes.add_collection(
        PatchCollection(
            [Rectangle((column, row), 1, 1) for row, column, *_ in cells],
            gid="cells",
            # a single video of many is still visible
            facecolor=[
                (BLUE if row == column else ORANGE, 0.12 + 0.88 * share)
                for row, column, _, _, share in cells
            ],
            edgecolor=PAPER,
            linewidth=0.6,
            clip_on=False,
        )
    )
    for row, column, count, _, share in cells if cell >= 22 else ():
        style = {"color": PAPER if share > 0.5 else INK, "ha": "center", "va": "center"}
        axes.text(column + 0.5, row + 0.5, str(count), size=12, **style)
    axes.xaxis.tick_top()
    middles = np.arange(len(names)) + 0.5
    axes.set_xticks(middles, names, rotation=90, size=size, color=SOFT, **_PLAIN)
    axes.set_yticks(middles, names, size=size, color=SOFT, **_PLAIN)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, [
        f"{labels[row]} → {labels[column]}\n{count} of {total} videos, {share:.0%}"
        for row, column, count, total, share in cells
    ]


def plot_benchmark(
    measurements: Sequence["Measurement"], path: str | Path, *, force: bool = False
) -> Path:
    """Draw the clips per second of each measurement as bars: PNG, PDF or SVG."""
    measured = [row for row in measurements if row.clips_per_second is not None]
    if not measured:
        raise MetadataError("every engine failed, so there are no numbers to draw")
    figure = new_figure(8, 1 + 0.4 * len(measured), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{row.engine} {row.precision}, batch {row.batch}" for row in measured]
    bars = axes.barh(names, [row.clips_per_second or 0 for row in measured], color=BLUE)
    axes.bar_label(bars, fmt="%.3g", padding=3, color=INK)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("clips per second", color=SOFT)
    clean_axes(axes, grid="x")
    return save_figure(figure, Path(path), force)


def plot_timeline(
    prediction: "Prediction", path: str | Path, *, top_k: int = 5, force: bool = False
) -> Path:
    """Draw the probabilities of the strongest classes over a video, below frames of the video.

    The prediction has a timeline. At most six classes are drawn, by their mean probability.
    """
    path = Path(path)
    check_plot(path, force)
    timeline = prediction.timeline
    if timeline is None:
        raise I3DZooError(f"{prediction.path}: was predicted without timeline=True")
    figure = new_figure(11, 5.4)
    title = shorten(prediction.path.name, 64)
    figure.text(_LEFT, 0.945, title, size=14, weight="bold", color=INK, **_PLAIN)
    best = prediction.top[0]
    summary = f"{best.label}  {best.probability:.1%} over the whole video"
    figure.text(_LEFT, 0.895, summary, size=10.5, color=INK, **_PLAIN)
    frames = timeline_frames(prediction.info, timeline, (_RIGHT - _LEFT) * 11, _STRIP * 5.4)
    slot = (_RIGHT - _LEFT) / len(frames)
    for number, frame in enumerate(frames):
        axes = figure.add_axes((_LEFT + slot * number + 0.001, 0.665, slot - 0.002, _STRIP))
        axes.imshow(frame, aspect="auto", interpolation="antialiased")
        axes.set_axis_off()
    classes = timeline.strongest(min(top_k, len(_TIMELINE_COLOURS)))
    _draw_timeline(figure.add_axes((_LEFT, 0.1, _RIGHT - _LEFT, 0.545)), timeline, classes)
    _draw_timeline_legend(figure, timeline, classes)
    return save_figure(figure, path, force)


def _draw_timeline(axes: Any, timeline: "Timeline", classes: list[int]) -> None:
    middles = (timeline.starts + timeline.ends) / 2
    # the first and last steps reach to the ends of the video
    x = np.concatenate([timeline.starts[:1], middles, timeline.ends[-1:]])
    for colour, index in zip(_TIMELINE_COLOURS, classes, strict=False):
        y = np.pad(100 * timeline.probabilities[:, index], 1, mode="edge")
        axes.fill_between(x, y, color=colour, alpha=0.10, linewidth=0)
        axes.plot(x, y, color=colour, linewidth=2.2, solid_joinstyle="round", clip_on=False)
    axes.set(xlim=(0, timeline.ends[-1]), ylim=(0, 100))
    axes.set_yticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axes.set_xlabel("seconds" if timeline.unit == "s" else "frames", color=SOFT)
    clean_axes(axes)


def _draw_timeline_legend(figure: Any, timeline: "Timeline", classes: list[int]) -> None:
    """List the classes on the right, with their mean and highest probability."""
    weights = timeline.ends - timeline.starts
    for row, (colour, index) in enumerate(zip(_TIMELINE_COLOURS, classes, strict=False)):
        values = timeline.probabilities[:, index]
        mean, peak = np.average(values, weights=weights), values.max()
        y, label = 0.615 - 0.085 * row, shorten(timeline.labels[index], 25)
        figure.text(0.775, y, "\N{BLACK SQUARE}", size=12, color=colour)
        figure.text(0.795, y, label, size=10, weight="bold", color=INK, **_PLAIN)
        figure.text(0.795, y - 0.033, f"mean {mean:.0%}, peak {peak:.0%}", size=9, color=SOFT)
