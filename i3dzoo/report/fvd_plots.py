"""Draw what FVD is computed of: both clouds of features, and FVD against the number of videos."""

from pathlib import Path
from typing import Any

import numpy as np

from i3dzoo.fvd import FVDResult
from i3dzoo.report.canvas import BLUE, GREY, INK, ORANGE, SOFT, clean_axes, new_figure, save_figure

_MOST_POINTS = 2000  # of a cloud


def plot_fvd(result: FVDResult, path: Path, force: bool = False) -> Path:
    """Draw the features of both sets in the plane of their largest spread, and FVD against N."""
    figure = new_figure(10, 4.2, layout="constrained")
    clouds, curve = figure.subplots(1, 2)
    _draw_clouds(clouds, result)
    _draw_curve(curve, result)
    return save_figure(figure, path, force)


def _draw_clouds(axes: Any, result: FVDResult) -> None:
    clean_axes(axes)
    rows = [result.real.sample[:_MOST_POINTS], result.fake.sample[:_MOST_POINTS]]
    together = np.concatenate(rows)
    middle = together.mean(0)
    _, _, directions = np.linalg.svd(together - middle, full_matrices=False)
    for cloud, name, colour in zip(rows, ("real", "fake"), (BLUE, ORANGE), strict=True):
        places = (cloud - middle) @ directions[:2].T
        down = places[:, 1] if places.shape[1] > 1 else np.zeros(len(places))
        axes.scatter(places[:, 0], down, s=9, alpha=0.6, color=colour, label=name, linewidths=0)
    _title(axes, "features, first two principal components")
    axes.legend(frameon=False, fontsize=9, labelcolor=SOFT)


def _draw_curve(axes: Any, result: FVDResult) -> None:
    clean_axes(axes)
    _title(axes, "FVD against the number of videos")
    line = result.infinite
    if line is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "fewer than 10 videos", color=SOFT, ha="center", va="center")
        return
    inverse = 1 / np.array(line.counts)
    ends = np.array([0, inverse.max()])
    axes.plot(ends, line.fvd + line.slope * ends, color=GREY, linewidth=1, label="fit")
    axes.scatter(inverse, line.values, s=20, color=BLUE, label="subsets")
    axes.scatter([0], [line.fvd], s=30, color=ORANGE, label=f"infinite: {line.fvd:.4g}")
    axes.set_xticks([0, *inverse[[0, -1]]], ["∞", *map(str, np.array(line.counts)[[0, -1]])])
    axes.set_xlabel("videos of each set", color=SOFT)
    axes.legend(frameon=False, fontsize=9, labelcolor=SOFT)


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, color=INK, size=11, loc="left", weight="bold")
