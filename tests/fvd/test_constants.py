"""Published values, and TF-Hub's own graph."""

import numpy as np
import pytest

from i3dzoo.fvd import Embedder, embed_videos, frechet_distance, load_protocol
from i3dzoo.fvd.selftest import (
    BLACK_AND_WHITE,
    NOISE,
    TOLERANCE,
    Check,
    black_and_white,
    noise,
    selftest,
)
from i3dzoo.fvd.video_sets import ArrayOfVideos


@pytest.mark.parametrize("frames", BLACK_AND_WHITE)
def test_black_and_white(embedder: Embedder, frames: int) -> None:
    """Black and white clips of every length have the published distance."""
    found = black_and_white(embedder, frames)
    assert found == pytest.approx(BLACK_AND_WHITE[frames], rel=TOLERANCE)


@pytest.mark.parametrize("protocol", ["tf", "common"])
def test_black_and_white_arrays(embedder: Embedder, protocol: str) -> None:
    """Also as arrays of any size, type and number, by several protocols."""
    black = np.zeros((1, 10, 40, 48, 3), np.uint8)
    white = np.ones((2, 3, 10, 56, 40), np.float32)
    chosen = load_protocol(protocol).replace(frames=10)
    sets = [
        embed_videos(embedder, ArrayOfVideos(name, array, value_range=value_range), chosen)
        for name, array, value_range in (("black", black, None), ("white", white, "0..1"))
    ]
    found = frechet_distance(*(embedded.statistics[10] for embedded in sets))
    assert found == pytest.approx(BLACK_AND_WHITE[10], rel=TOLERANCE)


def test_selftest(embedder: Embedder) -> None:
    """A check says pass or fail by its relative error."""
    assert Check("x", 10, 10.0009).passed
    assert not Check("x", 10, 10.0011).passed
    first = next(selftest(embedder))
    assert first.passed
    assert first.expected == BLACK_AND_WHITE[10]


def test_some_noise(embedder: Embedder) -> None:
    """The first two clips of both sets have the distance of this network in float64.

    TensorFlow's is 98.205 as well, see `test_hub_tensorflow`; no value of so few was published.
    """
    assert noise(embedder, 2) == pytest.approx(98.20543790508492, rel=1e-5)


@pytest.mark.slow
def test_noise(embedder: Embedder) -> None:
    """All 256 clips of noise have the published distance."""
    assert noise(embedder, 128) == pytest.approx(NOISE, rel=TOLERANCE)
