"""The networks of i3dzoo for `torch.hub`.

    model = torch.hub.load("USER/i3dzoo", "rgb_imagenet", trust_repo=True)

Every published checkpoint is an entry point; `i3d` takes any model argument of `i3dzoo.load`. The
network is in eval mode, with `preprocess`, `labels` and `metadata`.
"""

from functools import partial
from typing import Any

dependencies = ["torch", "numpy", "msgspec", "safetensors", "huggingface_hub", "platformdirs"]


def i3d(model: str = "rgb_imagenet", **options: Any) -> Any:
    """Return a network by a zoo name, a file of any layout, or a repository on the Hub.

    The options are those of `i3dzoo.load`.
    """
    from i3dzoo import load

    return load(model, **options)


def _entry(name: str) -> Any:
    from i3dzoo.zoo import manifest

    entry = partial(i3d, name)
    entry.__doc__ = f"{manifest(name).title}: see `i3dzoo info {name}`."
    return entry


def _entries() -> dict[str, Any]:
    from i3dzoo import list_models

    return {name: _entry(name) for name in list_models()}


globals().update(_entries())
