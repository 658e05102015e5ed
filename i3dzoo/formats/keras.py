"""Read and write Keras weights in HDF5: the legacy format by layer, and that of Keras 3.

Legacy (`save_weights("x.h5")` of Keras 1 and 2): a group for each layer, whose attribute
`weight_names` lists its datasets. A tensor is named `LAYER/WEIGHT` here, without the `:0` that
TensorFlow appends to the name of a variable.

Keras 3 (`save_weights("x.weights.h5")`): layers are under `layers/CLASS`, `layers/CLASS_1` and so
on in the order of the model, their tensors under `vars/0`, `vars/1` and so on, and the name of the
layer is an attribute. A tensor is named `CLASS/LAYER/NUMBER` here, or by its path if the file has
no layer names.

Source: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from i3dzoo.arrays import Array, Tensors
from i3dzoo.errors import FormatError, OutputError
from i3dzoo.files import atomic_write
from i3dzoo.formats import hdf5
from i3dzoo.formats.container import Container, by_name
from i3dzoo.formats.hdf5 import Hdf5

_ATTRIBUTES: Final = ("layer_names", "weight_names", "name")
_DTYPES: Final = ("<f2", "<f4", "<f8", "<i8")


def read(path: Path, part: tuple[int, int] | None = None) -> Container:
    """Read weights that Keras saved, alone or together with the model.

    `part` is the start and size in bytes of an HDF5 file, of verified checksum, within `path`.
    """
    content = hdf5.read(path, _ATTRIBUTES, part)
    root = "model_weights/" if "model_weights" in content.groups else ""
    legacy = "layer_names" in content.groups[root.rstrip("/")]
    named = _legacy_tensors(path, content, root) if legacy else _keras3_tensors(content)
    tensors = by_name(path, named, "is an HDF5 file without Keras weights")
    return Container("keras" if legacy else "keras3", path, tensors, checked=part is not None)


def _legacy_tensors(path: Path, content: Hdf5, root: str) -> Iterator[tuple[str, Array]]:
    for layer in content.groups[root.rstrip("/")]["layer_names"]:
        group = content.groups.get(f"{root}{layer}")
        if group is None:
            raise FormatError(f"{path}: the layer {layer} is listed but missing")
        weights = group.get("weight_names", [])
        # in a model within the model, the names of its layers precede those of their weights
        nested = len({weight.rpartition("/")[2] for weight in weights}) < len(weights)
        for weight in weights:
            array = content.datasets.get(f"{root}{layer}/{weight}")
            if array is None:
                raise FormatError(f"{path}: the weight {layer}/{weight} is listed but missing")
            inner, _, own = f"{layer}/{weight}".removesuffix(":0").rpartition("/")
            yield f"{inner.rpartition('/')[2] if nested else layer}/{own}", array


def _keras3_tensors(content: Hdf5) -> Iterator[tuple[str, Array]]:
    for path, array in content.datasets.items():
        group, _, number = path.rpartition("/")
        names = content.groups[group].get("name", [])
        if len(names) == 1 and re.search(r"layers/.*/vars$|layers/vars$", group):
            kind = re.sub(r"_\d+$", "", group.removesuffix("/vars").rpartition("/")[2])
            yield f"{kind}/{names[0]}/{number}", array
        else:
            yield path, array


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write weights that `load_weights` of any Keras reads, by the order of layers or by name.

    The tensors are in the order of the model's layers; Keras keeps no metadata.
    """
    layers: dict[str, list[str]] = {}
    datasets: dict[str, Array] = {}
    for name, array in tensors.items():
        layer, weight = _parts(path, name, "LAYER/WEIGHT")
        layers.setdefault(layer, []).append(f"{layer}/{weight}:0")
        datasets[f"{layer}/{layer}/{weight}:0"] = array
    attributes: dict[str, dict[str, str | list[str]]] = {
        # the version of these conventions; kernels of version 1 would be flipped on loading
        "": {"layer_names": list(layers), "backend": "tensorflow", "keras_version": "2.1.6"},
        **{layer: {"weight_names": names} for layer, names in layers.items()},
    }
    _write(path, attributes, datasets)


def write_keras3(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write weights, in the order of the model's layers, that `load_weights` of Keras 3 reads."""
    if not path.name.endswith(".weights.h5"):
        raise OutputError(f"{path}: Keras 3 reads weights only from names that end in .weights.h5")
    attributes: dict[str, dict[str, str | list[str]]] = {"vars": {}}
    datasets: dict[str, Array] = {}
    groups: dict[tuple[str, str], str] = {}
    counts: Counter[str] = Counter()
    for name, array in tensors.items():
        kind, layer, number = _parts(path, name, "CLASS/LAYER/NUMBER")
        if (kind, layer) not in groups:
            group = f"layers/{kind}_{counts[kind]}/vars" if counts[kind] else f"layers/{kind}/vars"
            counts[kind] += 1
            groups[kind, layer] = group
            attributes[group] = {"name": layer}
        datasets[f"{groups[kind, layer]}/{number}"] = array
    _write(path, attributes, datasets)


def _parts(path: Path, name: str, form: str) -> list[str]:
    parts = name.split("/")
    if len(parts) != form.count("/") + 1 or not all(parts):
        raise OutputError(
            f"{path}: {name} cannot be written; Keras has names of the form {form}; change those "
            "of the converter table"
        )
    return parts


def _write(
    path: Path,
    attributes: Mapping[str, Mapping[str, str | list[str]]],
    datasets: Mapping[str, Array],
) -> None:
    """Write a file that the oldest readers open; equal tensors give equal bytes."""
    import h5py

    for name, array in datasets.items():
        if array.dtype.str not in _DTYPES:
            raise OutputError(
                f"{path}: {name} has dtype {array.dtype}, which HDF5 does not have; write another "
                "layout or a float32 checkpoint"
            )
    with atomic_write(path) as output, h5py.File(output, "w", libver="earliest") as file:
        for group, texts in attributes.items():
            node = file.require_group(group or "/")
            for name, text in texts.items():
                # Keras stores UTF-8 of a fixed length, which older readers need
                raw = np.char.encode(np.array(text, str), "utf-8")
                node.attrs[name] = raw.astype(h5py.string_dtype("utf-8", max(raw.itemsize, 1)))
        for name, array in datasets.items():
            file.create_dataset(name, data=array, track_times=False)
