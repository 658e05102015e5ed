"""From a name or a file to a network that is ready to use."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from i3dzoo import hub, zoo
from i3dzoo.arrays import Array, Tensors, bfloat16
from i3dzoo.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.checksums import sha256
from i3dzoo.errors import MetadataError, UnknownNameError
from i3dzoo.formats.tensorflow_bundle import index_path

if TYPE_CHECKING:
    import torch

    from i3dzoo.model import InceptionI3d

__all__ = ["build", "digest", "find", "is_local", "load", "to_checkpoint"]


def is_local(model: str | Path) -> bool:
    """Whether a model argument is a file, a folder or the prefix of a TensorFlow checkpoint."""
    path = Path(model)
    try:
        return path.exists() or path.with_name(f"{path.name}.index").exists()
    except OSError:  # the system has no names as long as this, or no permission to look
        return False


def find(model: str | Path, offline: bool = False, verify: bool = False) -> Path:
    """Return the file that a model argument means, pulling what is not cached.

    Args:
        model: A zoo name, a file, a folder that `save_pretrained` wrote, or a repository on the
            Hub (see `i3dzoo.hub.parse`).
        offline: Do not touch the network.
        verify: Hash a repository's files even if they were verified before.

    Raises:
        UnknownNameError: It is none of them.
        FetchError: It could not be fetched.
        ChecksumError: A file of the repository is not what the Hub lists, or one of the folder is
            not what its SHA256SUMS lists.
    """
    name = str(model)
    if name in zoo.names():
        return zoo.pull(name, offline=offline)
    path = Path(model)
    if is_local(path):
        return hub.verified(path) if (path / hub.WEIGHTS).is_file() else path
    if hub.is_address(name) and not (path.parent.is_dir() and len(path.parts) > 1):
        return hub.pull(hub.parse(name), offline=offline, verify=verify).weights
    near = difflib.get_close_matches(name.lower(), zoo.names(), n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UnknownNameError(
        f"{name}: is neither a file nor a zoo model; {hint}the zoo has {', '.join(zoo.names())}"
    )


def digest(path: Path) -> str:
    """Return the SHA-256 of a model's file; of a TensorFlow prefix or folder, that of its index.

    The index holds a checksum of every tensor.
    """
    return sha256(index_path(path) or path)


def load(model: str | Path, offline: bool = False, verify: bool = False) -> "InceptionI3d":
    """Return a network in eval mode with its weights, labels and preprocessing.

    Args:
        model: A zoo name such as `rgb_scratch`, a file of any layout, a folder that
            `save_pretrained` wrote, or a repository on the Hub such as `USER/NAME`,
            `USER/NAME@REVISION` or `hf://USER/NAME/FILE`.
        offline: Do not touch the network.
        verify: Hash a repository's files even if they were verified before.

    Raises:
        I3DZooError: The model is unknown, cannot be fetched, or its file is unsound.
    """
    return build(read_checkpoint(find(model, offline, verify)))


def build(checkpoint: Checkpoint) -> "InceptionI3d":
    """Return a network in eval mode with a checkpoint's weights, in its dtype."""
    import numpy as np
    import torch

    from i3dzoo.model import InceptionI3d

    metadata = checkpoint.metadata
    with torch.device("meta"):
        model = InceptionI3d(
            num_classes=metadata.num_classes, in_channels=3 if metadata.stream == "rgb" else 2
        )
    state = {}
    for name, array in checkpoint.tensors.items():
        own = np.require(array, requirements=["C", "W", "O"])
        if own.dtype.name == "bfloat16":
            state[name] = torch.from_numpy(own.view("u2")).view(torch.bfloat16)
        else:
            state[name] = torch.from_numpy(own)
    for name in model.state_dict():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
    model.load_state_dict(state, assign=True)
    model.metadata = metadata
    return model.eval()


def to_checkpoint(model: "InceptionI3d") -> Checkpoint:
    """Return a network's weights as a checkpoint, as they are now.

    Whether they still are those of a published checkpoint is looked at: training changes them.
    Where the head was replaced, labels that do not fit it are dropped. Formats other than float16,
    bfloat16 and float32 become float32.

    Raises:
        MetadataError: The model was not loaded from a checkpoint, so its input is unknown.
        MappingError: It has other tensors than an I3D, or of other shapes.
    """
    import dataclasses

    from i3dzoo import convert, tables

    metadata = model.metadata
    if metadata is None:
        raise MetadataError("the model has no metadata; i3dzoo.load gives one that has")
    tensors = {
        name: _array(tensor.detach().cpu())
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    tensors = dict(convert.to_canonical("the model", tensors, tables.table("canonical")).tensors)
    classes, name = convert.num_classes(tensors), metadata.zoo
    if classes != metadata.num_classes:
        metadata = dataclasses.replace(metadata, num_classes=classes, labels=None)
    known = zoo.labels(zoo.manifest(name).labels) if name else None
    if name and (metadata.labels != known or not _is_published(name, tensors)):
        history = (*metadata.history, f"changed since it was loaded as {name}")
        metadata = dataclasses.replace(metadata, zoo=None, base=name, history=history)
    return Checkpoint(tensors, metadata)


def _array(tensor: "torch.Tensor") -> Array:
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(bfloat16())
    array: Array = (tensor if tensor.dtype == torch.float16 else tensor.float()).numpy()
    return array


def _is_published(name: str, tensors: Tensors) -> bool:
    """Whether these are a published checkpoint's tensors, by its checksums or else by its file."""
    from i3dzoo.fingerprint import match, tensor_crcs, without_checksums

    if without_checksums(name):
        path = zoo.cached_path(name)
        return path.exists() and tensor_crcs(read_checkpoint(path).tensors) == tensor_crcs(tensors)
    return match(name, zoo.manifest(name).crc32c, tensor_crcs(tensors)).exact
