"""`compute_fvd`: folders, arrays, features and statistics; lengths, saving and warnings."""

from pathlib import Path

import numpy as np
import pytest

from i3dzoo.errors import FormatError, OptionError, VideoError
from i3dzoo.fvd import Embedder, compute_fvd, frechet_distance, load_protocol, statistics_of
from i3dzoo.video import read

TF = load_protocol("tf").replace(frames=10)


def _noise(seed: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 24, 32, 3), np.uint8)


def test_folder_is_the_array(pixels: Embedder, folder: Path) -> None:
    """A folder of videos and the array of their frames have the same features."""
    files = [folder / "a.mov", folder / "b.mov", folder / "walk" / "c.mov"]
    array = np.stack([read(file).frames for file in files])
    same = compute_fvd(folder, array, TF, embedder=pixels)
    assert same.fvd == pytest.approx(0, abs=1e-6)
    assert same.real.count == same.fake.count == 3
    other = compute_fvd(folder, _noise(7, 5), TF, embedder=pixels)
    assert other.fvd > 1e-5
    assert other.fake.count == 5
    assert other.weights == pixels.digest


def test_lengths(pixels: Embedder) -> None:
    """The curve has what the same command computes with fewer frames."""
    real, fake = _noise(1), _noise(2)
    protocol = TF.replace(frames=12)
    curve = compute_fvd(real, fake, protocol, embedder=pixels, lengths=(9, 10))
    assert list(curve.lengths) == [9, 10, 12]
    assert curve.lengths[12] == curve.fvd
    alone = compute_fvd(real, fake, TF, embedder=pixels)
    assert curve.lengths[10] == pytest.approx(alone.fvd, rel=1e-5)
    with pytest.raises(OptionError, match="lengths: 13 is not from 9 to 12"):
        compute_fvd(real, fake, protocol, embedder=pixels, lengths=(13,))


def test_saved_statistics(pixels: Embedder, folder: Path, tmp_path: Path) -> None:
    """Statistics are written, reused without the videos being read, and refused elsewhere."""
    stats, fake = tmp_path / "real.safetensors", _noise(3)
    first = compute_fvd(folder, fake, TF, embedder=pixels, stats=stats, lengths=(9,))
    again = compute_fvd(folder, fake, TF, embedder=pixels, stats=stats)
    assert again.fvd == first.fvd
    assert any("saved statistics of 3 videos" in note for note in again.notes)
    assert compute_fvd(stats, fake, TF, embedder=pixels).fvd == first.fvd

    def refused(match: str, real: object = stats, protocol: object = TF, **options: object) -> None:
        with pytest.raises(OptionError, match=match):
            compute_fvd(real, fake, protocol, embedder=pixels, **options)  # type: ignore[arg-type]

    refused(r"real.safetensors: .* frames: expected 11, found 10", protocol=TF.replace(frames=11))
    refused("every: expected 2, found 1", folder, TF.replace(every=2, frames=6 + 3), stats=stats)
    refused("the videos", _noise(4), stats=stats)
    short = tmp_path / "short.safetensors"
    compute_fvd(folder, fake, TF, embedder=pixels, stats=short)
    refused("has no statistics of clips of 9 frames", folder, stats=short, lengths=(9,))
    other = type(pixels)("1" * 64)
    with pytest.raises(OptionError, match="the network's weights: expected"):
        compute_fvd(stats, fake, TF, embedder=other)
    data = bytearray(stats.read_bytes())
    data[-9] ^= 1
    stats.write_bytes(data)
    with pytest.raises(FormatError, match=r"real.safetensors"):
        compute_fvd(stats, fake, TF, embedder=pixels)


def test_features_need_no_network() -> None:
    """Features are compared as they are, and the network is not loaded."""

    def load() -> Embedder:
        raise AssertionError("the network was loaded")

    random = np.random.default_rng(0)
    real, fake = random.normal(size=(40, 400)), random.normal(1, 2, size=(30, 400))
    result = compute_fvd(real, fake, embedder=load, rounds=20)
    assert result.fvd == frechet_distance(statistics_of(real), statistics_of(fake))
    assert result.weights is None
    assert result.interval is not None
    assert result.interval.low < result.fvd < result.interval.high
    assert result.infinite is not None
    assert result.infinite.fvd < result.fvd
    assert any("30 features are too few for 400 dimensions" in text for text in result.warnings)
    styleganv = compute_fvd(real, fake, "styleganv", embedder=load)
    expected = frechet_distance(statistics_of(real), statistics_of(fake), ddof=0)
    assert styleganv.fvd == expected
    assert any("takes 2048 videos" in text for text in styleganv.warnings)
    assert any(
        "have 5 numbers" in text
        for text in compute_fvd(real[:, :5], fake[:, :5], embedder=load).warnings
    )


def test_precision(pixels: Embedder) -> None:
    """Another precision than the definition's gets a warning with its measured error."""
    half = type(pixels)()
    half.precision = "fp16"
    first, *others = compute_fvd(_noise(1), _noise(2), TF, embedder=half).warnings
    assert "fp32, from which it was up to 0.056% off" in first
    assert compute_fvd(_noise(1), _noise(2), TF, embedder=pixels).warnings == tuple(others)


def test_short_videos(pixels: Embedder, folder: Path) -> None:
    """A short video is refused or left out by name; a set without long ones is refused."""
    long = TF.replace(frames=13)
    with pytest.raises(VideoError, match=r"a.mov: has 12 frames; a clip of 13 needs 13"):
        compute_fvd(folder, folder, long, embedder=pixels)
    with pytest.raises(OptionError, match="all 3 videos are shorter than a clip of 13"):
        compute_fvd(folder, folder, long.replace(short_videos="skip"), embedder=pixels)


def test_some_videos(pixels: Embedder) -> None:
    """Videos are drawn by their seed, and it is said."""
    protocol = TF.replace(videos=2, offset="random", clips_per_video=2)
    result = compute_fvd(_noise(5), _noise(6, 2), protocol, embedder=pixels)
    assert (result.real.count, result.fake.count) == (4, 4)
    assert "real: 2 of 3 videos, drawn with seed 0" in result.notes


def test_extrapolation_and_interval() -> None:
    """The value for infinitely many videos and the interval are near the truth, unlike FVD."""
    random = np.random.default_rng(1)
    real, fake = random.normal(size=(2, 600, 20))
    fake[:, 0] += 1
    result = compute_fvd(real, fake, rounds=100)
    assert result.infinite is not None
    assert result.interval is not None
    assert abs(result.infinite.fvd - 1) < abs(result.fvd - 1) + 0.1
    assert result.infinite.slope > 0
    assert result.interval.low < result.fvd < result.interval.high
    assert result.infinite.counts[-1] == 600
