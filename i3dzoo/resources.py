"""Find the folders converters/ and manifests/, and the data of a package."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from i3dzoo.errors import I3DZooError


def package_data(folder: Literal["features", "fvd", "training"]) -> Traversable:
    """Return a folder of the package; nothing is imported."""
    return files("i3dzoo") / folder


def data(kind: Literal["converters", "manifests"]) -> Traversable:
    """Return a folder of data of the installed package or of the checkout."""
    installed = files("i3dzoo") / "_data" / kind
    if installed.is_dir():
        return installed
    checkout = Path(__file__).parent.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    raise I3DZooError(f"i3dzoo was installed without its {kind}/ data; reinstall it with pip")
