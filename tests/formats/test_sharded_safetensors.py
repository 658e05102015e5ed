"""Safetensors in several files with an index, as huggingface_hub writes them."""

import json
from pathlib import Path

import pytest
from helpers.checkpoints import assert_equal, torch_state
from huggingface_hub import save_torch_state_dict

from i3dzoo import formats
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.errors import FormatError, MissingFileError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(random_tensors: Tensors, tmp_path: Path) -> Path:
    """A checkpoint of piergiaj's names in files of at most 20 MB."""
    save_torch_state_dict(torch_state(random_tensors), tmp_path, max_shard_size="20MB")
    return tmp_path


@pytest.mark.parametrize("name", ["", INDEX])
def test_sharded_files_are_read(folder: Path, random_tensors: Tensors, name: str) -> None:
    """The folder or its index stands for all files, which must belong together."""
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    checkpoint = read_checkpoint(folder / name)
    assert_equal(checkpoint.tensors, random_tensors)
    content = shards[0].read_bytes()
    shards[0].write_bytes(shards[1].read_bytes())
    with pytest.raises(FormatError, match=rf"{INDEX}: .* is missing from .*; the files do not bel"):
        formats.read(folder / name)
    shards[0].write_bytes(content[:-1])
    with pytest.raises(FormatError, match=rf"{shards[0].name}: .*truncated"):
        formats.read(folder / name)
    shards[0].unlink()
    with pytest.raises(MissingFileError, match=rf"{shards[0].name}: is missing; {INDEX} names it"):
        formats.read(folder / name)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"weight_map": {}}, "names 0 files; expected 1 to 100"),
        ({"weight_map": {str(n): f"{n}.safetensors" for n in range(200)}}, "names 200 files"),
        ({"weight_map": {"a": "../secret.safetensors"}}, r"weight_map.a: expected a file"),
        ({"weight_map": {"a": "/etc/hostname"}}, r"weight_map.a: expected a file"),
        ({"weight_map": {"a": 1}}, r"weight_map.a: expected"),
        ({"weight_map": ["a"]}, "weight_map: expected"),
        ({}, "weight_map"),
        ([], "expected"),
    ],
)
def test_hostile_indexes(tmp_path: Path, document: object, message: str) -> None:
    """An index that names files elsewhere, or no files, is an error."""
    (tmp_path / INDEX).write_text(json.dumps(document))
    with pytest.raises(FormatError, match=rf"{INDEX}: .*{message}"):
        formats.read(tmp_path)


def test_several_indexes(folder: Path) -> None:
    """A folder with two checkpoints is an error that names both."""
    (folder / f"other{INDEX.removeprefix('model')}").write_text("{}")
    with pytest.raises(FormatError, match=rf"holds several checkpoints \({INDEX}, other\."):
        formats.read(folder)
