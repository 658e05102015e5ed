"""Weights for NVIDIA TAO, and the lines of its spec."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.exported import noisy, pytorch_logits
from helpers.peer_piergiaj import Peer

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.errors import MetadataError
from i3dzoo.exporters.tao import tao_spec


def test_weights(rgb: Checkpoint, tmp_path: Path) -> None:
    """The file is a bare state dict with all of piergiaj's names, and computes the same."""
    path = i3dzoo.export(rgb, tmp_path / "tao.pt", "tao").path
    state = torch.load(path, weights_only=True)
    assert len(state) == 344
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    tensors = read_checkpoint(path).tensors
    for name, array in rgb.tensors.items():
        np.testing.assert_array_equal(tensors[name], array)
    peer = Peer(5)
    peer.load_state_dict(state, strict=True)
    clip = torch.rand(1, 3, 16, 36, 33)
    with torch.inference_mode():
        logits = peer.eval()(clip).numpy()
    np.testing.assert_allclose(logits, pytorch_logits(rgb, clip), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_labels_that_yaml_could_misread(rgb: Checkpoint, legacy: bool) -> None:
    """The label map of the spec holds the labels, whatever they look like."""
    labels = ("no", "12", "a: b", 'it\'s "x"', "plain one")
    metadata = rgb.metadata.replace(labels=labels)
    path = Path("my: files #1") / 'x".pt'
    spec = yaml.safe_load(tao_spec(path, metadata, legacy=legacy))
    suffix = "_config" if legacy else ""
    assert list(spec[f"dataset{suffix}"]["label_map"]) == list(labels)
    assert spec[f"model{suffix}"]["rgb_pretrained_model_path"] == str(path.resolve())


def test_equal_labels(rgb: Checkpoint, tmp_path: Path) -> None:
    """Two classes with the same label are refused, since a spec maps labels to classes."""
    metadata = rgb.metadata.replace(labels=("a", "b", "a", "c", "d"))
    with pytest.raises(MetadataError, match="two classes have the label 'a'"):
        i3dzoo.export(dataclasses.replace(rgb, metadata=metadata), tmp_path / "x.pt", "tao")
    assert list(tmp_path.iterdir()) == []


def test_without_a_head(tmp_path: Path) -> None:
    """TAO loads weights with a head only."""
    with pytest.raises(MetadataError, match=r"x\.pt: .*convert --num-classes N"):
        i3dzoo.export(noisy("rgb", 0), tmp_path / "x.pt", "tao")
    assert list(tmp_path.iterdir()) == []
