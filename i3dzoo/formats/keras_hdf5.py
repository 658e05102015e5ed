"""HDF5 files as Keras writes them: weights by layer, in the old way and in that of Keras 3.

The old way (`save_weights("x.h5")` of Keras 1 and 2): a group for each layer, whose attribute
`weight_names` lists its datasets. A tensor is named `LAYER/WEIGHT` here, without the `:0` that
TensorFlow appends to a variable's name.

Keras 3 (`save_weights("x.weights.h5")`): layers lie under `layers/CLASS`, `layers/CLASS_1` and so
on in the order of the model, their tensors under `vars/0`, `vars/1` and so on, and the layer's own
name is an attribute. A tensor is named `CLASS/LAYER/NUMBER` here; where a file has no layer names,
by its path.

Source: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from i3dzoo.arrays import Array, Tensors
from i3dzoo.errors import FormatError, OutputError
from i3dzoo.formats import hdf5_read, hdf5_write
from i3dzoo.formats.container import Container
from i3dzoo.formats.hdf5_read import Group
from i3dzoo.formats.hdf5_write import Node

__all__ = ["read", "write", "write_keras3"]


def read(path: Path, data: Array | None = None) -> Container:
    """Read weights that Keras saved, alone or with the model around them.

    Args:
        path: The file.
        data: The bytes of the HDF5 file where it is a part, checked, of the one at `path`.

    Raises:
        UnsafeFileError: The file links to other files.
        FormatError: It is truncated or corrupt, or holds no weights of Keras.
    """
    root = hdf5_read.read(path, data)
    inner = root.children.get("model_weights", root)
    old = isinstance(inner, Group) and "layer_names" in inner.attributes
    pairs = _layers(path, inner) if old and isinstance(inner, Group) else _variables(root, "")
    tensors: dict[str, Array] = {}
    for name, array in pairs:
        if name in tensors:
            raise FormatError(
                f"{path}: two tensors are called {name}; i3dzoo cannot tell them apart"
            )
        tensors[name] = array
    if not tensors:
        raise FormatError(f"{path}: is an HDF5 file without weights of Keras")
    return Container("keras" if old else "keras3", path, tensors, checked=data is not None)


def _layers(path: Path, group: Group) -> Iterator[tuple[str, Array]]:
    for layer in group.attributes["layer_names"]:
        below = group.children.get(layer)
        if not isinstance(below, Group):
            raise FormatError(f"{path}: the layer {layer} is listed and missing")
        weights = below.attributes.get("weight_names", [])
        # a model within the model has its own layers' names before their weights'
        nested = len({weight.rpartition("/")[2] for weight in weights}) < len(weights)
        for weight in weights:
            node: Any = below
            for key in weight.split("/"):
                node = node.children.get(key) if isinstance(node, Group) else None
            if node is None or isinstance(node, Group):
                raise FormatError(f"{path}: the weight {layer}/{weight} is listed and missing")
            inner, _, own = f"{layer}/{weight}".removesuffix(":0").rpartition("/")
            yield f"{inner.rpartition('/')[2] if nested else layer}/{own}", node


def _variables(group: Group, name: str) -> Iterator[tuple[str, Array]]:
    for key, child in group.children.items():
        below = f"{name}/{key}".lstrip("/")
        if not isinstance(child, Group):
            yield below, child
            continue
        layer = child.attributes.get("name", [])
        if key == "vars" and len(layer) == 1 and "layers/" in name:
            kind = re.sub(r"_\d+$", "", name.rpartition("/")[2])
            yield from _variables(child, f"{kind}/{layer[0]}")
        else:
            yield from _variables(child, below)


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write weights that `load_weights` of any Keras reads, by order of layers or by their names.

    Args:
        path: The file.
        tensors: Arrays by `LAYER/WEIGHT`, in the order of the model's layers.
        metadata: Not written: Keras keeps none.

    Raises:
        OutputError: The file cannot be written, a name is of another form, or a dtype is none that
            HDF5 has.
    """
    layers: dict[str, dict[str, Array]] = {}
    for name, array in tensors.items():
        layer, weight = _parts(path, name, "LAYER/WEIGHT")
        layers.setdefault(layer, {})[f"{weight}:0"] = array
    groups: dict[str, Node | Array] = {
        layer: Node(
            {"weight_names": [f"{layer}/{weight}" for weight in weights]},
            {layer: Node({}, {**weights})},
        )
        for layer, weights in layers.items()
    }
    # the version whose conventions these are; kernels of version 1 would be turned on loading
    attributes: dict[str, str | list[str]] = {
        "layer_names": list(layers),
        "backend": "tensorflow",
        "keras_version": "2.1.6",
    }
    hdf5_write.write(path, Node(attributes, groups))


def _parts(path: Path, name: str, form: str) -> list[str]:
    parts = name.split("/")
    if len(parts) != form.count("/") + 1 or not all(parts):
        raise OutputError(
            f"{path}: {name} cannot be written; Keras has names of the form {form}; change those "
            "of the converter table"
        )
    return parts


def write_keras3(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write weights that `load_weights` of Keras 3 reads.

    Args:
        path: The file; Keras wants its name to end in `.weights.h5`.
        tensors: Arrays by `CLASS/LAYER/NUMBER`, in the order of the model's layers.
        metadata: Not written: Keras keeps none.

    Raises:
        OutputError: The file cannot be written, its name is not one that Keras reads, a tensor's
            name is of another form, or a dtype is none that HDF5 has.
    """
    if not path.name.endswith(".weights.h5"):
        raise OutputError(f"{path}: Keras 3 reads weights only from names that end in .weights.h5")
    layers: dict[tuple[str, str], dict[str, Node | Array]] = {}
    for name, array in tensors.items():
        kind, layer, number = _parts(path, name, "CLASS/LAYER/NUMBER")
        layers.setdefault((kind, layer), {})[number] = array
    seen: Counter[str] = Counter()
    groups: dict[str, Node | Array] = {}
    for (kind, layer), weights in layers.items():
        key = f"{kind}_{seen[kind]}" if seen[kind] else kind
        seen[kind] += 1
        groups[key] = Node({}, {"vars": Node({"name": layer}, weights)})
    hdf5_write.write(path, Node({}, {"layers": Node({}, groups), "vars": Node()}))
