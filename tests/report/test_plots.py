"""Plots are drawn to scale, in every format, with whatever values and names there are."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from helpers.run_folders import make_run

from i3dzoo.evaluation.metrics import evaluate_logits
from i3dzoo.report.canvas import BLUE, ORANGE, shorten
from i3dzoo.report.plots import (
    Curve,
    Panel,
    confusion_svg,
    curve_panels,
    panel_svg,
    plot_confusion,
    plot_curves,
    smooth,
    thin,
)
from i3dzoo.report.run_folder import read_run_folder

pytest.importorskip("matplotlib")


def parse(svg: str) -> ElementTree.Element:
    """Parse an SVG."""
    return ElementTree.fromstring(svg)  # noqa: S314 - our own output


def draw(*y: float) -> str:
    """Draw one curve, and return the path of its line."""
    svg = panel_svg(Panel("t", (Curve("a", np.arange(float(len(y))), np.array(y), BLUE),)))
    return line_of(svg)


def line_of(svg: str) -> str:
    """Return the path of the line in the first colour."""
    paths = [(path.get("d") or "", path.get("style") or "") for path in parse(svg).iter("path")]
    (line,) = [path for path, style in paths if "stroke: var(--c1)" in style]
    return line


def tips(svg: str) -> list[str]:
    """Return the texts under the pointer."""
    return [tip for element in parse(svg).iter() if (tip := element.get("data-tip"))]


def test_lines_and_tips() -> None:
    """A line has as many points as values, and each place shows the values of all curves."""
    x = np.arange(5.0)
    curves = (Curve("a", x, x**2, BLUE), Curve("b", x, x, ORANGE, "markers"))
    svg = panel_svg(Panel("t", curves))
    line = line_of(svg)
    assert line.count("L") + line.count("M") == 5
    assert len([e for e in parse(svg).iter("use") if "--c2" in (e.get("style") or "")]) == 5
    assert tips(svg) == [f"epoch {n}\na  {n * n}\nb  {n}" for n in range(5)]


def test_cells_of_the_confusion_matrix() -> None:
    """Each cell shows its classes, its number and its share of the row."""
    logits = np.eye(2)[[0, 0, 0, 1, 1, 1]]
    metrics = evaluate_logits(logits, np.array([0, 0, 0, 0, 1, 1]))
    assert tips(confusion_svg(metrics, ["a<b", "c&d"])) == [
        "a<b → a<b\n3 of 4 videos, 75%",
        "a<b → c&d\n1 of 4 videos, 25%",
        "c&d → c&d\n2 of 2 videos, 100%",
    ]


def test_gaps_where_a_value_is_not_finite() -> None:
    """A NaN or infinite value ends a line, and another begins after it."""
    assert draw(1, 2, np.nan, 3, 4, np.inf, 4, 5).count("M") == 3


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, -5.0])
def test_flat_lines(value: float) -> None:
    """A line of one value, however large or small, stays within the panel."""
    points = draw(value, value).replace("M", "").replace("L", "").split()
    assert all(0 <= float(height) <= 250 for height in points[1::2])


def test_thinning_and_smoothing_keep_the_mean() -> None:
    """Long lines are thinned by means; smoothing is a centred mean."""
    x, y = thin(np.arange(10_000.0), np.arange(10_000.0) * 2, 100)
    assert len(x) == 100
    np.testing.assert_allclose(y, 2 * x)
    assert y.mean() == pytest.approx(9999)
    np.testing.assert_allclose(smooth(np.full(50, 3.0), 9), 3)
    assert smooth(np.array([0.0, 0, 9, 0, 0]), 3).tolist() == [0, 3, 3, 3, 0]


def test_unprintable_labels() -> None:
    """Control characters and halves of surrogate pairs cannot be drawn, and are replaced."""
    assert shorten("a\x00\udcff動") == "a\ufffd\ufffd動"
    assert shorten("x" * 21) == "x" * 19 + "…"


def test_png_files(tmp_path: Path) -> None:
    """Curves and matrix are written as PNG; labels may be odd and hold dollar signs."""
    run = read_run_folder(make_run(tmp_path / "run"))
    assert run.metrics is not None
    assert [panel.title for panel in curve_panels(run.history)][:2] == ["Loss", "Accuracy"]
    labels = ("$a", "$\\frac$", "動作")
    for path in (
        plot_curves(run.history, tmp_path / "curves.png"),
        plot_confusion(run.metrics, labels, tmp_path / "confusion.png"),
    ):
        assert path.read_bytes().startswith(b"\x89PNG")
