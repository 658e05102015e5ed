"""All commands are of one kind: help, examples, names of options, --json and --quiet."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from helpers.cli import run, succeed
from helpers.commands import leaf_commands
from helpers.exported import noisy

from i3dzoo.checkpoints.checkpoint import write_checkpoint
from i3dzoo.cli import COMMANDS, cli
from i3dzoo.cli._console import say, show_table
from i3dzoo.cli._exit import EXIT_CODES
from i3dzoo.cli.progress import show_progress

Capture = pytest.CaptureFixture[str]

LEAVES = dict(leaf_commands())
LAUNCHER = "tao action_recognition"
"""Its options and its output are those of NVIDIA TAO's launcher."""

OWN = {path: command for path, command in LEAVES.items() if path != LAUNCHER}


def options(command: click.Command) -> list[click.Option]:
    """Return the options of a command."""
    return [option for option in command.params if isinstance(option, click.Option)]


@pytest.mark.parametrize("path", LEAVES)
def test_help(path: str) -> None:
    """The help begins with a sentence and has examples that click accepts; options have a help."""
    command = LEAVES[path]
    text = command.help or ""
    assert re.match(r"[A-Z][^.]*[.:]", text), text
    shown = text.partition("Examples:\n")[2].splitlines()
    examples = [line.strip() for line in shown if line.strip().startswith("i3dzoo ")]
    assert examples, "there are no examples"
    assert any(example.startswith(f"i3dzoo {path}") for example in examples)
    for option in options(command):
        assert option.help, option.name
        assert option.help.rstrip()[-1] in ".])", option.help


@pytest.mark.parametrize("path", LEAVES)
def test_examples_are_accepted(path: str) -> None:
    """Every option in an example exists."""
    known = {name for option in options(LEAVES[path]) for name in option.opts}
    known |= {name for option in options(LEAVES[path]) for name in option.secondary_opts}
    for line in (LEAVES[path].help or "").splitlines():
        if line.strip().startswith(f"i3dzoo {path} "):
            words = shlex.split(line, comments=True)
            given = [word.partition("=")[0] for word in words if word.startswith("--")]
            assert set(given) <= known | {"--help"}, line


@pytest.mark.parametrize("path", OWN)
def test_names_of_options(path: str) -> None:
    """Names are words joined by hyphens, and one letter means the same in all commands."""
    letters = {"-o": "--output", "-e": "--spec", "-q": "--quiet", "-h": "--help", "-n": "--dry-run"}
    for option in options(OWN[path]):
        for name in (*option.opts, *option.secondary_opts):
            if name.startswith("--"):
                assert re.fullmatch(r"--[a-z0-9]+(-[a-z0-9]+)*", name)
            else:
                assert letters[name] in option.opts


@pytest.mark.parametrize("path", LEAVES)
def test_json_and_quiet(path: str) -> None:
    """Programs can ask every command for JSON, and nobody has to read remarks."""
    flags = {name: option for option in options(LEAVES[path]) for name in option.opts}
    for name in ("--quiet",) if path == LAUNCHER else ("--quiet", "--json"):
        assert flags[name].is_flag
    assert flags["--quiet"].help == "Print only the result and errors: no remarks, no progress."
    if path != LAUNCHER:
        assert flags["--json"].help == "Print one JSON document on standard output."


@pytest.mark.parametrize("path", LEAVES)
def test_wrong_usage(capsys: Capture, path: str) -> None:
    """An option that does not exist is named, with where to look; the exit code is 2."""
    code, out, err = run(capsys, *path.split(), "--no-such-option")
    assert (code, out) == (2, "")
    assert err.startswith(f"Usage: i3dzoo {path} ")
    assert f"Try 'i3dzoo {path} --help' for help." in err
    assert "\ni3dzoo: No such option" in err
    assert "'--no-such-option'" in err


def test_summaries() -> None:
    """The list of commands has one sentence for each, in the order of the work."""
    for name, summary in COMMANDS.items():
        assert re.fullmatch(r"[A-Z].*[^ ]\.", summary), name
        assert cli.get_command(click.Context(cli), name) is not None


@pytest.mark.parametrize(
    "arguments",
    [
        "list",
        "info rgb_imagenet",
        "info x.safetensors --tensors",
        "identify x.safetensors",
        "verify x.safetensors",
        "convert x.safetensors new.safetensors --dry-run",
        "convert x.safetensors new.safetensors",
        "recipes ls",
        "recipes show cpu",
        "recipes copy cpu mine.yaml",
        "presets ls",
        "layouts show canonical",
        "cache ls",
        "cache verify",
        "cache prune --yes",
    ],
)
def test_json_is_one_document(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: str
) -> None:
    """With --json and --quiet, standard output is one document, and standard error is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path / "cache"))
    write_checkpoint(tmp_path / "x.safetensors", noisy("rgb", 5))
    out, err = succeed(capsys, *arguments.split(), "--json", "--quiet")
    assert json.loads(out) is not None
    assert err == ""


@pytest.mark.parametrize(
    "arguments", [["list"], ["recipes", "ls"], ["cache", "ls"], ["info", "rgb_imagenet"]]
)
def test_quiet(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    """With --quiet, standard error is empty and the result is the same."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x.safetensors").touch()
    out, err = succeed(capsys, *arguments)
    assert err
    assert succeed(capsys, *arguments, "--quiet") == (out, "")
    assert succeed(capsys, *arguments)[1] == err  # the option of one command ends with it


def test_quiet_errors(capsys: Capture) -> None:
    """With --quiet, errors and wrong usage are shown as without."""
    for arguments, code in ((["info", "nothing"], 1), (["info", "--nothing"], 2)):
        expected = run(capsys, *arguments)
        assert expected[0] == code
        assert expected[2]
        assert run(capsys, arguments[0], "--quiet", *arguments[1:]) == expected


def test_quiet_progress(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress and remarks are left out, errors of single inputs are not."""
    monkeypatch.setattr("i3dzoo.cli._console._Output.quiet", True)
    with show_progress() as progress:
        progress.start("videos", 10, "items")
        progress.update(10)
        progress.message("a remark")
        progress.message("i3dzoo: x.mp4: cannot be read")
    say("a remark")
    assert capsys.readouterr().err == "i3dzoo: x.mp4: cannot be read\n"


def test_time_left(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of progress show the time left, from what was done until now."""
    now = [100.0]
    monkeypatch.setattr("i3dzoo.cli.progress.time.monotonic", lambda: now[0])
    with show_progress() as progress:
        progress.start("videos", 100, "items")
        now[0] += 60
        progress.update(25)
        now[0] += 115
        progress.update(99)
    assert capsys.readouterr().err == "  25 of 100 videos, 0:03:00 left\n  99 of 100 videos\n"


def test_exit_codes_are_documented() -> None:
    """The codes that commands can end with are in one table."""
    assert set(EXIT_CODES) == {0, 1, 2, 70, 130, 141, 143}


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    """On a terminal, tables have colours unless NO_COLOR is set; in a pipe they never have."""
    pty = pytest.importorskip("pty")
    from rich.table import Table

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1") if no_color else monkeypatch.delenv("NO_COLOR", False)
    table = Table("name", header_style="red")
    table.add_row("x")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        show_table(table)
        shown = os.read(master, 65536).decode()
    os.close(master)
    assert ("\x1b[31m" in shown) is not no_color


def test_no_color_in_a_pipe(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to a pipe has no escape sequences, whatever the environment says."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = succeed(capsys, "list")
    assert "\x1b" not in out + err
    assert json.loads(succeed(capsys, "list", "--json")[0])
