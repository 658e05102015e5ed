"""The folder of a repository in the Hub's cache: locks, leftovers, and links that lead out."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.progress import RecordedProgress
from huggingface_hub.utils import WeakFileLock

from i3dzoo.errors import OutputError
from i3dzoo.hub.cache import Cache

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """The folder of a repository that has folders, and no files."""
    cache = Cache(tmp_path / "hub" / "models--alice--i3d")
    for name in ("blobs", "refs", "snapshots"):
        (cache.folder / name).mkdir(parents=True)
    return cache


def lock_of(cache: Cache, blob: Path) -> Path:
    """Return the path of the lock that the Hub's client takes for a blob."""
    return cache.folder.parent / ".locks" / cache.folder.name / f"{blob.name}.lock"


def test_leftovers_of_killed_processes_go(cache: Cache) -> None:
    """What nobody holds is removed; what is held, and what this run resumes, remains."""
    wanted, held = cache.blob(DIGEST), cache.blob("sha256:" + "cd" * 32)
    resumable = cache.part(wanted)
    note = resumable.with_name(f"{resumable.name}.etag")
    running = held.with_name(f"{held.name}.12345678.incomplete")  # as the Hub's client names it
    other = cache.part(cache.blob("git-blob:" + "ef" * 20))
    for path in (resumable, note, running, other):
        path.write_bytes(b"half")
    lock_of(cache, held).parent.mkdir(parents=True)
    with WeakFileLock(lock_of(cache, held)):
        cache.sweep([wanted])
        assert {*cache.folder.rglob("*.*")} == {resumable, note, running}
    wanted.write_bytes(b"whole")
    cache.sweep([wanted])
    assert [path.name for path in cache.folder.rglob("*") if path.is_file()] == [wanted.name]


def test_lock_of_the_hubs_client(cache: Cache) -> None:
    """A download waits for another process that downloads the same file, and says so."""
    blob, progress, entered = cache.blob(DIGEST), RecordedProgress(), threading.Event()

    def download() -> None:
        with cache.locked(blob, progress):
            entered.set()

    lock_of(cache, blob).parent.mkdir(parents=True)
    with WeakFileLock(lock_of(cache, blob)):
        thread = threading.Thread(target=download)
        thread.start()
        assert not entered.wait(0.5)
    thread.join(10)
    assert entered.is_set()
    (message,) = progress.messages
    assert "another process is downloading abababababab; waiting" in message


def take_lock(cache: Cache) -> None:
    """Take and release the lock of a blob."""
    with cache.locked(cache.blob(DIGEST), RecordedProgress()):
        """Download."""


@pytest.mark.parametrize(
    ("folder", "use"),
    [
        ("blobs", lambda cache: cache.blob(DIGEST)),
        ("snapshots", lambda cache: cache.snapshot("0" * 40, "labels.txt")),
        ("refs", lambda cache: cache.remember("main", "0" * 40)),
        ("../.locks/models--alice--i3d", take_lock),
    ],
)
def test_folders_that_lead_out(
    cache: Cache, tmp_path: Path, folder: str, use: Callable[[Cache], object]
) -> None:
    """A folder of the cache that is a link out of it is refused, and nothing behind it changes."""
    victim = tmp_path / "victim"
    victim.mkdir()
    files = {"x.incomplete": "mine", ".x.part": "mine", "main": "mine"}
    for name, text in files.items():
        (victim / name).write_text(text)
    path = cache.folder / folder
    path.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()
    path.symlink_to(victim)
    cache.sweep([])
    with pytest.raises(OutputError, match="leads out of the Hub's cache; remove this link"):
        use(cache)
    assert {path.name: path.read_text() for path in victim.iterdir()} == files


def test_links_are_removed_themselves(cache: Cache, tmp_path: Path) -> None:
    """A part or a leftover that is a link is removed, not what it leads to."""
    victim = tmp_path / "notes.txt"
    victim.write_text("mine")
    blob = cache.blob(DIGEST)
    part = cache.part(blob)
    part.symlink_to(victim)
    cache.sweep([])
    assert not part.is_symlink()
    snapshot = cache.snapshot("0" * 40, "x")
    snapshot.parent.mkdir()
    snapshot.symlink_to(victim)
    blob.write_text("new")
    cache.link(snapshot, blob)
    assert (victim.read_text(), snapshot.read_text()) == ("mine", "new")
