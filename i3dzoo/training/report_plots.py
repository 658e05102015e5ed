"""The curves and the confusion matrix as PNG files, for model cards and papers."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from i3dzoo._files import atomic_write, check_output
from i3dzoo.errors import DependencyError
from i3dzoo.training.charts import shorten, smooth, thin
from i3dzoo.training.metrics import Metrics
from i3dzoo.training.run_files import History

if TYPE_CHECKING:
    from i3dzoo.training.report import RunFolder

__all__ = ["CONFUSION", "CURVES", "plot_confusion", "plot_curves", "plot_run"]

CURVES, CONFUSION = "curves.png", "confusion.png"

_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_INK, _FAINT = "#333333", "#DDDDDD"
_PLAIN: dict[str, Any] = {"parse_math": False}  # labels may hold dollar signs
_MOST_LABELS = 64


def plot_run(found: "RunFolder", folder: Path) -> list[Path]:
    """Draw a run's curves and, where it has predictions, its confusion matrix into a folder.

    Raises:
        DependencyError: Matplotlib is not installed.
        OutputError: A file cannot be written.
    """
    plots = [plot_curves(found.history, folder / CURVES)]
    if found.metrics is not None:
        plots.append(plot_confusion(found.metrics, found.run.labels, folder / CONFUSION))
    return plots


def plot_curves(history: History, path: str | Path) -> Path:
    """Draw loss, accuracy and learning rate over epochs, in place of an earlier file.

    Raises:
        DependencyError: Matplotlib is not installed.
        OutputError: The file cannot be written.
    """
    figure = _figure(11, 3.4)
    x, evaluated = history.steps["epoch"], history.epochs["epoch"]
    axes = figure.subplots(1, 3)
    for place, key, scale in ((axes[0], "loss", 1), (axes[1], "top1", 100)):
        raw_x, raw_y = thin(x, history.steps[key])
        raw_y = raw_y * scale
        place.plot(raw_x, raw_y, color=_BLUE, alpha=0.25, linewidth=1)
        smoothed = smooth(raw_y, len(raw_y) // 25)
        place.plot(raw_x, smoothed, color=_BLUE, linewidth=2, label="training")
    dots: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.6}
    axes[0].plot(evaluated, history.epochs["val_loss"], color=_ORANGE, label="validation", **dots)
    lines = (("top1", _ORANGE, "validation"), ("top5", _GREEN, "top-5"))
    for key, colour, name in (*lines, ("mean_class", _PURPLE, "mean class")):
        axes[1].plot(evaluated, 100 * history.epochs[key], color=colour, label=name, **dots)
    axes[2].plot(*thin(x, history.steps["lr"]), color=_GREEN, linewidth=2)
    for place, title in zip(axes, ("loss", "accuracy, %", "learning rate"), strict=True):
        place.set_title(title, color=_INK, size=11, loc="left", weight="bold")
        place.set_xlabel("epoch", color=_INK)
        _clean(place)
    axes[1].set_ylim(0, 100)
    rates = history.steps["lr"]
    if rates.size and rates.min() > 0 and rates.max() / rates.min() > 50:
        axes[2].set_yscale("log")
    for place in axes[:2]:
        place.legend(frameon=False, fontsize=8, labelcolor=_INK)
    return _save(figure, Path(path))


def plot_confusion(metrics: Metrics, labels: tuple[str, ...], path: str | Path) -> Path:
    """Draw the confusion matrix, each row as parts of its class, in place of an earlier file.

    Raises:
        DependencyError: Matplotlib is not installed.
        OutputError: The file cannot be written.
    """
    classes = len(labels)
    side = min(max(3.2, 2.2 + 0.16 * classes), 12)
    figure = _figure(side + 0.6, side)
    axes = figure.subplots()
    totals = np.maximum(metrics.confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(100 * metrics.confusion / totals, cmap="Blues", vmin=0, vmax=100)
    if classes <= _MOST_LABELS:
        names = [shorten(label) for label in labels]
        size = 9 if classes <= 20 else 6.5
        axes.set_xticks(range(classes), names, rotation=90, fontsize=size, **_PLAIN)
        axes.set_yticks(range(classes), names, fontsize=size, **_PLAIN)
    axes.set_xlabel("predicted", color=_INK)
    axes.set_ylabel("true", color=_INK)
    axes.tick_params(colors=_INK, length=0)
    for spine in axes.spines.values():
        spine.set_color(_FAINT)
    title = f"top-1 {metrics.top1:.1%}, {metrics.videos:,} videos"
    axes.set_title(title, color=_INK, size=11, loc="left", weight="bold")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, format="%d %%")
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_INK, length=0, labelsize=8)
    return _save(figure, Path(path))


def _figure(width: float, height: float) -> Any:
    try:
        # The Figure is used directly: pyplot keeps global state and looks for a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("plots need Matplotlib: pip install 'i3dzoo[plot]'") from error
    return Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")


def _clean(axes: Any) -> None:
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)


def _save(figure: Any, path: Path) -> Path:
    check_output(path, force=True)
    with atomic_write(path) as file, warnings.catch_warnings():
        # A glyph that the font lacks is drawn as a box; that is no reason to fail or to shout.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format="png")
    return path
