"""Damage to genuine files, as a user meets it: one sentence, exit code 1, nothing left behind."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i3dzoo import convert, formats, tables
from i3dzoo.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.cli import main


@pytest.fixture(scope="module")
def files(genuine: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the genuine weights in several layouts."""
    folder = tmp_path_factory.mktemp("genuine")
    for layout, name in (
        ("deepmind", "x.index"),
        ("flax", "x.pkl"),
        ("canonical", "x.safetensors"),
        ("piergiaj", "x.pt"),
    ):
        write_checkpoint(folder / name, genuine, layout)
    return folder


def _flip(name: str, at: int) -> Callable[[Path, Path], None]:
    """Flip a bit of one byte."""

    def damage(source: Path, target: Path) -> None:
        content = bytearray((source / name).read_bytes())
        content[at] ^= 1
        (target / name).write_bytes(content)

    return damage


def _truncate(source: Path, target: Path) -> None:
    content = (source / "x.pkl").read_bytes()
    (target / "x.pkl").write_bytes(content[: len(content) // 2])


def _tensors(change: Callable[[dict[str, Any]], None]) -> Callable[[Path, Path], None]:
    def damage(source: Path, target: Path) -> None:
        tensors = dict(formats.read(source / "x.pt").tensors)
        change(tensors)
        formats.write("torch", target / "x.pt", tensors, {})

    return damage


def _reshape(tensors: dict[str, Any]) -> None:
    tensors["Mixed_3b.b0.conv3d.weight"] = tensors["Mixed_3b.b0.conv3d.weight"][:, :5]


def _rename(tensors: dict[str, Any]) -> None:
    tensors["Mixed_3b.b0.conv3d.wieght"] = tensors.pop("Mixed_3b.b0.conv3d.weight")


class _Call:
    """A pickle of this calls a function when a careless reader loads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("called",)


def _code(_: Path, target: Path) -> None:
    (target / "x.pkl").write_bytes(pickle.dumps({"params": _Call(), "batch_stats": np.zeros(2)}))


@pytest.mark.parametrize(
    ("damage", "name", "message"),
    [
        (_flip("x.data-00000-of-00001", 20_000_000), "x.index", "has CRC32C .*; the data file is"),
        (_flip("x.index", 5_000), "x.index", "the block at byte 0 has CRC32C .*, expected"),
        (_flip("x.pkl", 17_000_000), "x.pkl", "is rgb_scratch but for .*, so it is corrupt: fetch"),
        (_flip("x.safetensors", 500), "x.safetensors", "the header has CRC32C .*, expected"),
        (_truncate, "x.pkl", "the pickle is truncated or corrupt: expected .* bytes"),
        (_tensors(_reshape), "x.pt", r"of shape \(64, 5, 1, 1, 1\); expected \(64, 192, 1, 1, 1\)"),
        (_tensors(_rename), "x.pt", r"lacks 1 .*conv3d.weight\) and has 1 .*conv3d.wieght\)"),
        (_code, "x.pkl", r"the pickle asks for posix.mkdir; i3dzoo admits dicts of numpy arrays"),
    ],
    ids=["data", "index", "pickle", "header", "truncated", "shape", "renamed", "code"],
)
def test_corruption_is_caught(
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path, Path], None],
    name: str,
    message: str,
) -> None:
    """Converting a damaged file says in a sentence what is wrong with it, and makes no file."""
    monkeypatch.chdir(tmp_path)
    damage(files, tmp_path)
    if name == "x.index":  # whose data file, or whose index, is whole
        for part in {"x.index", "x.data-00000-of-00001"} - {
            file.name for file in tmp_path.iterdir()
        }:
            (tmp_path / part).symlink_to(files / part)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as caught:
        main(["convert", name, "out.safetensors", "--quiet"])
    printed = capsys.readouterr()
    assert caught.value.code == 1
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"i3dzoo: {name}: ")
    assert re.search(message, line)
    assert sorted(tmp_path.iterdir()) == before


def test_the_files_themselves_are_sound(files: Path, genuine: Checkpoint) -> None:
    """What the damage is done to is read."""
    for path in (files / name for name in ("x.index", "x.pkl", "x.safetensors", "x.pt")):
        container = formats.read(path)
        table = convert.detect("x", container.tensors, tables.likely(container.format))
        found = convert.to_canonical("x", container.tensors, table)
        bias = "Mixed_5c.Branch_3.Conv3d_0b_1x1.bn.bias"
        np.testing.assert_array_equal(found.tensors[bias], genuine.tensors[bias])
