"""SKILL.md is what the help says."""

import runpy
from pathlib import Path

from i3dzoo.cli import COMMANDS

ROOT = Path(__file__).parents[2]
AGENTS = runpy.run_path(str(ROOT / "docs" / "_site" / "agents.py"))


def test_generated() -> None:
    """The file is what the help of today gives; if not, run `make agents`."""
    text = (ROOT / "SKILL.md").read_text("utf-8")
    assert text == AGENTS["skill"](), "SKILL.md is out of date: run make agents"


def test_one_page() -> None:
    """Each is one page, with every command."""
    for text in (AGENTS["skill"](), AGENTS["llms"]()):
        assert len(text) < 8000
        assert all(f"`i3dzoo {command}" in text for command in COMMANDS)
