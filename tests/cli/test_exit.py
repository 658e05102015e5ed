"""What ends a command: exit codes, and one sentence whatever happens."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from helpers.cli import fail, run

from i3dzoo import cli
from i3dzoo.cli._console import cell, print_json, read_list, say, show
from i3dzoo.errors import FormatError, OptionError


def fail_with(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
    """Make every command do this."""
    command = click.Command("list", callback=action)
    monkeypatch.setattr(cli._Commands, "get_command", lambda *_: command)


def raising(error: BaseException) -> Callable[[], None]:
    """Return a function that raises an error."""

    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (TypeError("'int' object is not\niterable"), 70, "TypeError: 'int' object is not iterable"),
        (RecursionError("maximum depth"), 70, "RecursionError: maximum depth"),
        (AssertionError(), 70, "AssertionError"),
        (ValueError("\x1b[2J" + "x" * 9_000_000), 70, r"ValueError: \x1b[2Jxxx"),
        (BrokenPipeError(32, "Broken pipe"), 70, "Broken pipe"),
        (MemoryError(), 1, "out of memory: use smaller"),
        (OSError(28, "No space left on device", "out/a"), 1, "out/a: No space left on device"),
        (OSError(36, "File name too long", "nnn"), 1, "nnn: File name too long"),
        (FormatError("a.pt: is corrupt"), 1, "a.pt: is corrupt"),
        (OptionError("leave --a out"), 2, "leave --a out"),
        (click.UsageError("no \x1b]0;x\x07 here"), 2, r"no \x1b]0;x\x07 here"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (SystemExit(143), 143, ""),
    ],
)  # fmt: skip
def test_every_error_is_a_sentence_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    """An unforeseen error asks for a report and names --debug; no error has a traceback."""
    fail_with(monkeypatch, raising(error))
    found, out, err = run(capsys, "list")
    assert (found, out) == (code, "")
    assert text in err
    assert "Traceback" not in err
    assert "\x1b" not in err
    assert len(err) < 3000
    assert ("report this bug" in err and "i3dzoo --debug list" in err) == (code == 70)
    if code in (1, 70):
        assert err.startswith("i3dzoo: ")
        assert err.count("\n") == 1
    if code == 130:
        assert err == ""


def test_debug_shows_the_traceback_of_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The traceback is what a report needs; the exit code stays."""
    fail_with(monkeypatch, raising(TypeError("a\x1bb")))
    code, _, err = run(capsys, "--debug", "list")
    assert code == 70
    assert err.startswith("Traceback")
    assert r"TypeError: a\x1bb" in err


def python(code: str, **environment: str) -> subprocess.Popen[str]:
    """Start Python with pipes for its outputs."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, **environment},
    )


ENCODINGS = """
import click, os, sys
from i3dzoo import cli
from i3dzoo.cli._console import cell, print_json, say, show, show_table
def action():
    from rich.table import Table
    table = Table(box=None, show_header=False)
    table.add_row(cell(name))
    show(name); show_table(table, name); print_json({name: name}); say(name)
name = "caf\\u00e9 \\u2026 \\u30ab \\U0001f3f9 \\udcff"
cli._Commands.get_command = lambda *_: click.Command("list", callback=action)
cli.main(["list"])
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp932", "utf-8"])
def test_an_output_that_cannot_encode_a_name(encoding: str) -> None:
    """Characters that the encoding lacks are escaped, in every kind of output."""
    with python(ENCODINGS, PYTHONIOENCODING=encoding) as process:
        out, err = (stream.buffer.read() for stream in (process.stdout, process.stderr))  # type: ignore[union-attr] # pipes
    assert process.returncode == 0, err
    text = out.decode(encoding)
    lines = text.splitlines()
    assert lines[0] == lines[1] == lines[2].strip()
    assert r"\udcff" in lines[0]
    assert r"\U0001f3f9" in lines[0] or encoding == "utf-8"
    assert err.decode(encoding).strip() == lines[0]
    document = "\n".join(lines[3:])
    assert document.isascii()
    assert json.loads(document) == {"café … カ 🏹 \udcff": "café … カ 🏹 \udcff"}


def test_json_is_ascii_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON escapes what a terminal would obey, and reads back as it was."""
    name = "a\x1b[31m\x7f\x9b\u202e\n"
    print_json({"name": name, "infinite": float("inf")})
    out = capsys.readouterr().out
    assert out.isascii()
    assert not set(out) & {"\x1b", "\x7f"}
    assert json.loads(out) == {"name": name, "infinite": None}


def test_names_are_printable_in_remarks_results_and_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A label or a path cannot recolour or rewrite the terminal; a remark is cut."""
    say("a\x1b[31m" + "x" * 9_000_000 + "\nsecond")
    show("a\x1b[31m\u202e")
    captured = capsys.readouterr()
    assert captured.out == "a\\x1b[31m\\u202e\n"
    assert captured.err.startswith("a\\x1b[31mxxx")
    assert captured.err.endswith("xxx\nsecond\n")
    assert len(captured.err) < 3000
    assert cell("a\x1b\nb" + "x" * 999).plain.startswith("a\\x1b b")
    assert len(cell("x" * 999)) == 200


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "LONG", "x.safetensors"],
        ["convert", "FILE", "LONG"],
        ["convert", "FILE", "x.safetensors", "--labels", "LONG"],
        ["convert", "FILE", "x.safetensors", "--converter", "LONG"],
        ["identify", "LONG"],
        ["info", "LONG"],
        ["pull", "LONG"],
        ["report", "LONG"],
        ["prepare", "hmdb51", "LONG", "out"],
    ],
)
def test_a_name_that_is_too_long(
    arguments: list[str],
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A name of 300 characters is one sentence with the name, wherever it is passed."""
    monkeypatch.chdir(tmp_path)
    names = {"LONG": "n" * 300, "FILE": str(file)}
    err = fail(capsys, *(names.get(argument, argument) for argument in arguments))
    assert err.startswith(f"i3dzoo: {'n' * 300}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_of_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """A list is a text file of any editor, or standard input; blank lines do not count."""
    data = "Übung.mp4 \r\n\r\na b.mp4".encode(encoding)
    (tmp_path / "list").write_bytes(data)
    assert read_list(str(tmp_path / "list")) == ("Übung.mp4", "a b.mp4")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "ascii"))
    assert read_list("-") == ("Übung.mp4", "a b.mp4")


def test_a_list_that_is_not_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence names the list, and says how to save it."""
    (tmp_path / "list").write_bytes("Übung.mp4".encode("latin-1"))
    arguments = ("--list", tmp_path / "list", "--model", "x", "-o", tmp_path / "out")
    err = fail(capsys, "features", *arguments)
    assert "list: expected text in UTF-8, found other bytes at offset 0; save it as UTF-8" in err


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"]])
def test_standard_output_that_is_full_or_closed(arguments: list[str]) -> None:
    """A full disk is a sentence, and a reader that has gone is not an error of ours."""
    command = [sys.executable, "-m", "i3dzoo", *arguments]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 1
    assert result.stderr.startswith("i3dzoo: ")
    assert "No space left on device" in result.stderr
    assert result.stderr.count("\n") == 1
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


INTERRUPTED = """
import time
import click
from i3dzoo import cli
from i3dzoo.cli.progress import show_progress
from i3dzoo.files import atomic_write

def wait():
    with show_progress() as progress:
        progress.start("clips", 9, "items")
        progress.update(1)
        print("ready", flush=True)
        time.sleep(60)

cli._Commands.get_command = lambda *_: click.Command("list", callback=wait)
cli.main(["list"])
"""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children be interrupted, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_with_130() -> None:
    """Ctrl-C is what the user wants: no traceback, and the exit code that shells expect."""
    with python(INTERRUPTED) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_workers_too(tmp_path: Path) -> None:
    """A terminal sends SIGINT to every process of a command; none of them shows a traceback."""
    command = [sys.executable, "-m", "i3dzoo", "prepare", "generated", tmp_path / "out"]
    with subprocess.Popen(
        [*command, "--per-class", "300", "--classes", "fencing", "--jobs", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not list(tmp_path.rglob("*.avi")):
            time.sleep(0.05)
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.part"))
