"""What all plots share: figures, colours, files, and SVG in the colours of an HTML page."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from xml.etree import ElementTree

from i3dzoo.errors import DependencyError, OutputError
from i3dzoo.files import atomic_write, check_output

POINT = 1 / 72  # inches
SUFFIXES = (".png", ".pdf", ".svg")

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0b62c4", "#d1560f", "#0a8a63", "#a8408a", "#6b7280"
INK, SOFT, LINE, TRACK, PAPER = "#17191d", "#5d6571", "#e3e6ea", "#edf0f3", "#ffffff"

CSS_CLASSES: Final = {BLUE: "c1", ORANGE: "c2", GREEN: "c3", PURPLE: "c4", GREY: "c5"}
"""Class of report.css for the colours of curves."""

_VARIABLES: Final = {INK: "ink", SOFT: "soft", LINE: "line", TRACK: "track", PAPER: "card"}


def check_plot(path: Path, force: bool = False) -> None:
    """Check before long work that a plot can be drawn and written."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"{path}: expected a plot's suffix, one of {', '.join(SUFFIXES)}; found "
            f"{path.suffix or 'none'}"
        )
    check_output(path, force)
    new_figure(1, 1)


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Any:
    """Return an empty figure; the size is in inches."""
    try:
        # without pyplot, which keeps global state and looks for a display
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("plots need Matplotlib: pip install 'i3dzoo[plot]'") from error
    figure = Figure(figsize=(width, height), dpi=150, facecolor=PAPER, layout=layout)
    if layout:
        figure.set_layout_engine(layout, w_pad=0.1, h_pad=0.1)
    return figure


def clean_axes(axes: Any, grid: Literal["x", "y"] = "y") -> None:
    """Leave only the grid lines of one axis, and the numbers."""
    axes.grid(axis=grid, color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=SOFT, length=0, labelsize=11, pad=7)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)


def save_figure(figure: Any, path: Path, force: bool) -> Path:
    """Write a figure in the format of the path's suffix."""
    check_output(path, force)
    with atomic_write(path) as file, _ignore_warnings():
        figure.savefig(file, format=path.suffix.lower().removeprefix(".") or "png")
    return path


def shorten(label: str, longest: int = 20) -> str:
    """Cut a label to `longest` characters with an ellipsis; replace unprintable characters."""
    label = "".join(letter if letter.isprintable() else "\ufffd" for letter in label)
    return label if len(label) <= longest else label[: longest - 1] + "…"


def to_inline_svg(figure: Any, title: str, tips: Mapping[str, Sequence[str]] | None = None) -> str:
    """Convert a figure to an `<svg>` element.

    Its colours become the variables of report.css, so the figure is light or dark as the page is.
    The same figure gives the same text. `title` is for screen readers; `tips` are the texts of the
    paths of a collection, by its gid, which are shown under the pointer.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with (
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "i3dzoo"}),
        _ignore_warnings(),
    ):
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 - Matplotlib's own output
    for element in root.iter():
        # HTML has no namespaces
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("style", "metadata")]:
            parent.remove(child)
    for group in root.iter("g"):
        name = group.get("id", "")
        paths = list(group.iter("use")) or list(group.iter("path"))
        texts = (tips or {}).get(name, ())
        if texts and len(texts) == len(paths):
            group.set("class", name)
            for path, text in zip(paths, texts, strict=True):
                path.set("data-tip", text)
    text = ElementTree.tostring(root, encoding="unicode")
    for element in root.iter():
        # several figures of a page would share the ids that nothing refers to
        if f"#{element.get('id')}" not in text:
            element.attrib.pop("id", None)
        for colour, name in (CSS_CLASSES | _VARIABLES).items():
            if style := element.get("style"):
                element.set("style", style.replace(colour, f"var(--{name})"))
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode")


@contextlib.contextmanager
def _ignore_warnings() -> Iterator[None]:
    """Let Matplotlib draw a box for a glyph that the font lacks, and long labels over the edge."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        yield
