"""Stores of files: folders, and addresses of fsspec; and claims of what several processes write."""

from pathlib import Path

import pytest

from i3dzoo.distributed import Shard
from i3dzoo.errors import DependencyError, OptionError, OutputError
from i3dzoo.files.exclusive import claim
from i3dzoo.files.stores import Store, open_store


@pytest.fixture(params=["folder", "address"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store in a folder, and one in the memory of fsspec."""
    return open_store(tmp_path if request.param == "folder" else f"memory://{tmp_path}/")


def test_files_appear_whole(store: Store) -> None:
    """A file is there when it was written, and not if writing fails or before it ends."""

    def fail_halfway() -> None:
        with store.write("a/b.bin") as file:
            file.write(b"half")
            assert not store.exists("a/b.bin")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fail_halfway()
    assert not store.exists("a/b.bin")
    with store.write("a/b.bin") as file:
        file.write(b"whole")
    assert store.exists("a/b.bin")
    assert store.read("a/b.bin") == b"whole"
    with store.write("a/b.bin") as file:
        file.write(b"another")
    assert store.read("a/b.bin") == b"another"
    with store.write("c.bin") as file:
        file.write(b"")
    assert store.names() == {"a/b.bin", "c.bin"}


def test_locations(tmp_path: Path) -> None:
    """Messages name the path or the address."""
    assert open_store(tmp_path).location("a.npy") == str(tmp_path / "a.npy")
    assert open_store("memory://x/").location("a.npy") == "memory://x/a.npy"
    assert open_store("memory://x").location() == "memory://x"


def test_unknown_addresses() -> None:
    """A protocol that nobody knows is an error, as is one whose package is missing."""
    with pytest.raises(OptionError, match="nothing://x: Protocol not known: nothing; expected"):
        open_store("nothing://x")
    with pytest.raises(DependencyError, match="dropbox://x: its protocol needs a package: "):
        open_store("dropbox://x")


def test_an_address_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong at an address is an error that names the file."""
    store = open_store("memory://x")

    def gone(*_: object, **__: object) -> None:
        raise TimeoutError("no answer\nfor a long time")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.put_file", gone)
    with (
        pytest.raises(OutputError, match=r"^memory://x/a\.npy: cannot be reached: no answer$"),
        store.write("a.npy") as file,
    ):
        file.write(b"1")


def test_claims(tmp_path: Path) -> None:
    """One holder has a claim, until it lets go; a store of addresses grants every one."""
    folder, remote = open_store(tmp_path), open_store("memory://claims")
    with folder.claim("a/x.npy") as first:
        assert first
        with folder.claim("a/x.npy") as second, folder.claim("a/y.npy") as other:
            assert (second, other) == (False, True)
        with claim(tmp_path / "a" / "x.npy") as third:
            assert not third
    with folder.claim("a/x.npy", waiting=print) as again:
        assert again
    with remote.claim("x") as one, remote.claim("x") as two:
        assert one
        assert two


def test_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every item is in exactly one shard, of a text or of a launcher's process."""
    items = list(range(11))
    parts = [Shard.parse(f"{number}/4").of(items) for number in (1, 2, 3, 4)]
    assert sorted(item for part in parts for item in part) == items
    assert Shard.of_process() == Shard(0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Shard.of_process().of(items) == parts[2]
    for wrong in ("0/4", "5/4", "3", "a/b", "1/0", "-1/4", ""):
        with pytest.raises(OptionError, match="expected NUMBER/COUNT, counted from 1"):
            Shard.parse(wrong)
