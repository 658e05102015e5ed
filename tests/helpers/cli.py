"""Run the command line, in this process or in a child process."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from i3dzoo.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def succeed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    """Run a command that must succeed; return standard output and standard error."""
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    return out, err


def fail(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with exit code 1 and print nothing; return standard error."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    return err


def call(
    *arguments: object, cwd: Path | None = None, code: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, as `run_process` runs it, without the seconds of a start."""
    words = [*map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setenv("COLUMNS", "120")
        patch.setattr(sys, "argv", ["i3dzoo", *words])
        if cwd is not None:
            patch.chdir(cwd)
        with pytest.raises(SystemExit) as stop:
            main(words)
    returned = int(stop.value.code or 0)
    assert code in (None, returned), err.getvalue()
    return subprocess.CompletedProcess(words, returned, out.getvalue(), err.getvalue())


def run_process(
    *arguments: object, cwd: Path | None = None, code: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a child process; its exit code must be `code` unless that is None."""
    result = run_module("i3dzoo", *arguments, cwd=cwd)
    assert code in (None, result.returncode), result.stderr
    return result


def run_module(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a module with its arguments in a child process, with one thread."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
        check=False,
    )
