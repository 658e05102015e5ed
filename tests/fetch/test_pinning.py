"""Pull checkpoints pinned by tensors only or by file only, and without reachable sources."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.loopback import Site
from helpers.progress import RecordedProgress
from helpers.published import FAST, FILE, Published

from i3dzoo import zoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.errors import ChecksumError, FetchError, OfflineError, UnreachableError
from i3dzoo.fetch.pull import import_file, pull, pull_manifest
from i3dzoo.verify import verify
from i3dzoo.zoo.manifest import Files, Manifest

DEAD = "http://127.0.0.1:1/rgb.safetensors"
BIAS = "Logits.Conv3d_0c_1x1.conv.bias"

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def model(weights: Published, site: Site, tmp_path: Path) -> Manifest:
    """A manifest with one source, a file on the site."""
    return zoo.load_manifest(weights.manifest(tmp_path, site, "file"))


def repinned(model: Manifest, **fields: str) -> Manifest:
    """Return the manifest with other fields of its file."""
    (source,) = model.sources
    assert isinstance(source, Files)
    file = source.files[0].replace(**fields)
    return model.replace(sources=(source.replace(files=(file,)),))


def test_file_without_a_digest(model: Manifest, site: Site, tmp_path: Path) -> None:
    """A file without a digest is accepted if its tensors match; an existing one is not trusted."""
    leftover = tmp_path / "cache/downloads/rgb_test/1-canonical/rgb.safetensors"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"rubbish")
    path = pull_manifest(repinned(model, digest="none"), policy=FAST)
    assert read_checkpoint(path).metadata.zoo == "rgb_test"
    assert len(site.ranges(FILE)) == 1


def test_file_without_a_digest_and_other_tensors(model: Manifest, site: Site) -> None:
    """A file without a digest is refused if one tensor differs."""
    other = model.replace(crc32c={**model.crc32c, BIAS: 1})
    with pytest.raises(FetchError, match=f"1 of 230 tensors differ from those of rgb_test: {BIAS}"):
        pull_manifest(repinned(other, digest="none"), policy=FAST)
    assert len(site.ranges(FILE)) == 1


def test_tensors_without_checksums(model: Manifest, site: Site) -> None:
    """Without checksums of tensors the digest of the file is checked, and the cached file too."""
    bare = model.replace(crc32c={})
    path = pull_manifest(bare, policy=FAST)
    assert read_checkpoint(path).metadata.zoo == "rgb_test"
    assert pull_manifest(bare, offline=True) == path
    wrong = "sha256:" + "0" * 64
    with pytest.raises(FetchError, match=r"has sha256:.*, expected sha256:0000"):
        pull_manifest(repinned(bare, digest=wrong), policy=FAST, force=True)
    checkpoint = read_checkpoint(path)
    nameless = replace(checkpoint, metadata=checkpoint.metadata.replace(zoo=None))
    write_checkpoint(path, nameless, force=True)
    with pytest.raises(OfflineError, match="cannot be used from"):
        pull_manifest(bare, offline=True)
    assert len(site.ranges(FILE)) == 2


def test_other_head_is_refused(model: Manifest) -> None:
    """A file with another number of classes is refused."""
    wide = model.replace(labels="ucf101", crc32c={})
    with pytest.raises(FetchError, match="rgb and 51 classes, expected rgb and 101 for rgb_test"):
        pull_manifest(wide, policy=FAST)


def test_a_name_that_cannot_be_checked(model: Manifest, tmp_path: Path) -> None:
    """A checkpoint that was published without tensor checksums is not identified by them."""
    checkpoint = change_head(read_checkpoint(pull_manifest(model, policy=FAST)), 157)
    metadata = checkpoint.metadata.replace(zoo="rgb_charades", labels=zoo.labels("charades"))
    path = write_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, metadata=metadata))
    identity = "identity: described as rgb_charades, which was published without tensor checksums"
    assert identity in verify(path).checks


def test_unreachable_hosts_are_named(
    model: Manifest, site: Site, progress: RecordedProgress
) -> None:
    """If no host can be reached, the error names each host once and says how to import a file."""
    dead = repinned(model, url=DEAD)
    (gone,) = repinned(model, url="http://nowhere.invalid/x").sources
    everywhere = dead.replace(sources=(*dead.sources, *dead.sources, gone))
    with pytest.raises(UnreachableError) as caught:
        pull_manifest(everywhere, policy=FAST, progress=progress)
    message = str(caught.value)
    assert "rgb_test: cannot be fetched" in message
    assert "127.0.0.1:1 and nowhere.invalid cannot be reached" in message
    assert message.endswith("i3dzoo pull rgb_test --file FILE")
    assert progress.messages[-1] == "rgb_test: The file: nowhere.invalid cannot be reached"
    assert site.log == []


def test_one_host_that_answers_is_enough_for_a_list(model: Manifest) -> None:
    """If one host answers, with an error, the message lists the reason of every source."""
    (gone,) = repinned(model, url=DEAD).sources
    both = model.replace(sources=(*model.sources, gone), crc32c={**model.crc32c, BIAS: 1})
    with pytest.raises(FetchError) as caught:
        pull_manifest(both, policy=FAST)
    assert not isinstance(caught.value, UnreachableError)
    _, first, second = str(caught.value).splitlines()
    assert first.startswith("  1. The file: rgb.safetensors: 1 of 230 tensors")
    assert second.endswith("127.0.0.1:1/rgb.safetensors: the connection was refused")


@pytest.mark.parametrize("layout", ["piergiaj", "keras"])
def test_a_copy_that_came_by_other_means(genuine: Checkpoint, tmp_path: Path, layout: str) -> None:
    """A file with the same tensors in any layout can be imported into the cache."""
    ending = {"piergiaj": ".pt", "keras": ".h5"}[layout]
    copy = write_checkpoint(tmp_path / f"copy{ending}", genuine, layout)
    path = import_file("rgb_scratch", copy)
    assert path == pull("rgb_scratch", offline=True)
    metadata = read_checkpoint(path).metadata
    assert (metadata.zoo, metadata.source.layout) == ("rgb_scratch", layout)
    assert metadata.labels == zoo.labels("kinetics-400")


def test_a_copy_of_something_else(genuine: Checkpoint, tmp_path: Path) -> None:
    """A file with other tensors, or with another digest if only that is known, is refused."""
    copy = write_checkpoint(tmp_path / "copy.pt", genuine, "piergiaj")
    with pytest.raises(ChecksumError, match="230 of 230 tensors differ from those of rgb_imagenet"):
        import_file("rgb_imagenet", copy)
    charades = write_checkpoint(tmp_path / "c.pt", change_head(genuine, 157), "piergiaj")
    message = "is not the published file of rgb_charades, and no checksums of its tensors"
    with pytest.raises(ChecksumError, match=message):
        import_file("rgb_charades", charades)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
