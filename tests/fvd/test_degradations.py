"""FVD of real clips grows with blur, noise, and dropped, shuffled and frozen frames."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.video_files import REAL

from i3dzoo.fvd import Embedder, Statistics, frechet_distance, statistics_of
from i3dzoo.video import read

pytestmark = pytest.mark.real_data

Clips = torch.Tensor
CLIPS = [name for name in REAL if not name.endswith("_flow.gif")]


def _blur(clips: Clips, level: int) -> Clips:
    size = (clips.shape[-2] // (2 * level), clips.shape[-1] // (2 * level))
    flat = clips.flatten(0, 1)
    coarse = torch.nn.functional.interpolate(flat, size, mode="area")
    return torch.nn.functional.interpolate(coarse, clips.shape[-2:]).reshape(clips.shape)


def _noise(clips: Clips, level: int) -> Clips:
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(clips.shape, generator=random)
    return (clips + 15 * level * noise).clamp(0, 255)


def _drop(clips: Clips, level: int) -> Clips:
    """Every 2nd or 8th frame only, repeated."""
    step = (2, 8)[level - 1]
    return clips[:, [number // step * step for number in range(clips.shape[1])]]


def _shuffle(clips: Clips, level: int) -> Clips:
    """Frames of each part of 2 or of 16 in another order."""
    size = (2, 16)[level - 1]
    random = np.random.default_rng(0)
    order = np.arange(clips.shape[1]).reshape(-1, size)
    order = order[:, ::-1] if size == 2 else random.permuted(order, axis=1)
    return clips[:, order.reshape(-1).copy()]


def _freeze(clips: Clips, level: int) -> Clips:
    """The last half, or all but the first two frames, stand still."""
    last = (8, 1)[level - 1]
    return clips[:, [min(number, last) for number in range(clips.shape[1])]]


def _statistics(embedder: Embedder, clips: Clips) -> Statistics:
    inputs = (clips * 2 / 255 - 1).transpose(1, 2)
    return statistics_of(np.concatenate([embedder.embed(clip[None]).numpy() for clip in inputs]))


def _clips(folder: Path, count: int, edge: int) -> Clips:
    """Return the first 16 frames of real clips, squashed to a size: [count, 16, 3, edge, edge]."""
    frames = [read(folder / "clips" / name, range(16)).frames for name in CLIPS[:count]]
    return torch.stack([
        torch.nn.functional.interpolate(
            torch.from_numpy(clip).permute(0, 3, 1, 2).float(), (edge, edge), mode="area"
        )
        for clip in frames
    ])  # fmt: skip


@pytest.fixture(
    scope="module", params=[(3, 80), pytest.param((len(CLIPS), 224), marks=pytest.mark.slow)]
)
def real(
    request: pytest.FixtureRequest, embedder: Embedder, test_data: Path
) -> tuple[Clips, Statistics]:
    """Real clips, few and small or all at the size of FVD, and their statistics."""
    clips = _clips(test_data, *request.param)
    return clips, _statistics(embedder, clips)


@pytest.mark.parametrize("degrade", [_blur, _noise, _drop, _shuffle, _freeze])
def test_grows(
    embedder: Embedder, real: tuple[Clips, Statistics], degrade: Callable[[Clips, int], Clips]
) -> None:
    """More of it is further away."""
    clips, statistics = real
    little, much = (
        frechet_distance(statistics, _statistics(embedder, degrade(clips, level)))
        for level in (1, 2)
    )
    assert 0.01 < little < much
