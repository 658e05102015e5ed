"""`i3dzoo report` as a user runs it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from helpers.cli import run
from helpers.run_folders import EVIL, make_run
from helpers.video_files import numbered, write_video

Capture = pytest.CaptureFixture[str]


def test_report(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command replaces the report, draws the pictures, and prints the path last.

    Without Matplotlib there are no pictures, and a remark names the extra.
    """
    folder = make_run(tmp_path / "run")
    page, plots = folder / "report.html", [folder / "curves.png", folder / "confusion.png"]
    for installed in (True, False) if importlib.util.find_spec("matplotlib") else (False,):
        if not installed:
            monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        page.write_text("old")
        code, out, errors = run(capsys, "report", folder)
        assert (code, out) == (0, f"{page}\n")
        assert page.read_text().startswith("<!doctype html>")
        assert "30 videos" in errors
        assert "Next: " in errors
        assert ("pip install 'i3dzoo[plot]'" in errors) != installed
        for plot in plots:
            assert plot.exists() == installed
            plot.unlink(missing_ok=True)


def test_json(tmp_path: Path, capsys: Capture) -> None:
    """--json prints one document with the metrics; --no-plots, --data and -o take effect."""
    folder = make_run(tmp_path / "run")
    (tmp_path / EVIL).mkdir(parents=True)
    for number in range(30):
        write_video(tmp_path / EVIL / f"{number}.mov", numbered(3))
    other = tmp_path / "other.html"
    options = ("--json", "--no-plots", "--worst", 2, "--data", tmp_path)
    document = json.loads(run(capsys, "report", folder, "-o", other, *options)[1])
    assert document["report"] == str(other)
    assert document["plots"] == []
    assert document["metrics"]["videos"] == 30
    assert not (folder / "report.html").exists()
    assert other.read_text().count("<img") == 2


def test_not_a_run(tmp_path: Path, capsys: Capture) -> None:
    """A folder that is not a run folder is one line and exit code 1."""
    code, _, errors = run(capsys, "report", tmp_path)
    assert code == 1
    assert errors.startswith("i3dzoo: ")
    assert "run.json: the file does not exist" in errors
