"""Datasets that several tests read."""

from pathlib import Path

import pytest
from helpers.video_data import SHAPE, small_lists

from i3dzoo.video import Index
from i3dzoo.video.generate import generate
from i3dzoo.video.prepare import prepare


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve generated clips of three classes, with their lists."""
    folder = tmp_path_factory.mktemp("source")
    generate(folder, small_lists(), SHAPE)
    return folder


@pytest.fixture(scope="session")
def index(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The same clips, prepared."""
    return prepare("hmdb51", source, tmp_path_factory.mktemp("prepared")).index
