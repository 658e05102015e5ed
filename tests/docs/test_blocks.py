"""Every block of code in the documentation is right."""

import ast
import json
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from helpers.cli import run
from helpers.docs import PAGES, ROOT, Block, blocks, check_command
from helpers.exported import small

from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.labels import find_labels
from i3dzoo.video.generate import Shape, generate, invent

PARSERS = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
LANGUAGES = {"python", "sh", "text", *PARSERS}


@pytest.fixture(scope="module")
def samples(genuine: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What blocks start from: videos, and a model of HMDB51's classes with small clips."""
    folder = tmp_path_factory.mktemp("samples")
    classes = ("brush_hair", "fencing")
    generate(folder / "clips", invent(2, classes), Shape(height=48, width=64, frames=20))
    first = sorted((folder / "clips").rglob("*.avi"))[0]
    for name in ("clip.mp4", "a.mp4", "b.mp4", "real/a.avi", "real/b.avi"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(first, folder / name)
    head = change_head(genuine, None, find_labels("hmdb51"), "match", seed=0)
    write_checkpoint(folder / "mine.safetensors", small(head, crop=32, frames=16))
    return folder


@pytest.fixture
def sandbox(
    samples: Path, rgb_scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder of its own for a page, where it finds the samples and the cached weights."""
    shutil.copytree(samples, tmp_path, dirs_exist_ok=True, copy_function=os.link)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("I3DZOO_CACHE", str(rgb_scratch.parents[1]))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_are_right(page: Path, request: pytest.FixtureRequest) -> None:
    """Blocks of a page run in order, or are parsed where a comment says why they do not run."""
    found = list(blocks(page))
    for block in found:
        _check(block)
    if any(block.runs for block in found):
        folder = request.getfixturevalue("sandbox")
        capsys = request.getfixturevalue("capsys")
        names: dict[str, Any] = {"__name__": "__main__"}
        for block in found:
            if block.title and "/" not in block.title and block.language in PARSERS:
                (folder / block.title).write_text(block.code)
            elif block.runs and block.language == "python":
                exec(compile(block.code, str(block), "exec"), names)  # noqa: S102 - our own pages
            elif block.runs:
                _run(block, capsys)


def _check(block: Block) -> None:
    """Check the words of a block without running it."""
    assert block.language in LANGUAGES, f"{block}: unknown language {block.language}"
    known = block.mark in ("", "run", "fails") or block.mark.startswith("not run: ")
    assert known, f"{block}: unknown comment {block.mark!r}"
    if block.language == "python":
        ast.parse(block.code, str(block))
    elif block.language in PARSERS and not block.code.lstrip().startswith("..."):
        PARSERS[block.language](block.code)
    for words in block.commands() if block.language == "sh" else ():
        try:
            check_command(words)
        except click.UsageError as error:
            raise AssertionError(
                f"{block}: i3dzoo {' '.join(words)}: {error.format_message()}"
            ) from error


def _run(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the commands of a shell block."""
    *rest, last = block.commands()
    for words in (*rest, last):
        code, _, err = run(capsys, *words)
        expected = 1 if block.mark == "fails" and words is last else 0
        assert code == expected, f"{block}: i3dzoo {' '.join(words)}: exit code {code}\n{err}"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predcit clip.mp4", "No such command"),
        ("predict clip.mp4 --modle x", "No such option"),
        ("export x --to onxx", "is not one of"),
        ("export x --frames many", "is not a valid integer"),
        ("convert", "Missing"),
        ("fvd a b c d", "unexpected arguments"),
    ],
)
def test_a_wrong_command_is_found(command: str, message: str) -> None:
    """A page with a mistyped command, option or value fails."""
    with pytest.raises(click.UsageError, match=message):
        check_command(command.split())
