"""The tiles that are kept for a GPU: searched once, and again if they cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.progress import RecordedProgress

from i3dzoo.gpu_tiles import FOLDER, Setting, kept_or_searched
from i3dzoo.kernels.tiles import TIMED, Table

SETTING = Setting(gpu="GPU", dtype="torch.float16", channels=3, versions={"triton": "3.6.0"})


class Search:
    """A search that finds the tiles of an H100."""

    count = 0

    def search(self, _: object) -> Table:
        """Count the searches."""
        self.count += 1
        return TIMED


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    return tmp_path


def _change(change: Callable[[Any], object]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        document = json.loads(text)
        change(document["tables"])
        return json.dumps(document)

    return changed


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        _change(lambda tables: tables.pop("8")),
        _change(lambda tables: tables["1"].pop("Mixed_3b.1x1")),
        _change(lambda tables: tables["1"].update({"Mixed_3b.1x1": [1, 1, 1, 3, 64, 64, 4, 4]})),
        _change(lambda tables: tables["1"].update({"Mixed_3b.1x1": [1, 1, 1]})),
    ],
)
def test_searched_once(cache: Path, damage: Callable[[str], str]) -> None:
    """A search is kept by GPU and versions; a damaged file is searched anew and replaced."""
    search: Any = Search()
    progress = RecordedProgress()
    for _ in range(2):
        assert kept_or_searched(search, SETTING, progress) == TIMED
    assert search.count == 1
    assert sum("tuning the engine fused for GPU" in text for text in progress.messages) == 1
    kept_or_searched(search, SETTING.replace(gpu="another"), progress)
    assert search.count == 2
    for file in (cache / FOLDER).iterdir():
        file.write_text(damage(file.read_text()))
    for _ in range(2):
        assert kept_or_searched(search, SETTING, progress) == TIMED
    assert search.count == 3


def test_without_a_cache(cache: Path) -> None:
    """Where the cache cannot be written, a remark says so."""
    (cache / FOLDER).write_text("a file")
    search: Any = Search()
    progress = RecordedProgress()
    assert kept_or_searched(search, SETTING, progress) == TIMED
    assert "the cache cannot be written" in progress.messages[-1]
