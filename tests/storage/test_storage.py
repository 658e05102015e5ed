"""What is kept: listed with sizes, removed only inside of the cache, verified."""

import io
import json
import os
import tempfile
from pathlib import Path

import filelock
import huggingface_hub.constants
import pytest
from helpers.cli import fail, run, succeed

from i3dzoo import storage
from i3dzoo.errors import OutputError, UnknownNameError
from i3dzoo.files.temporary import temporary_folder
from i3dzoo.video import FrameCache
from i3dzoo.video.cache import FRAMES_PREFIX

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the zoo, an empty one of the Hub, and an empty temporary folder."""
    for name in ("zoo", "hub", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path / "zoo"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


def put(path: Path, size: int = 1000) -> Path:
    """Write a file of some bytes, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def repository(cache: Path, name: str = "alice/i3d", ours: bool = True) -> Path:
    """Write a repository in the Hub's cache as its client does: snapshots are links to blobs."""
    folder = cache / "hub" / f"models--{name.replace('/', '--')}"
    blob = put(folder / "blobs" / ("a" * 64), 3000)
    config = put(folder / "blobs" / ("b" * 40))
    config.write_text(json.dumps({"i3dzoo": {}} if ours else {"model_type": "bert"}))
    snapshot = folder / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    for target, link in ((blob, "model.safetensors"), (config, "config.json")):
        (snapshot / link).symlink_to(os.path.relpath(target, snapshot))
    return folder


def kept() -> dict[str, int]:
    """Return the size of what is kept, by its name."""
    return {entry.name: entry.size for entry in storage.entries()}


def test_list(cache: Path, capsys: Capture) -> None:
    """Everything is listed, links count nothing, and other programs' repositories are left out."""
    put(cache / "zoo/models/rgb_scratch.safetensors", 5000)
    put(cache / "zoo/downloads/flow_scratch/1-flax/x.part", 400)
    put(cache / "zoo/engines/0123.json", 70)
    put(cache / "zoo/locks/rgb_scratch.lock", 0)
    folder = repository(cache)
    repository(cache, "google/bert", ours=False)
    frames = FrameCache(10)
    size = 3000 + (folder / "blobs" / ("b" * 40)).stat().st_size
    expected = {"rgb_scratch": 5000, "flow_scratch": 400, "engines": 70, "alice/i3d": size}
    assert kept() == {**expected, frames.folder.name: 0}
    assert [path.name for path in storage.others_in_hub_cache()] == ["models--google--bert"]
    document = json.loads(succeed(capsys, "cache", "ls", "--json")[0])
    assert document["cache"] == str(cache / "zoo")
    assert document["size"] == sum(expected.values())
    rows = {row["name"]: row for row in document["entries"]}
    assert "47 MB" in rows["rgb_scratch"]["lost_if_removed"]
    assert "is measured again" in rows["engines"]["lost_if_removed"]
    assert rows[frames.folder.name]["in_use"] is True
    out, err = succeed(capsys, "cache", "ls")
    assert out.splitlines()[-1].split() == ["total", "8.5", "kB"]
    assert "1 other repositories" in err
    frames.close()


def test_nothing(cache: Path, capsys: Capture) -> None:
    """An empty cache is no error, and neither is one that does not exist."""
    (cache / "zoo").rmdir()
    out, err = succeed(capsys, "cache", "ls")
    assert out == ""
    assert f"the cache {cache / 'zoo'} is empty" in err
    assert succeed(capsys, "cache", "prune", "--yes")[0] == ""


def test_remove(cache: Path, capsys: Capture) -> None:
    """Only what was named is removed, with its unfinished download."""
    put(cache / "zoo/models/rgb_scratch.safetensors")
    put(cache / "zoo/downloads/rgb_scratch/x.part")
    put(cache / "zoo/models/flow_scratch.safetensors")
    folder = repository(cache)
    out, err = succeed(capsys, "cache", "rm", "rgb_scratch", "hf://alice/i3d", "--yes")
    assert "removed 3 entries" in err
    assert str(folder) in out.splitlines()
    assert list(kept()) == ["flow_scratch"]


def test_nobody_to_ask(cache: Path, capsys: Capture) -> None:
    """Without a terminal and without --yes, nothing is removed."""
    path = put(cache / "zoo/models/rgb_scratch.safetensors")
    for more in ((), ("--json",)):
        code, out, err = run(capsys, "cache", "rm", "rgb_scratch", *more)
        assert (code, out) == (2, "")
        assert "pass --yes" in err
    assert path.exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 130), ("", 130)])
def test_ask(
    cache: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    """On a terminal, what would be lost is shown before the question."""
    path = put(cache / "zoo/models/rgb_scratch.safetensors")
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    found, _, err = run(capsys, "cache", "rm", "rgb_scratch")
    assert (found, path.exists()) == (code, code != 0)
    assert "a download of 47 MB" in err
    assert "Remove 1 entries, 1.0 kB?" in err


def test_unknown(cache: Path, capsys: Capture) -> None:
    """A name that nothing has is refused; a repository of others is named as such."""
    put(cache / "zoo/models/rgb_scratch.safetensors")
    repository(cache, "google/bert", ours=False)
    error = fail(capsys, "cache", "rm", "x", "--yes")
    assert "nothing in the cache has this name; found rgb_scratch" in error
    with pytest.raises(UnknownNameError, match="not from i3dzoo: use hf cache rm"):
        storage.find_entries(["google/bert"])


@pytest.mark.parametrize("kind", ["file", "folder", "download"])
def test_links_are_not_followed(cache: Path, kind: str) -> None:
    """A link is removed itself; what it leads to stays."""
    outside = put(cache / "precious/x.safetensors")
    link = cache / "zoo/models/rgb_scratch.safetensors"
    if kind == "download":
        link = cache / "zoo/downloads/rgb_scratch"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside if kind == "file" else outside.parent)
    (entry,) = storage.entries()
    assert entry.size == 0
    storage.remove(entry)
    assert outside.exists()
    assert not link.is_symlink()


def test_links_inside_of_a_folder(cache: Path) -> None:
    """Links in a folder that is removed are not followed either."""
    outside = put(cache / "precious/x")
    folder = repository(cache)
    (folder / "blobs" / "out").symlink_to(outside.parent)
    storage.remove(storage.find_entries(["alice/i3d"])[0])
    assert outside.exists()
    assert not folder.exists()


def test_a_folder_that_leads_out(cache: Path) -> None:
    """A folder in the cache that leads out of it is refused; the cache itself may be a link."""
    outside = put(cache / "precious/rgb_scratch.safetensors").parent
    (cache / "zoo" / "models").symlink_to(outside)
    with pytest.raises(OutputError, match="leads out of the cache"):
        storage.remove(storage.find_entries(["rgb_scratch"])[0])
    assert (outside / "rgb_scratch.safetensors").exists()
    repository(cache)
    (cache / "hub").rename(cache / "moved")
    (cache / "hub").symlink_to(cache / "moved")
    storage.remove(storage.find_entries(["alice/i3d"])[0])
    assert not list((cache / "moved").iterdir())


def test_in_use(cache: Path, capsys: Capture) -> None:
    """What a process fetches or reads is kept."""
    path = put(cache / "zoo/models/rgb_scratch.safetensors")
    frames = FrameCache(10)
    with filelock.FileLock(put(cache / "zoo/locks/rgb_scratch.lock", 0)):
        code, out, err = run(capsys, "cache", "rm", "rgb_scratch", frames.folder.name, "--yes")
    assert (code, out) == (1, "")
    assert "another process is fetching it" in err
    assert "a process uses it" in err
    assert path.exists()
    assert frames.folder.exists()
    frames.close()


def test_prune(cache: Path, capsys: Capture) -> None:
    """Unfinished downloads and leftovers of killed processes go; models and frames in use stay."""
    model = put(cache / "zoo/models/rgb_scratch.safetensors")
    download = put(cache / "zoo/downloads/flow_scratch/x.part")
    part = put(repository(cache) / "blobs" / f"{'d' * 64}.incomplete")
    frames = FrameCache(10)
    killed, descriptor = temporary_folder(FRAMES_PREFIX)
    os.close(descriptor)  # a lock ends with its process
    elsewhere = put(cache / "tmp" / f"{FRAMES_PREFIX}-00000000-abcdefgh" / ".lock")
    succeed(capsys, "cache", "prune", "--yes")
    assert [path.exists() for path in (download, part, killed)] == [False] * 3
    assert [path.exists() for path in (model, frames.folder, elsewhere)] == [True] * 3
    frames.close()


def test_verify(cache: Path, capsys: Capture, rgb_scratch: Path) -> None:
    """The genuine model is intact; one changed byte, and a changed blob, are found."""
    model = cache / "zoo" / "models" / "rgb_scratch.safetensors"
    model.parent.mkdir()
    model.symlink_to(rgb_scratch)
    out, _ = succeed(capsys, "cache", "verify")
    assert out == "rgb_scratch: all 230 published tensors\n"
    data = bytearray(rgb_scratch.read_bytes())
    data[-100] ^= 1
    model.unlink()
    model.write_bytes(data)
    repository(cache)
    code, out, err = run(capsys, "cache", "verify", "--json")
    errors = {row["name"]: row["error"] for row in json.loads(out)}
    assert code == 1
    assert "conv.bias has CRC32C" in errors["rgb_scratch"]
    assert f"expected git-blob:{'b' * 40}" in errors["alice/i3d"]
    assert "i3dzoo pull rgb_scratch --force" in err
