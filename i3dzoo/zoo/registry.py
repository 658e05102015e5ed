"""Names, manifests and cache paths of the published checkpoints."""

import difflib
import fnmatch
import functools
import os
from pathlib import Path

from i3dzoo.errors import ManifestError, UnknownNameError
from i3dzoo.resources import data
from i3dzoo.text import web_address
from i3dzoo.zoo.manifest import Manifest, parse


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of the published checkpoints, in alphabetical order."""
    files = (entry.name for entry in data("manifests").iterdir())
    return tuple(sorted(file.removesuffix(".toml") for file in files if file.endswith(".toml")))


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the published checkpoints that match a pattern.

    Examples:
        >>> import i3dzoo
        >>> i3dzoo.list_models("*imagenet*")
        ['flow_imagenet', 'googlenet_imagenet', 'rgb_imagenet']

    Args:
        pattern: A pattern as of a shell: `*` is any text, `?` one character, `[ab]` one of these.
            Upper and lower case are the same.
    """
    return [name for name in names() if fnmatch.fnmatchcase(name, pattern.lower())]


@functools.cache
def manifest(name: str) -> Manifest:
    """Return the manifest of a published checkpoint.

    Raises:
        UnknownNameError: No zoo model has this name; the message suggests similar ones.
    """
    if name not in names():
        raise unknown_name(name, "no zoo model has this name")
    text = (data("manifests") / f"{name}.toml").read_text("utf-8")
    return parse(name, text, f"manifests/{name}.toml")


def unknown_name(name: str, problem: str) -> UnknownNameError:
    """Return the error for an unknown model, with similar names and all names of the zoo."""
    if (address := web_address(name)) is not None:
        return UnknownNameError(
            f"{address}: is an address on the web, and only files on the Hugging Face Hub are "
            "models (https://huggingface.co/USER/NAME/resolve/REVISION/FILE); download it first, "
            "then give the file"
        )
    similar = difflib.get_close_matches(name.lower(), names(), n=2)
    hint = f"did you mean {' or '.join(similar)}? " if similar else ""
    return UnknownNameError(f"{name}: {problem}; {hint}the zoo has {', '.join(names())}")


def load_manifest(path: Path) -> Manifest:
    """Read a manifest from a file.

    Raises:
        ManifestError: The file cannot be read, or a key is unknown, missing or has a wrong value.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as a manifest: {error}") from error
    return parse(path.stem, text, str(path))


def cache_dir() -> Path:
    """Return the cache folder: `I3DZOO_CACHE`, or the standard place of this system."""
    if folder := os.environ.get("I3DZOO_CACHE"):
        return Path(folder).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("i3dzoo", appauthor=False))


def cached_path(name: str) -> Path:
    """Return the path of the canonical file of a model, whether or not it exists."""
    return cache_dir() / "models" / f"{name}.safetensors"
