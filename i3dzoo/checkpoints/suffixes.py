"""What the suffix of a file name says about the content: the rule of all files with a network.

A suffix chooses the layout if only one layout has it. A suffix that contradicts the chosen layout
or target is an error. A suffix that is not listed here says nothing.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from i3dzoo.checkpoints.converter import Table, names, table
from i3dzoo.errors import OptionError
from i3dzoo.formats import FORMATS

EXPORTS: Final = {
    "onnx": (".onnx",),
    "tensorrt": (".engine", ".plan", ".trt"),
    "torchscript": (".ts", ".torchscript", ".pt", ".pth"),
    "pt2": (".pt2",),
}
"""The suffixes of each target of `i3dzoo export`, the usual one first."""

_ALSO: Final[Mapping[str, tuple[str, ...]]] = {
    "tensorflow": (".ckpt",),
    "torchscript": (".torchscript", ".pt", ".pth"),
    "torch": (".pth", ".pth.tar", ".ckpt", ".bin"),
    "lightning": (".pth", ".pt"),
    "flax": (".pickle",),
    "keras": (".hdf5",),
}
"""The suffixes of a file format besides the usual one."""

_UNWRITTEN: Final = (
    *(".keras", ".pb", ".tflite", ".params", ".msgpack", ".mlmodel", ".npy", ".npz"),
    *(".zip", ".tar", ".gz"),
)
"""Suffixes of files that i3dzoo does not write."""


def suffixes(content: str) -> tuple[str, ...]:
    """Return the suffixes of a file format or of a target of export, the usual one first."""
    if content in FORMATS:
        return (FORMATS[content].suffix, *_ALSO.get(content, ()))
    return EXPORTS[content]


def table_for(path: str | Path, layout: str | None = None) -> Table:
    """Return the table that a file is written with: of `layout`, or of the file's suffix.

    Without either, it is the canonical layout.

    Raises:
        OptionError: The suffix contradicts the layout; or there is no layout, and several layouts
            or none have the suffix.
    """
    if layout is not None:
        chosen = table(layout)
        check_suffix(path, chosen.format, layout, _layouts(_suffix(path)))
        return chosen
    suffix = _suffix(path)
    fitting = _layouts(suffix) if suffix else ["canonical"]
    if len(fitting) == 1:
        return table(fitting[0])
    if fitting:
        options = " or ".join(f"--to {name}" for name in fitting)
        raise OptionError(f"{path}: several layouts have the suffix {suffix}; pass {options}")
    exported = [target for target in EXPORTS if suffix in suffixes(target)]
    remedy = f"; i3dzoo export --to {exported[0]} writes such files" if exported else ""
    raise OptionError(
        f"{path}: no layout is written with the suffix {suffix}; name the file .safetensors, or "
        f"choose a layout with --to and its suffix{remedy}"
    )


def check_suffix(
    path: str | Path, content: str, choice: str, alternatives: Iterable[str] = ()
) -> None:
    """Refuse a file name whose suffix contradicts its content.

    Args:
        path: The file to write.
        content: A file format, or a target of export.
        choice: The value of `--to` that chose the content.
        alternatives: Other values of `--to`, which fit the suffix.

    Raises:
        OptionError: The suffix is that of another content.
    """
    suffix, own = _suffix(path), suffixes(content)
    if not suffix or suffix in own:
        return
    other = "".join(f" or --to {name}" for name in alternatives)
    name = Path(path).name[: -len(suffix)] + own[0]
    raise OptionError(
        f"{path}: the suffix {suffix} contradicts --to {choice}, which writes {content} files; "
        f"name the file {name}" + (f", or pass{other.removeprefix(' or')}" if other else "")
    )


def _suffix(path: str | Path) -> str:
    """Return the longest known suffix of a file name, in lower case; empty if there is none."""
    name = Path(path).name.lower()
    known = {suffix for content in (*FORMATS, *EXPORTS) for suffix in suffixes(content)}
    fitting = [suffix for suffix in known.union(_UNWRITTEN) if name.endswith(suffix)]
    return max(fitting, key=len, default="")


def _layouts(suffix: str) -> list[str]:
    """Return the layouts that are written with a suffix."""
    return [name for name in names() if _is_written(table(name), suffix)]


def _is_written(layout: Table, suffix: str) -> bool:
    return FORMATS[layout.format].write is not None and suffix in suffixes(layout.format)
