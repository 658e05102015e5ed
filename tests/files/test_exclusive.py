"""Files that several processes write, some of which are killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cli import fail, run_process
from helpers.disk import full_disk
from helpers.processes import holding, stopped
from helpers.video_data import SHAPE, small_lists

from i3dzoo.errors import OutputError
from i3dzoo.files import atomic_write
from i3dzoo.files.exclusive import exclusive, exclusive_folder
from i3dzoo.video import FrameCache, read_index
from i3dzoo.video.generate import generate

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no such locks")

Capture = pytest.CaptureFixture[str]


def write_elsewhere(path: Path) -> None:
    """Write a file in a process of its own."""
    code = (
        "import sys, pathlib, i3dzoo.files as f\nwith f.atomic_write(pathlib.Path(sys.argv[1])): 0"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


def names(folder: Path) -> list[str]:
    """Return the names in a folder, also of hidden files."""
    return sorted(os.listdir(folder))  # noqa: PTH208


class TestLitter:
    def test_of_a_killed_process(self, tmp_path: Path) -> None:
        """The next process that writes in the folder removes what a killed one left."""
        with holding("atomic_write", tmp_path / "a.bin") as process:
            process.kill()
            process.wait()
        (litter,) = names(tmp_path)
        (tmp_path / ".mine.part").touch()
        (tmp_path / litter.replace("-", "0-")).touch()  # of another machine
        write_elsewhere(tmp_path / "b.bin")
        assert names(tmp_path) == sorted([litter.replace("-", "0-"), ".mine.part", "b.bin"])

    def test_of_a_process_that_runs(self, tmp_path: Path) -> None:
        """What another process is writing stays, and becomes its file."""
        with holding("atomic_write", tmp_path / "a.bin"):
            write_elsewhere(tmp_path / "b.bin")
            assert len(names(tmp_path)) == 2
        assert names(tmp_path) == ["a.bin", "b.bin"]
        assert (tmp_path / "a.bin").read_bytes() == b"half"

    def test_of_cached_frames(self, tmp_path: Path) -> None:
        """A cache removes those of killed processes, and leaves those of other processes."""
        code = "import sys; from i3dzoo.files import temporary as t; "
        code += "t.temporary_folder('i3dzoo-frames', sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
        (dead,) = names(tmp_path)
        first, second = FrameCache(1, tmp_path), FrameCache(1, tmp_path)
        assert names(tmp_path) == sorted([first.folder.name, second.folder.name])
        assert dead not in names(tmp_path)
        first.close()
        second.close()
        assert names(tmp_path) == []


class TestLocks:
    def test_of_a_file(self, tmp_path: Path) -> None:
        """A second process is refused by name; the lock ends when the first is killed."""
        output = tmp_path / "a.bin"
        with holding("exclusive", output) as process:
            refusal = rf"a\.bin: process {process.pid} on .* is writing to it; wait"
            with pytest.raises(OutputError, match=refusal), exclusive(output):
                pass
            process.kill()
            process.wait()
        with exclusive(output):
            assert names(tmp_path) == [".a.bin.lock"]
        assert names(tmp_path) == []

    def test_waiting(self, tmp_path: Path) -> None:
        """A process that waits says so, and goes on when the other one ends."""
        remarks = []
        with holding("exclusive", tmp_path) as process:

            def waiting(remark: str) -> None:
                remarks.append(remark)
                process.kill()

            with exclusive(tmp_path, waiting):
                assert f"process {process.pid} on " in remarks[0]
                with pytest.raises(OutputError, match=f"process {os.getpid()} on"):
                    exclusive(tmp_path).__enter__()

    def test_not_inherited(self, tmp_path: Path) -> None:
        """A worker that outlives a killed process does not hold its lock."""
        code = (
            "import os, sys, time, pathlib, i3dzoo.files.exclusive as f\n"
            "with f.exclusive(pathlib.Path(sys.argv[1])):\n"
            "    if os.fork() == 0:\n"
            "        print('ready', flush=True)\n"
            "        sys.stdin.read()\n"
            "        os._exit(0)\n"
            "    time.sleep(60)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.kill()
            process.wait()
            with exclusive(tmp_path):
                assert process.stdin is not None

    def test_new_folder(self, tmp_path: Path) -> None:
        """A new folder in which nothing was written is removed, and any other stays."""
        with exclusive_folder(tmp_path / "a" / "b"):
            pass
        assert names(tmp_path / "a") == []
        with exclusive_folder(tmp_path / "a" / "b"), atomic_write(tmp_path / "a" / "b" / "c"):
            pass
        assert names(tmp_path / "a" / "b") == ["c"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six generated clips, with their lists."""
    folder = tmp_path_factory.mktemp("source")
    generate(folder, small_lists(2), SHAPE)
    return folder


class TestCommands:
    def test_prepare_twice(self, capsys: Capture, source: Path, tmp_path: Path) -> None:
        """The second of two equal commands is refused by name, and the first is complete."""
        out = tmp_path / "out"
        command = ("prepare", "hmdb51", source, out, "--layout", "frames", "--jobs", 1)
        with stopped(*command, at=out / ".lock") as first:
            error = fail(capsys, *command)
            assert f"{out}: process {first.pid} on" in error
        assert len(read_index(out).entries) == 6
        assert names(out) == [".journal.jsonl", "frames", "index.jsonl"]

    @pytest.mark.parametrize("command", ["generated", "finetune", "convert", "export"])
    def test_others(self, capsys: Capture, rgb_file: Path, tmp_path: Path, command: str) -> None:
        """A command does not write what another process is writing."""
        out = tmp_path / ("out.onnx" if command == "export" else "out")
        words: dict[str, tuple[object, ...]] = {
            "generated": ("prepare", "generated", out),
            "finetune": ("finetune", "x", "--data", "x", "--from", rgb_file, "-o", out),
            "convert": ("convert", rgb_file, out, "--to", "canonical"),
            "export": ("export", rgb_file, "--to", "onnx", "-o", out),
        }
        if command in ("generated", "finetune"):
            out.mkdir()
        with holding("exclusive", out) as process:
            assert f"{out}: process {process.pid} on" in fail(capsys, *words[command])
        assert names(tmp_path) == (["out"] if out.is_dir() else [])
        assert not out.is_dir() or names(out) == []

    def test_full_disk_in_a_worker(self, source: Path, tmp_path: Path) -> None:
        """A worker process that cannot write ends the command with the reason."""
        command = ("prepare", "hmdb51", source, tmp_path / "out", "--jobs", 2, "--layout", "frames")
        with full_disk(600):
            result = run_process(*command, code=1)
        assert "cannot be written: it is larger than the limit on files allows" in result.stderr
        assert "Traceback" not in result.stderr
        assert "frames/" in result.stderr
