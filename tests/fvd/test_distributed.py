"""Two processes compute what one does."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.pixel_embedder import PixelEmbedder, distances_of_pixels, run_fvd
from helpers.processes import as_ranks

from i3dzoo.fvd import compute_fvd, load_protocol

pytest.importorskip("accelerate", reason="the extra train is not installed")


def test_two_processes_are_one(tmp_path: Path) -> None:
    """The function and the metric, on every process, with odd and unequal counts."""
    random, paths = np.random.default_rng(0), {}
    for name, count in (("real", 7), ("fake", 4)):
        brightness = random.integers(0, 128, (count, 1, 3, 1, 1))
        videos = random.integers(0, 128, (count, 9, 3, 10, 12)) + brightness
        paths[name] = str(tmp_path / f"{name}.npy")
        np.save(paths[name], videos.astype("u1"))
    first, second = as_ranks(distances_of_pixels, *paths.values())
    assert first == second
    protocol = load_protocol("tf").replace(frames=9)
    alone = compute_fvd(*map(np.load, paths.values()), protocol, embedder=PixelEmbedder())
    assert first == pytest.approx([alone.fvd, alone.kvd, 7, alone.fvd], rel=1e-6)


def test_two_processes_of_the_command(folder: Path, tmp_path: Path) -> None:
    """The document is that of one process, in which the interval depends on the order of videos.

    Only the first process prints and writes.
    """
    fake, stats = tmp_path / "fake.npy", tmp_path / "real.safetensors"
    np.save(fake, np.random.default_rng(9).integers(0, 256, (5, 12, 24, 32, 3), np.uint8))
    options = ("--frames", 9, "--bootstrap", 9, "--offset", "random", "--json")
    alone = json.loads(run_fvd(folder, fake, *options).stdout)
    first, second = as_ranks(run_fvd, folder, fake, *options, "--stats", stats)
    assert second.stdout == second.stderr == ""
    assert first.stderr.count("features are too few") == 1
    document = json.loads(first.stdout)
    for name in ("fvd", "kvd", "interval"):
        assert document.pop(name) == pytest.approx(alone.pop(name), rel=1e-9)
    assert document.pop("lengths").keys() == alone.pop("lengths").keys()
    assert document == alone
    assert stats.exists()
