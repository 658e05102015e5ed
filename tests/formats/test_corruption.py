"""Converting damaged files prints one line, exits with 1, and leaves no file."""

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.hostile import Call, flip

from i3dzoo import formats
from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
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
    def damage(source: Path, target: Path) -> None:
        flip(shutil.copy(source / name, target / name), at)

    return damage


def _truncate(source: Path, target: Path) -> None:
    content = (source / "x.pkl").read_bytes()
    (target / "x.pkl").write_bytes(content[: len(content) // 2])


def _weight(change: Callable[[Array], dict[str, Array]]) -> Callable[[Path, Path], None]:
    def damage(source: Path, target: Path) -> None:
        tensors = dict(formats.read(source / "x.pt").tensors)
        tensors |= change(tensors.pop("Mixed_3b.b0.conv3d.weight"))
        formats.write("torch", target / "x.pt", tensors, {})

    return damage


def _code(_: Path, target: Path) -> None:
    (target / "x.pkl").write_bytes(
        pickle.dumps({"params": Call(os.mkdir, "called"), "batch_stats": np.zeros(2)})
    )


@pytest.mark.parametrize(
    ("damage", "name", "message"),
    [
        (_flip("x.data-00000-of-00001", 20_000_000), "x.index", "Mixed_.* has CRC32C .*, expected"),
        (_flip("x.index", 5_000), "x.index", "the block at byte 0 has CRC32C .*, expected"),
        (_flip("x.pkl", 17_000_000), "x.pkl", "is rgb_scratch except for .*corrupt: fetch"),
        (_flip("x.safetensors", 500), "x.safetensors", "the header has CRC32C .*, expected"),
        (_truncate, "x.pkl", "the pickle is truncated or corrupt: expected .* bytes"),
        (
            _weight(lambda array: {"Mixed_3b.b0.conv3d.weight": array[:, :5]}),
            "x.pt",
            r"of shape \(64, 5, 1, 1, 1\); expected \(64, 192, 1, 1, 1\)",
        ),
        (
            _weight(lambda array: {"Mixed_3b.b0.conv3d.wieght": array}),
            "x.pt",
            r"1 missing .*conv3d.weight\) and 1 unknown .*conv3d.wieght\)",
        ),
        (_code, "x.pkl", "the pickle calls posix.mkdir; expected only nested dicts"),
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
    """Converting a damaged file prints what is wrong with it, and writes no file."""
    monkeypatch.chdir(tmp_path)
    damage(files, tmp_path)
    for part in ("x.index", "x.data-00000-of-00001"):  # the other file is undamaged
        if name == "x.index" and not (tmp_path / part).exists():
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
    """The undamaged files are read."""
    bias = "Mixed_5c.Branch_3.Conv3d_0b_1x1.bn.bias"
    for name in ("x.index", "x.pkl", "x.safetensors", "x.pt"):
        tensors = read_checkpoint(files / name).tensors
        np.testing.assert_array_equal(tensors[bias], genuine.tensors[bias])
