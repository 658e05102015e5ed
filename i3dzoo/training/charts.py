"""Charts as inline SVG, in the colours of the page, so that they are light or dark with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from i3dzoo.training.markup import Markup, join, tag

__all__ = ["Series", "heat_map", "line_chart", "shorten", "smooth", "thin"]

Column = npt.NDArray[np.float64]

_MOST_POINTS = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 30  # margins in SVG units
_HEAT_SIDE, _MOST_LABELS = 640, 64


@dataclass(frozen=True, eq=False)
class Series:
    """A line of a chart.

    Attributes:
        name: For the key and the tooltips; an empty one is left out of both.
        x: [N], rising.
        y: [N]; what is not finite is a gap.
        colour: Class of the stylesheet, `c1` to `c5`.
        style: `line`, `faint` for raw values behind a smoothed line, or `dots` with a line.
    """

    name: str
    x: Column
    y: Column
    colour: str
    style: Literal["line", "faint", "dots"] = "line"


def thin(x: Column, y: Column, most: int = _MOST_POINTS) -> tuple[Column, Column]:
    """Return the means of neighbours so that at most `most` points are left."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= most:
        return x, y
    parts = np.array_split(np.arange(len(x)), most)
    return (
        np.array([x[part].mean() for part in parts]),
        np.array([y[part].mean() for part in parts]),
    )


def smooth(y: Column, window: int) -> Column:
    """Return the centred moving mean over `window` values, fewer at the ends."""
    if window < 2 or len(y) < 2:
        return y
    half = min(window // 2, len(y) - 1)
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    result: Column = (total[high] - total[low]) / (high - low)
    return result


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    percent: bool = False,
    zero: bool = False,
    height: int = 250,
    width: int = 560,
) -> Markup:
    """Draw lines over epochs, with a key, and the values of each point where the pointer is.

    Args:
        title: Above the chart.
        series: The lines; those without finite points are left out.
        percent: Values are in 0..1 and shown as percent, the axis from 0 to 100 %.
        zero: Let the axis begin at 0.
        height: In SVG units.
        width: In SVG units.
    """
    shown = [each for each in series if np.isfinite(each.y).any()]
    if not shown:
        return tag(
            "figure", tag("figcaption", title), tag("p", "Nothing was recorded.", class_="muted")
        )
    scale = _Scale.over(shown, percent, zero, width, height)
    lines = join(*(_line(each, scale) for each in shown))
    picture = tag(
        "svg",
        scale.axes(),
        lines,
        _hits(shown, scale, height),
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=title,
    )
    return tag("figure", tag("figcaption", title, _key(shown)), picture, class_="chart")


@dataclass(frozen=True)
class _Scale:
    """From values to SVG units."""

    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]
    low: float
    high: float
    left: float
    right: float
    log: bool
    percent: bool
    width: int
    height: int

    @classmethod
    def over(
        cls, series: Sequence[Series], percent: bool, zero: bool, width: int, height: int
    ) -> "_Scale":
        x = np.concatenate([each.x[np.isfinite(each.y)] for each in series])
        y = np.concatenate([each.y[np.isfinite(each.y)] for each in series])
        low, high = (0.0, 1.0) if percent else (float(y.min()), float(y.max()))
        if percent and y.max() < 0.2:
            high = max(float(y.max()) * 1.2, 0.01)
        log = not percent and not zero and low > 0 and high / low > 50
        if log:
            ticks = tuple(
                10.0**power
                for power in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
            )
            low, high = ticks[0], ticks[-1]
        else:
            low = 0.0 if zero else low
            if high == low:
                high = low + (abs(low) or 1.0)
            ticks = _nice(low, high)
            if not percent:
                low, high = min(low, ticks[0]), max(high, ticks[-1])
        left, right = min(float(x.min()), 0.0), float(x.max())
        right = right if right > left else left + 1
        return cls(
            _nice(left, right, 6), ticks, low, high, left, right, log, percent, width, height
        )

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / (self.right - self.left) * (
            self.width - _LEFT - _RIGHT
        )

    def y(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = np.log10(max(value, 1e-300)), np.log10(low), np.log10(high)
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        return float(self.height - _BOTTOM - part * (self.height - _TOP - _BOTTOM))

    def text(self, value: float) -> str:
        if self.percent:
            return f"{100 * value:.1f} %" if value % 0.01 > 1e-9 else f"{100 * value:.0f} %"
        return f"{value:.4g}"

    def axes(self) -> Markup:
        pieces = []
        for tick in self.y_ticks:
            if not self.low <= tick <= self.high * (1 + 1e-9):
                continue
            y = self.y(tick)
            pieces.append(tag("line", x1=_LEFT, x2=self.width - _RIGHT, y1=y, y2=y, class_="grid"))
            text = f"{100 * tick:.0f} %" if self.percent else f"{tick:.4g}"
            pieces.append(tag("text", text, x=_LEFT - 8, y=y + 3.5, class_="tick end"))
        for tick in self.x_ticks:
            if self.left <= tick <= self.right:
                x, y = self.x(tick), self.height - _BOTTOM + 17
                pieces.append(tag("text", f"{tick:g}", x=x, y=y, class_="tick middle"))
        return join(*pieces)


def _nice(low: float, high: float, most: int = 5) -> tuple[float, ...]:
    """Return round numbers that span a range, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * part for part in (1, 2, 5, 10) if power * part >= rough * (1 - 1e-9))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return tuple(float(step * number) for number in np.arange(first, last + 1))


def _line(series: Series, scale: _Scale) -> Markup:
    runs: list[list[str]] = [[]]
    dots = []
    for x, y in zip(series.x.tolist(), series.y.tolist(), strict=True):
        if not np.isfinite(y):
            runs.append([])
            continue
        at = scale.x(x), scale.y(y)
        runs[-1].append(f"{at[0]:.1f} {at[1]:.1f}")
        if series.style == "dots" or len(series.x) == 1:
            dots.append(tag("circle", cx=round(at[0], 1), cy=round(at[1], 1), r=2.6))
    path = "".join("M" + "L".join(run) for run in runs if run)
    faint = " faint" if series.style == "faint" else ""
    line = tag("path", d=path, class_=f"line{faint}")
    return tag("g", line, *(dots if len(dots) <= 80 else ()), class_=series.colour)


def _hits(series: Sequence[Series], scale: _Scale, height: int) -> Markup:
    """Make a column for each point of the finest line, which tells all values at its place."""
    named = [each for each in series if each.name]
    places = np.unique(np.concatenate([each.x[np.isfinite(each.y)] for each in named]))
    if len(places) > _MOST_POINTS:
        places = places[np.linspace(0, len(places) - 1, _MOST_POINTS).astype(int)]
    if not len(places):
        return Markup()
    middles = (places[1:] + places[:-1]) / 2
    edges = np.concatenate([[scale.left], middles, [scale.right]])
    columns = []
    for number, place in enumerate(places.tolist()):
        values = []
        for each in named:
            known = np.isfinite(each.y)
            nearest = int(np.abs(each.x[known] - place).argmin())
            values.append(f"{each.name}  {scale.text(float(each.y[known][nearest]))}")
        left, right = scale.x(float(edges[number])), scale.x(float(edges[number + 1]))
        x = round(scale.x(place), 1)
        columns.append(
            tag(
                "g",
                tag("line", x1=x, x2=x, y1=_TOP, y2=height - _BOTTOM),
                tag(
                    "rect",
                    x=round(left, 1),
                    y=_TOP,
                    width=round(max(right - left, 0.1), 1),
                    height=height - _TOP - _BOTTOM,
                ),
                class_="hit",
                data_tip="\n".join([f"epoch {place:.4g}", *values]),
            )
        )
    return join(*columns)


def _key(series: Sequence[Series]) -> Markup:
    entries = (
        tag("span", tag("i", class_=f"swatch {each.colour}"), each.name)
        for each in series
        if each.name
    )
    return tag("span", *entries, class_="key")


def heat_map(confusion: npt.NDArray[np.int64], labels: Sequence[str]) -> Markup:
    """Draw a confusion matrix: rows are true classes, columns predicted ones.

    A cell's strength is its part of the row; what is right is of one colour, what is wrong of
    another; each cell tells its numbers where the pointer is.

    Args:
        confusion: int64 [C, C].
        labels: C names, shown along the sides if they are few enough to be read.
    """
    classes = len(labels)
    named = classes <= _MOST_LABELS
    cell = min(_HEAT_SIDE / classes, 56.0)
    side = cell * classes
    size = min(max(cell * 0.8, 7.0), 12.0)
    longest = max(len(shorten(label)) for label in labels)
    margin = longest * size * 0.58 + 10 if named else 24.0
    cells = [
        _cell(confusion, labels, row, column, margin, cell)
        for row, column in np.argwhere(confusion).tolist()
    ]
    frame = tag("rect", x=margin, y=margin, width=side, height=side, class_="frame")
    whole = margin + side + 4
    return tag(
        "svg",
        frame,
        _heat_labels(labels, margin, cell, size) if named else Markup(),
        *cells,
        viewBox=f"0 0 {whole:.1f} {whole:.1f}",
        class_="heat",
        style=f"max-width:{max(whole, 300):.0f}px;min-width:{min(whole, 620):.0f}px",
        role="img",
        aria_label="confusion matrix",
    )


def _cell(
    confusion: npt.NDArray[np.int64],
    labels: Sequence[str],
    row: int,
    column: int,
    margin: float,
    side: float,
) -> Markup:
    count, total = int(confusion[row, column]), int(confusion[row].sum())
    x, y = round(margin + column * side, 2), round(margin + row * side, 2)
    edge = round(side, 2)
    opacity = round(0.12 + 0.88 * count / total, 3)  # a single video is still to be seen
    pieces = [tag("rect", x=x, y=y, width=edge, height=edge, fill_opacity=opacity)]
    if side >= 22:
        strong = " strong" if count > total / 2 else ""
        text = tag("text", str(count), x=x + side / 2, y=y + side / 2 + 4, class_=f"count{strong}")
        pieces.append(text)
    kind = "right" if row == column else "wrong"
    tip = f"{labels[row]} → {labels[column]}\n{count} of {total} videos, {count / total:.0%}"
    return tag("g", *pieces, class_=f"cell {kind}", data_tip=tip)


def _heat_labels(labels: Sequence[str], margin: float, cell: float, size: float) -> Markup:
    pieces = []
    for number, label in enumerate(labels):
        at = margin + (number + 0.5) * cell + size * 0.35
        style = f"font-size:{size:.1f}px"
        short = shorten(label)
        pieces.append(tag("text", short, x=margin - 5, y=at, class_="tick end", style=style))
        turn = f"translate({at:.1f} {margin - 5:.1f}) rotate(-90)"
        pieces.append(tag("text", short, transform=turn, class_="tick", style=style))
    return join(*pieces)


def shorten(label: str, longest: int = 20) -> str:
    """Cut a label to `longest` characters, with an ellipsis where something is cut."""
    return label if len(label) <= longest else label[: longest - 1] + "…"
