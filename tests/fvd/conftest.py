"""The network of FVD, and small videos."""

from pathlib import Path

import numpy as np
import pytest
from helpers.pixel_embedder import PixelEmbedder
from helpers.video_files import write_video

from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.fvd import Embedder
from i3dzoo.pretrained import build


@pytest.fixture(scope="session")
def embedder(rgb_scratch: Path) -> Embedder:
    """The genuine network."""
    return Embedder(build(read_checkpoint(rgb_scratch)))


@pytest.fixture(scope="session")
def pixels() -> PixelEmbedder:
    """A stand-in for the network."""
    return PixelEmbedder()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three noisy videos of 12 frames, in two folders, and a text file."""
    root = tmp_path_factory.mktemp("videos")
    (root / "walk").mkdir()
    (root / "readme.txt").write_text("three videos")
    for number, name in enumerate(("a.mov", "b.mov", "walk/c.mov")):
        frames = np.random.default_rng(number).integers(0, 256, (12, 24, 32, 3), np.uint8)
        write_video(root / name, frames)
    return root
