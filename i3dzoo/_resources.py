"""The only place that knows where converters/ and manifests/ are."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from i3dzoo.errors import I3DZooError

__all__ = ["data"]


def data(kind: Literal["converters", "manifests"]) -> Traversable:
    """Return the folder of one kind of data, of the installed package or of the checkout.

    Raises:
        I3DZooError: The package was installed without its data.
    """
    installed = files("i3dzoo") / "_data" / kind
    if installed.is_dir():
        return installed
    checkout = Path(__file__).parent.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    raise I3DZooError(f"i3dzoo was installed without its {kind}/ data; reinstall it with pip")
