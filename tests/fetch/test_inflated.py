"""Pull a published network of images, which is inflated on the way into the cache."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.loopback import Site
from helpers.published import FAST

import i3dzoo
from i3dzoo import zoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.checkpoints.inflation import deflate
from i3dzoo.errors import ChecksumError, FetchError, ManifestError
from i3dzoo.fetch import pull as module
from i3dzoo.fetch.pull import import_file, pull_manifest
from i3dzoo.network.architecture import HEAD_WEIGHT
from i3dzoo.resources import data
from i3dzoo.verify import verify
from i3dzoo.zoo.manifest import Manifest

pytestmark = pytest.mark.usefixtures("cache")

URL = "https://download.pytorch.org/models/googlenet-1378be20.pth"


@pytest.fixture
def googlenet(rgb: Checkpoint, tmp_path: Path) -> Path:
    """A network of images with torchvision's names."""
    path = tmp_path / "googlenet.pth"
    tensors = deflate(rgb)
    torch.save({name: torch.from_numpy(np.array(a)) for name, a in tensors.items()}, path)
    return path


@pytest.fixture
def model(googlenet: Path, site: Site, tmp_path: Path) -> Manifest:
    """The shipped manifest, with this file on the site."""
    content = googlenet.read_bytes()
    site.files["/googlenet.pth"] = content
    text = (data("manifests") / "googlenet_imagenet.toml").read_text("utf-8")
    path = tmp_path / "googlenet_imagenet.toml"
    digest = f"sha256-start:{sha256(content).hexdigest()[:8]}"
    address = f"{site.address}/googlenet.pth"
    path.write_text(text.replace(URL, address).replace("sha256-start:1378be20", digest))
    return zoo.load_manifest(path)


def test_pull(model: Manifest, rgb: Checkpoint) -> None:
    """The cached file is inflated, described by the manifest, and has no head."""
    path = pull_manifest(model, policy=FAST)
    checkpoint = read_checkpoint(path)
    metadata = checkpoint.metadata
    assert (metadata.zoo, metadata.num_classes, metadata.labels) == ("googlenet_imagenet", 0, None)
    assert (metadata.variant, metadata.input) == (model.variant, model.input)
    assert HEAD_WEIGHT not in checkpoint.tensors
    name = "Mixed_3b.Branch_1.Conv3d_0b_3x3.conv.weight"
    kernel = checkpoint.tensors[name]
    np.testing.assert_allclose(kernel.sum(2), rgb.tensors[name].sum(2), atol=1e-6)
    assert (kernel[:, :, 0] == kernel[:, :, 2]).all()
    assert pull_manifest(model, offline=True) == path
    assert "googlenet_imagenet" in str(verify(path).checks)
    flow = i3dzoo.change_stream(checkpoint, 2).metadata
    assert (flow.zoo, flow.base, flow.stream) == (None, "googlenet_imagenet", "flow")


def test_another_file(
    model: Manifest, googlenet: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file is refused by the digits of its digest, from the web and from the disk."""
    site.files["/googlenet.pth"] += b"x"
    with pytest.raises(FetchError, match=r"has sha256-start:[0-9a-f]{8}, expected sha256-start:"):
        pull_manifest(model, policy=FAST)
    monkeypatch.setattr(module, "manifest", lambda _name: model)
    path = import_file(model.name, googlenet)
    assert read_checkpoint(path).metadata.zoo == model.name
    googlenet.write_bytes(site.files["/googlenet.pth"])
    with pytest.raises(ChecksumError, match=r"not the published file of googlenet_imagenet"):
        import_file(model.name, googlenet)


def test_labels_of_a_manifest(tmp_path: Path) -> None:
    """A manifest of a network of images has no labels, and any other one has some."""
    path = tmp_path / "googlenet_imagenet.toml"
    text = (data("manifests") / "googlenet_imagenet.toml").read_text("utf-8")
    path.write_text(text.replace('stream = "rgb"', 'stream = "rgb"\nlabels = "hmdb51"'))
    with pytest.raises(ManifestError, match="labels: expected none"):
        zoo.load_manifest(path)
    path.write_text(text.replace("images/torchvision", "piergiaj"))
    with pytest.raises(ManifestError, match="labels: expected one of charades, hmdb51"):
        zoo.load_manifest(path)
