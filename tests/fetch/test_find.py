"""Folders as model arguments: of a run, of save_pretrained, and of sharded safetensors."""

import logging
from pathlib import Path

import pytest
from helpers.checkpoints import torch_state
from helpers.cli import run
from huggingface_hub import save_torch_state_dict

import i3dzoo
from i3dzoo.arrays import Tensors
from i3dzoo.errors import MissingFileError, OptionError
from i3dzoo.fetch.find import digest, find

Capture = pytest.CaptureFixture[str]


def _run_folder(folder: Path, file: Path, *names: str) -> Path:
    (folder / "run.json").write_text("{}")
    for name in names:
        (folder / name).hardlink_to(file)
    return folder


def test_the_folder_of_a_run(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The best checkpoint of a run is taken, then the last one, and the remark names it."""
    folder = _run_folder(tmp_path, file, "best.safetensors", "last.safetensors")
    with caplog.at_level(logging.WARNING, "i3dzoo"):
        assert find(folder) == folder / "best.safetensors"
    assert f"{folder}: uses best.safetensors" in caplog.text
    (folder / "best.safetensors").unlink()
    assert find(folder) == folder / "last.safetensors"
    (folder / "last.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"a run without best.safetensors .* --resume"):
        find(folder)


def test_the_folder_of_a_run_with_two_streams(file: Path, tmp_path: Path) -> None:
    """A run with two networks is refused, and both are named."""
    folder = _run_folder(tmp_path, file, "best_rgb.safetensors", "best_flow.safetensors")
    with pytest.raises(OptionError, match=r"best_flow\.safetensors or .*best_rgb\.safetensors"):
        find(folder)


def test_a_finetuned_folder(capsys: Capture, finetuned: Path) -> None:
    """The folder that finetune wrote is a model of the command line."""
    code, out, err = run(capsys, "info", finetuned)
    assert code == 0
    assert str(finetuned / "best.safetensors") in out
    assert "uses best.safetensors of this run" in err


def test_a_folder_of_save_pretrained(rgb_scratch: Path, capsys: Capture, tmp_path: Path) -> None:
    """The folder that save_pretrained wrote is a model of the command line."""
    i3dzoo.load(rgb_scratch).save_pretrained(tmp_path / "mine")
    code, out, _ = run(capsys, "identify", tmp_path / "mine")
    assert code == 0
    assert "canonical, rgb, 400 classes: rgb_scratch" in out


def test_a_folder_of_sharded_safetensors(random_tensors: Tensors, tmp_path: Path) -> None:
    """The index stands for the folder, and the digest depends on every file."""
    save_torch_state_dict(torch_state(random_tensors), tmp_path, max_shard_size="20MB")
    index = find(tmp_path)
    assert index == tmp_path / "model.safetensors.index.json"
    before = digest(index)
    assert digest(tmp_path) == before
    last = max(tmp_path.glob("*.safetensors"))
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    assert digest(index) != before
