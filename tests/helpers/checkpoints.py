"""Checkpoints in other layouts, with other metadata, and of random networks; converter tables."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from i3dzoo import formats
from i3dzoo.arrays import Array, Tensors
from i3dzoo.checkpoints import convert, converter, networks
from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.converter import Table
from i3dzoo.checkpoints.metadata import Input, Metadata, Source
from i3dzoo.pretrained import InceptionI3d
from i3dzoo.resources import data

WRITTEN = [n for n in converter.names() if formats.FORMATS[converter.table(n).format].write]
"""The layouts that are written; the formats of the others are only read."""


def tensors_of(model: InceptionI3d) -> Tensors:
    """The canonical tensors of a network."""
    state = model.state_dict().items()
    return {name: t.numpy() for name, t in state if not name.endswith("num_batches_tracked")}


def write_random(path: Path, spec: Input, labels: tuple[str, ...] | None, classes: int = 3) -> Path:
    """Write a canonical file of a seeded RGB network."""
    torch.manual_seed(0)
    metadata = Metadata("rgb", classes, labels, spec, Source("canonical", "0" * 64))
    return write_checkpoint(path, Checkpoint(tensors_of(InceptionI3d(classes)), metadata))


def described(checkpoint: Checkpoint, **fields: Any) -> Checkpoint:
    """The same tensors with other metadata."""
    return dataclasses.replace(checkpoint, metadata=checkpoint.metadata.replace(**fields))


def to_layout(tensors: Tensors, layout: str = "deepmind") -> dict[str, Array]:
    """Canonical tensors in another layout."""
    return dict(convert.from_canonical("x", tensors, converter.table(layout)).tensors)


def torch_state(tensors: Tensors, layout: str = "piergiaj") -> dict[str, torch.Tensor]:
    """Canonical tensors as a state dict of another layout."""
    arrays = to_layout(tensors, layout).items()
    return {name: torch.from_numpy(array.copy()) for name, array in arrays}


def detect(tensors: Tensors) -> Table:
    """Detect the layout of tensors among all layouts."""
    tables = list(map(converter.table, converter.names()))
    found = networks.find_networks({"": tensors}, tables)
    return (found[0] if found else networks.nearest("x", {"": tensors}, tables)).table


def read_foreign(path: Path) -> convert.Conversion:
    """Read and convert a file without identifying it."""
    container = formats.read(path)
    (network,) = networks.find_networks({"": container.tensors}, converter.tables(container.format))
    return convert.network_to_canonical(str(path), network)


def assert_equal(actual: Tensors, expected: Tensors) -> None:
    """Compare all names, in order, and all values and dtypes."""
    assert list(actual) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array)
        assert actual[name].dtype == array.dtype


def edited_table(folder: Path, name: str, old: str = "", new: str = "") -> Path:
    """Write a copy of a shipped converter table with a text replaced."""
    text = (data("converters") / f"{name}.toml").read_text("utf-8")
    path = folder / "mine.toml"
    path.write_text(text.replace(old, new) if old else text)
    return path
