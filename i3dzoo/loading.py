"""From a name or a file to a network that is ready to use."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from i3dzoo import zoo
from i3dzoo.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.errors import UnknownNameError

if TYPE_CHECKING:
    from i3dzoo.model import InceptionI3d

__all__ = ["find", "load"]


def find(model: str | Path, offline: bool = False) -> Path:
    """Return the file that a model argument means, pulling a zoo model that is not cached.

    Raises:
        UnknownNameError: It is neither a zoo name nor a file.
        FetchError: The zoo model could not be fetched.
    """
    name = str(model)
    if name in zoo.names():
        return zoo.pull(name, offline=offline)
    path = Path(model)
    if path.exists() or path.with_name(f"{path.name}.index").exists():
        return path
    near = difflib.get_close_matches(name.lower(), zoo.names(), n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UnknownNameError(
        f"{name}: is neither a file nor a zoo model; {hint}the zoo has {', '.join(zoo.names())}"
    )


def load(model: str | Path, offline: bool = False) -> "InceptionI3d":
    """Return a network in eval mode with its weights, labels and preprocessing.

    Args:
        model: A zoo name such as `rgb_scratch`, or a file of any layout.
        offline: Do not touch the network.

    Raises:
        I3DZooError: The model is unknown, cannot be fetched, or its file is unsound.
    """
    return build(read_checkpoint(find(model, offline)))


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
