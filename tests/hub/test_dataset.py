"""Data sets of videos on the Hub: downloaded once, and read as folders and lists are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.hub_home import Home, Shell
from helpers.hub_server import Hub
from helpers.video_files import numbered, write_video

from i3dzoo.hub.dataset import is_dataset
from i3dzoo.video import read_index

NAME = "alice/clips"


@pytest.fixture
def commit(hub: Hub, tmp_path: Path) -> str:
    """A data set in the Hub's videofolder convention."""
    folder = tmp_path / "clips"
    for part, names in (("train", "abcd"), ("test", "ef")):
        (folder / part).mkdir(parents=True)
        for name in names:
            write_video(folder / part / f"{name}.mov", numbered(12 + ord(name) % 7, 32, 40))
        rows = "".join(f"{name}.mov,{'run' if ord(name) % 2 else 'wave'}\n" for name in names)
        (folder / part / "metadata.csv").write_text(f"file_name,label\n{rows}")
    (folder / "paper.pdf").write_bytes(b"not needed")
    return hub.put(hub.create(NAME), folder)


@pytest.fixture
def shell(home: Home, commit: str) -> Iterator[Shell]:
    """A child process on a Hub with the data set: one, since it imports PyTorch."""
    assert commit
    with home.shell() as shell:
        yield shell


def refuse(result: tuple[int, str, str]) -> str:
    """Return the message of a command that must fail."""
    code, out, err = result
    assert (code, out) == (1, ""), err
    return err.splitlines()[-1]


def test_prepare(home: Home, hub: Hub, shell: Shell) -> None:
    """The videos and lists are downloaded once, and are an index with the parts."""
    code, _, err = shell("prepare", "videos", f"hf://datasets/{NAME}", home.folder / "out")
    assert code == 0
    assert "downloads 8 files" in err
    index = read_index(home.folder / "out")
    assert index.classes == ("run", "wave")
    assert (len(index.select(1, "train")), len(index.select(1, "test"))) == (4, 2)
    assert all(entry.error is None for entry in index.entries)
    assert not any("paper.pdf" in path for _, path, _ in hub.log)
    before = len(hub.log)
    code, _, err = shell("prepare", "videos", f"hf://datasets/{NAME}@main", home.folder / "out")
    assert code == 0
    assert "downloads" not in err
    assert len(hub.log) == before + 1  # the list of files
    home.ok("prepare", "videos", f"hf://datasets/{NAME}", home.folder / "out", HF_HUB_OFFLINE="1")


def test_failures(home: Home, shell: Shell) -> None:
    """A data set that does not exist, or another revision, is named; nothing is written."""
    out = home.folder / "out"
    error = refuse(shell("prepare", "videos", "hf://datasets/alice/nothing", out))
    assert "hf://datasets/alice/nothing" in error
    assert "no such repository" in error
    error = refuse(shell("prepare", "videos", f"hf://datasets/{NAME}@v9", out))
    assert "no such branch, tag or commit" in error
    assert not out.exists()


def test_a_damaged_download(home: Home, hub: Hub, commit: str, shell: Shell) -> None:
    """A file that arrives damaged is named and downloaded again; at the second time it is an error.

    No damaged file gets a name, so the next run downloads it.
    """
    (file,) = (
        file
        for name, file in hub.repositories[NAME].commits[commit].tree.items()
        if name == "train/b.mov"
    )
    command = ("prepare", "videos", f"hf://datasets/{NAME}", home.folder / "out")
    hub.flip[file.sha256] = 2
    error = refuse(shell(*command))
    assert "train/b.mov has git-blob:" in error
    assert "damaged during the download" in error
    hub.flip[file.sha256] = 1
    code, _, err = shell(*command)
    assert code == 0
    assert "downloads" in err
    assert "fetching it again" in err
    index = read_index(home.folder / "out")
    assert [entry.error for entry in index.entries] == [None] * 6


LIES = {
    "ETag": '"../../../../../notes.txt"',
    "X-Linked-ETag": '"../../../../../notes.txt"',
    "X-Repo-Commit": "../../evil",
    "X-Linked-Size": str(1 << 40),
}


def test_a_server_that_lies(home: Home, hub: Hub, shell: Shell, tmp_path: Path) -> None:
    """Headers of a file that differ from the listing end the download; nothing is written."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "labels.txt").write_text("run\n")  # the Hub lies about this one
    hub.put(hub.repositories[NAME], tmp_path / "more")
    victim = home.folder / "notes.txt"
    victim.write_text("mine")
    for field, value in LIES.items():
        hub.lies[NAME] = {field: value}
        error = refuse(shell("prepare", "videos", f"hf://datasets/{NAME}", home.folder / "out"))
        assert "expected" in error, field
        assert victim.read_text() == "mine"
        assert not list(home.folder.rglob("*evil*"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf://datasets/a/b", True),
        (Path("hf://datasets/a/b@v1"), True),
        ("https://huggingface.co/datasets/a/b/tree/main", True),
        ("hf://a/b", False),
        ("a/b", False),
        ("datasets/a/b", False),
    ],
)
def test_names(name: str | Path, expected: bool) -> None:
    """Only an address of a data set is one; a path of two words is a path."""
    assert is_dataset(name) is expected
