"""Names that could mean two things: a zoo model or a file, a file or an address."""

import logging
from pathlib import Path

import pytest
from helpers.cli import fail, run

from i3dzoo.errors import FormatError, MissingFileError, UnknownNameError
from i3dzoo.fetch.find import find
from i3dzoo.files import open_input
from i3dzoo.text import web_address
from i3dzoo.video import probe

NAME = "rgb_scratch"


@pytest.fixture
def namesake(rgb_scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the current folder that has the name of a cached zoo model."""
    monkeypatch.setenv("I3DZOO_CACHE", str(rgb_scratch.parents[1]))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(b"mine")
    return path


def test_file_named_like_a_zoo_model(
    namesake: Path, rgb_scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The zoo model is taken and the remark names the other; ./NAME and a Path are the file."""
    with caplog.at_level(logging.WARNING, "i3dzoo"):
        assert find(f"./{NAME}") == Path(NAME)
        assert find(Path(NAME)) == namesake
        assert not caplog.messages
        assert find(NAME) == rgb_scratch
        namesake.unlink()
        namesake.mkdir()
        find(NAME)
        namesake.rmdir()
        find(NAME)
    assert caplog.messages == [
        f"{NAME}: the zoo model was taken; ./{NAME} is the {kind} of this name"
        for kind in ("file", "folder")
    ]


@pytest.mark.usefixtures("namesake")
@pytest.mark.parametrize("command", ["identify", "info"])
def test_commands_say_which_was_taken(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """A command says that it took the zoo model, and takes the file if it is asked to."""
    code, out, err = run(capsys, command, NAME)
    assert (code, err.splitlines()[0]) == (
        0,
        f"{NAME}: the zoo model was taken; ./{NAME} is the file of this name",
    )
    assert "400" in out
    assert f"{NAME}: has an unknown format" in fail(capsys, command, f"./{NAME}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "{}"),
        ("identify", "{}"),
        ("pull", "{}"),
        ("convert", "{}"),
        ("verify", "{}"),
        ("predict", "clip.mp4", "--model", "{}"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_addresses_are_no_models(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """An address that is not on the Hub is refused as one, and is shown as it was given."""
    url = "https://host.example/dir/x.safetensors?a=b"
    error = fail(capsys, *(word.format(url) for word in arguments))
    assert error.startswith(f"i3dzoo: {url}: is an address on the web")
    assert "https://huggingface.co/USER/NAME/resolve/REVISION/FILE); download it first" in error


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co.evil.example/a/b/resolve/main/x.pt",
        "https://huggingface.co/datasets/a/b/resolve/main/x.pt",
        "https://huggingface.co/a/b/resolve/main/../../x.pt",
        "s3://bucket/x.pt",
    ],
)
def test_addresses_of_other_things(url: str) -> None:
    """Data sets, other hosts and other schemes are no models."""
    with pytest.raises(UnknownNameError, match=r"is an address on the|is not an address on"):
        find(url)


def test_addresses_are_no_files() -> None:
    """Videos and other files are refused by their address, not as missing files."""
    url = "https://host.example/clip.mp4"
    for read in (probe, lambda path: open_input(path, FormatError), lambda path: probe(Path(path))):
        with pytest.raises(MissingFileError, match=rf"^{url}: is an address on the web; download"):
            read(url)
    assert web_address("C:/videos/x.mp4") is None
    assert web_address("C:\\x") is None
    assert web_address("a/b:/c") is None
    assert web_address("rtsp://host/x") == "rtsp://host/x"
