"""Files of other architectures are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cli import call
from helpers.torchvision_models import torchvision_models

from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.architectures import architectures, find_architecture
from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.errors import MappingError


def _tensors(**kernels: tuple[int, ...]) -> Tensors:
    shapes = {name.replace("__", "."): (4, 3, *kernel) for name, kernel in kernels.items()}
    return {name: np.zeros(shape, "f4") for name, shape in shapes.items()}


@pytest.mark.parametrize("entry", architectures(), ids=lambda entry: f"{entry.name} {entry.source}")
@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_every_entry_is_reached(entry: Any, prefix: str) -> None:
    """No entry hides one that comes later, and a prefix does not matter."""
    tensors = {
        prefix + name: np.zeros((4, 3, *(size or 9 for size in kernel)), "f4")
        for name, kernel in entry.keys.items()
    }
    found = find_architecture(tensors)
    assert found is not None
    assert (found.name, found.source) == (entry.name, entry.source)


@pytest.mark.parametrize(
    ("builder", "name"),
    [
        ("r3d_18", "3D ResNet (R3D or MC3)"),
        ("mc3_18", "3D ResNet (R3D or MC3)"),
        ("r2plus1d_18", "R(2+1)D"),
        ("s3d", "S3D"),
        ("mvit_v1_b", "MViT"),
        ("mvit_v2_s", "MViT"),
        ("swin3d_t", "Video Swin Transformer"),
    ],
)
def test_torchvision(builder: str, name: str) -> None:
    """The networks that torchvision builds are recognised."""
    video = torchvision_models().video
    with torch.device("meta"):
        state = getattr(video, builder)(weights=None).state_dict()
    found = find_architecture(
        {key: np.broadcast_to(0, tensor.shape) for key, tensor in state.items()}
    )
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        (_tensors(conv1__weight=(7, 7, 7), layer1__0__conv1__weight=(3, 3, 3)), "3D ResNet"),
        (_tensors(conv1__weight=(5, 7, 7), layer1__0__conv1__weight=(3, 1, 1)), "I3D-ResNet"),
        (_tensors(conv1__weight=(7, 7), layer1__0__conv1__weight=(1, 1)), "ResNet of images"),
        (_tensors(conv1__weight=(9, 9, 9), layer1__0__conv1__weight=(1, 1)), None),
        (_tensors(conv1__weight=(7, 7, 7)), None),
        (_tensors(xconv1__weight=(7, 7, 7), xlayer1__0__conv1__weight=(3, 3, 3)), None),
    ],
)
def test_kernels_tell_architectures_apart(tensors: Tensors, found: str | None) -> None:
    """Names alone are not enough, and a name is not the end of another one."""
    architecture = find_architecture(tensors)
    assert (architecture and architecture.name) == found


def test_i3d_is_none_of_them(random_tensors: Tensors) -> None:
    """I3D's own names are not those of another architecture."""
    assert find_architecture(random_tensors) is None


def test_the_message(tmp_path: Path) -> None:
    """The message names the architecture and a key, and does not suggest a converter table."""
    tensors = _tensors(stem__0__weight=(1, 7, 7), stem__3__weight=(3, 1, 1))
    path = tmp_path / "x.pt"
    state = {f"module.{name}": torch.from_numpy(array) for name, array in tensors.items()}
    torch.save({"state_dict": state}, path)
    with pytest.raises(MappingError) as caught:
        read_checkpoint(path)
    assert "another architecture: R(2+1)D (keys such as stem.0.weight" in str(caught.value)
    assert "--converter" not in str(caught.value)
    result = call("identify", path, code=1)
    assert result.stderr.count("another architecture") == 1
