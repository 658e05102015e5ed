"""Pulling what is pinned by its tensors alone, or by its file alone, or cannot be reached."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from i3dzoo import zoo
from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.errors import ChecksumError, FetchError, OfflineError, UnreachableError
from i3dzoo.fetch import Policy
from i3dzoo.head import change_head
from i3dzoo.manifest import Files, Manifest
from i3dzoo.verify import verify

from . import loopback, published
from .loopback import Diary, Site
from .published import FILE, Published

FAST = Policy(attempts=2, backoff=0.01, connect_timeout=2, read_timeout=2)
DEAD = "http://127.0.0.1:1/rgb.safetensors"
BIAS = "Logits.Conv3d_0c_1x1.conv.bias"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A checkpoint of constants."""
    return published.make(tmp_path_factory.mktemp("published"))


@pytest.fixture
def site(weights: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with the checkpoint, and an empty cache."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path / "cache"))
    with loopback.serve() as site:
        weights.serve(site)
        yield site


@pytest.fixture
def model(weights: Published, site: Site, tmp_path: Path) -> Manifest:
    """A manifest with one source, a file on the site."""
    return zoo.load_manifest(weights.manifest(tmp_path, site, "file"))


def repinned(model: Manifest, **fields: str) -> Manifest:
    """Return the manifest with other facts about its file."""
    (source,) = model.sources
    assert isinstance(source, Files)
    file = replace(source.files[0], **fields)  # type: ignore[arg-type] # texts for texts
    return replace(model, sources=(replace(source, files=(file,)),))


def test_file_without_a_digest(model: Manifest, site: Site) -> None:
    """A file that nobody published a digest of is let in by its tensors."""
    path = zoo.pull_manifest(repinned(model, digest="none"), policy=FAST)
    assert read_checkpoint(path).metadata.zoo == "rgb_test"
    assert len(site.asked(FILE)) == 1


def test_file_without_a_digest_and_other_tensors(model: Manifest, site: Site) -> None:
    """Without a digest, one tensor that is another is enough to refuse the file."""
    other = replace(model, crc32c={**model.crc32c, BIAS: 1})
    with pytest.raises(FetchError, match=f"1 of 230 tensors are not those of rgb_test: {BIAS}"):
        zoo.pull_manifest(repinned(other, digest="none"), policy=FAST)
    assert len(site.asked(FILE)) == 1


def test_leftover_without_a_digest_is_not_trusted(
    model: Manifest, site: Site, tmp_path: Path
) -> None:
    """A file that lies where the download goes is fetched again where no digest vouches for it."""
    leftover = tmp_path / "cache/downloads/rgb_test/1-canonical/rgb.safetensors"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"rubbish")
    zoo.pull_manifest(repinned(model, digest="none"), policy=FAST)
    assert len(site.asked(FILE)) == 1


def test_tensors_without_checksums(model: Manifest, site: Site) -> None:
    """Where no tensor was published the file's digest decides, and the cache is still checked."""
    bare = replace(model, crc32c={})
    path = zoo.pull_manifest(bare, policy=FAST)
    assert read_checkpoint(path).metadata.zoo == "rgb_test"
    assert zoo.pull_manifest(bare, offline=True) == path
    wrong = "sha256:" + "0" * 64
    with pytest.raises(FetchError, match=r"has sha256 .*, expected 0000"):
        zoo.pull_manifest(repinned(bare, digest=wrong), policy=FAST, force=True)
    checkpoint = read_checkpoint(path)
    nameless = replace(checkpoint, metadata=replace(checkpoint.metadata, zoo=None))
    write_checkpoint(path, nameless, force=True)
    with pytest.raises(OfflineError, match="cannot be used from"):
        zoo.pull_manifest(bare, offline=True)
    assert len(site.asked(FILE)) == 2


def test_other_head_is_refused(model: Manifest) -> None:
    """A file of another stream or width than the manifest's is refused before its tensors are."""
    wide = replace(model, labels="ucf101", crc32c={})
    with pytest.raises(FetchError, match="is rgb with 51 classes; rgb_test is rgb with 101"):
        zoo.pull_manifest(wide, policy=FAST)


def test_a_name_that_cannot_be_checked(model: Manifest, tmp_path: Path) -> None:
    """Verifying a checkpoint of which no tensor was published says that the name is its word."""
    checkpoint = read_checkpoint(zoo.pull_manifest(model, policy=FAST))
    metadata = replace(checkpoint.metadata, zoo="rgb_charades")
    path = write_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, metadata=metadata))
    words = "fingerprint: it says that it is rgb_charades, of which no tensor was published"
    assert words in verify(path).checks


def test_unreachable_hosts_are_named(model: Manifest, site: Site) -> None:
    """Where no host answers, one sentence names each host once and tells another way."""
    dead = repinned(model, url=DEAD)
    (gone,) = repinned(model, url="http://nowhere.invalid/x").sources
    everywhere = replace(dead, sources=(*dead.sources, *dead.sources, gone))
    diary = Diary()
    with pytest.raises(UnreachableError) as caught:
        zoo.pull_manifest(everywhere, policy=FAST, progress=diary)
    assert str(caught.value) == (
        "rgb_test: cannot be fetched: 127.0.0.1:1 and nowhere.invalid cannot be reached; is this "
        "machine online? Any file that `i3dzoo info rgb_test` lists will do, brought by other "
        "means: i3dzoo pull rgb_test --file FILE"
    )
    assert diary.remarks[-1] == "rgb_test: The file: nowhere.invalid cannot be reached"
    assert site.log == []


def test_one_host_that_answers_is_enough_for_a_list(model: Manifest) -> None:
    """Where one host answers, if with an error, every source is listed with its reason."""
    (gone,) = repinned(model, url=DEAD).sources
    both = replace(model, sources=(*model.sources, gone), crc32c={**model.crc32c, BIAS: 1})
    with pytest.raises(FetchError) as caught:
        zoo.pull_manifest(both, policy=FAST)
    assert not isinstance(caught.value, UnreachableError)
    _, first, second = str(caught.value).splitlines()
    assert first.startswith("  1. The file: rgb.safetensors: 1 of 230 tensors")
    assert second.endswith("127.0.0.1:1/rgb.safetensors: refused the connection; 2 attempts")


@pytest.mark.parametrize("layout", ["piergiaj", "keras"])
def test_a_copy_that_came_by_other_means(
    genuine: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """A file of the same tensors in any layout goes into the cache, and is there offline."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path / "cache"))
    ending = {"piergiaj": ".pt", "keras": ".h5"}[layout]
    copy = write_checkpoint(tmp_path / f"copy{ending}", genuine, layout)
    path = zoo.adopt("rgb_scratch", copy)
    assert path == zoo.pull("rgb_scratch", offline=True)
    metadata = read_checkpoint(path).metadata
    assert (metadata.zoo, metadata.source.layout) == ("rgb_scratch", layout)
    assert metadata.labels == zoo.labels("kinetics-400")


def test_a_copy_of_something_else(
    genuine: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of other tensors, or of another digest where that is all there is, is refused."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path / "cache"))
    copy = write_checkpoint(tmp_path / "copy.pt", genuine, "piergiaj")
    with pytest.raises(ChecksumError, match="230 of 230 tensors are not those of rgb_imagenet"):
        zoo.adopt("rgb_imagenet", copy)
    charades = write_checkpoint(tmp_path / "c.pt", change_head(genuine, 157), "piergiaj")
    message = "is not the published file of rgb_charades, whose digest is all that was published"
    with pytest.raises(ChecksumError, match=message):
        zoo.adopt("rgb_charades", charades)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
