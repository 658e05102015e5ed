"""The published checkpoints: names, manifests, and identification of files."""

from i3dzoo.checkpoints.labels import label_sets, labels
from i3dzoo.zoo.manifest import Files, Manifest, PackageIndex
from i3dzoo.zoo.registry import (
    cache_dir,
    cached_path,
    list_models,
    load_manifest,
    manifest,
    names,
    unknown_name,
)

__all__ = [
    "Files",
    "Manifest",
    "PackageIndex",
    "cache_dir",
    "cached_path",
    "label_sets",
    "labels",
    "list_models",
    "load_manifest",
    "manifest",
    "names",
    "unknown_name",
]
