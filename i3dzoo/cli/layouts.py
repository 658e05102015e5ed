"""`i3dzoo layouts`."""

from typing import Any

from i3dzoo.checkpoints.converter import load_table, names, table
from i3dzoo.checkpoints.suffixes import suffixes
from i3dzoo.cli._catalog import Catalog, Shelf
from i3dzoo.formats import FORMATS
from i3dzoo.resources import data


def _read(name: str) -> dict[str, Any]:
    layout = table(name) if name in names() else load_table(name)
    return {
        "title": layout.title,
        "format": layout.format,
        "suffixes": list(suffixes(layout.format)),
        "written": FORMATS[layout.format].write is not None,
        "joint": layout.joint is not None,
        "preset": layout.preset,
        "tensors": len(layout.rules),
    }


command = Catalog(
    "layout",
    {
        "layout": Shelf(
            names,
            lambda name: data("converters") / f"{name}.toml",
            _read,
            "i3dzoo convert SRC DST --converter {}",
        )
    },
    {"title": "title", "format": "format", "written": "written", "suffixes": "suffixes"},
).group(
    "Show, copy and check the layouts of checkpoints: tables that convert tensor names both ways."
)
