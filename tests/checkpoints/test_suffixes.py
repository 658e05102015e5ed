"""The suffix of a file that is written agrees with its content."""

import re
from pathlib import Path

import pytest
from helpers.checkpoints import WRITTEN
from helpers.cli import call

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.suffixes import table_for
from i3dzoo.errors import OptionError


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("x.safetensors", "canonical"),
        ("x.H5", "keras"),
        ("x.hdf5", "keras"),
        ("x.weights.h5", "keras3"),
        ("x.pkl", "flax"),
        ("x", "canonical"),
        ("x.st", "canonical"),
        ("pt", "canonical"),
    ],
)
def test_a_suffix_chooses_the_layout(name: str, layout: str) -> None:
    """A suffix that one layout has stands for it; one that nothing has says nothing."""
    assert table_for(name).name == layout


@pytest.mark.parametrize(
    ("name", "layouts"),
    [
        ("x.pt", {"hassony2", "mmaction", "piergiaj", "tao"}),
        ("x.pth.tar", {"hassony2", "mmaction", "piergiaj"}),
        ("x.index", {"deepmind", "deepmind600"}),
        ("x.ckpt", {"deepmind", "deepmind600", "hassony2", "mmaction", "piergiaj", "tao"}),
    ],
)
def test_an_ambiguous_suffix_is_refused(name: str, layouts: set[str]) -> None:
    """The error names the values of --to that fit, and each of them is accepted."""
    with pytest.raises(OptionError, match="several layouts have the suffix") as caught:
        table_for(name)
    assert set(re.findall(r"--to (\w+)", str(caught.value))) == layouts
    assert {table_for(name, layout).name for layout in layouts} == layouts


@pytest.mark.parametrize(
    "name", ["x.onnx", "x.engine", "x.pt2", "x.ts", "x.keras", "x.npz", "x.pb", "x.tar"]
)
@pytest.mark.parametrize("layout", [None, *WRITTEN])
def test_suffixes_that_no_layout_has(name: str, layout: str | None) -> None:
    """Files of these suffixes are not written, with --to or without."""
    with pytest.raises(OptionError, match=f"{name}: .*--to"):
        table_for(name, layout)


@pytest.mark.parametrize(
    ("name", "layout", "named"),
    [
        ("out.pt", "canonical", ["out.safetensors", "--to piergiaj", "--to hassony2"]),
        ("out.safetensors", "piergiaj", ["out.pt", "--to canonical"]),
        ("out.h5", "keras3", ["out.weights.h5", "--to keras"]),
        ("out.weights.h5", "keras", ["name the file out.h5", "--to keras3"]),
        ("out.pt", "deepmind", ["out.index", "--to tao"]),
    ],
)
def test_python_refuses_a_contradiction(
    random_checkpoint: Checkpoint, tmp_path: Path, name: str, layout: str, named: list[str]
) -> None:
    """The error has another name and another layout that fit; nothing is written."""
    with pytest.raises(OptionError, match=f"contradicts --to {layout}") as caught:
        i3dzoo.write_checkpoint(tmp_path / name, random_checkpoint, layout)
    assert all(text in str(caught.value) for text in named)
    assert list(tmp_path.iterdir()) == []


def test_python_writes_the_layout_of_the_suffix(
    random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Without a layout the suffix chooses it, and a joint file needs one that fits."""
    path = i3dzoo.write_checkpoint(tmp_path / "x.pkl", random_checkpoint)
    assert path.read_bytes()[:2] == b"\x80\x04"
    with pytest.raises(OptionError, match=r"y.safetensors: the suffix .safetensors contradicts"):
        i3dzoo.write_joint(tmp_path / "y.safetensors", random_checkpoint, random_checkpoint)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["out.pt"], "--to piergiaj"),
        (["out.onnx"], "i3dzoo export --to onnx"),
        (["out.safetensors", "--to", "piergiaj"], "contradicts --to piergiaj"),
        (["out.h5", "--to", "canonical", "--dry-run"], "or pass --to keras"),
    ],
)
def test_convert(rgb_file: Path, tmp_path: Path, arguments: list[str], named: str) -> None:
    """The command refuses before it reads or writes."""
    result = call("convert", rgb_file, *arguments, cwd=tmp_path, code=2)
    assert f"{arguments[0]}: " in result.stderr
    assert named in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_convert_writes_the_layout_of_the_suffix(file: Path, tmp_path: Path) -> None:
    """A suffix of one layout needs no --to, and the summary names the layout."""
    result = call("convert", file, "out.h5", cwd=tmp_path, code=0)
    assert "in layout keras" in result.stderr
    assert (tmp_path / "out.h5").read_bytes()[:4] == b"\x89HDF"


@pytest.mark.parametrize(
    ("to", "name"), [("tao", "x.safetensors"), ("pt2", "x.onnx"), ("torchscript", "x.h5")]
)
def test_export(rgb_file: Path, tmp_path: Path, to: str, name: str) -> None:
    """Exports follow the same rule."""
    with pytest.raises(OptionError, match=f"{name}: the suffix .* contradicts --to {to}"):
        i3dzoo.export(rgb_file, tmp_path / name, to)  # type: ignore[arg-type] # a literal
    assert list(tmp_path.iterdir()) == []
