"""Recompute published values on this machine, without a video."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from i3dzoo.fvd.distance import frechet_distance
from i3dzoo.fvd.embedding import Embedder
from i3dzoo.fvd.statistics import Statistics, statistics_of
from i3dzoo.progress import SILENT, Progress

BLACK_AND_WHITE: Final = {
    10: 569.7712,
    11: 486.7538,
    12: 552.7665,
    13: 146.5149,
    14: 172.7756,
    15: 133.9079,
    16: 152.9020,
    17: 357.8508,
    18: 382.5499,
    19: 307.2146,
    20: 338.4991,
    21: 78.2509,
    22: 82.5375,
    23: 64.5454,
    24: 66.2918,
    25: 314.4980,
    26: 316.8284,
    27: 288.8393,
    28: 287.7067,
    29: 152.2415,
    30: 151.39244,
}
"""FVD of black and white clips by their frames, computed with TensorFlow.

Source: JunyaoHu/common_metrics_on_video_quality, README. All clips of a set are equal, so it is the
squared distance of two vectors of logits, whatever the protocol and the size of the frames.
"""

NOISE: Final = 10.13808536529541
"""FVD of two sets of 128 clips of noise, computed with TensorFlow.

Source: universome/fvd-comparison: `RandomState(1).rand(128, 16, 224, 224, 3)` and `RandomState(2)`,
in 0..1 and not rescaled.
"""

TOLERANCE: Final = 1e-4
"""Largest relative error that passes."""

_LENGTHS: Final = (10, 16, 24, 30)


@dataclass(frozen=True)
class Check:
    """A published value, and the one of this machine."""

    name: str
    expected: float
    found: float

    @property
    def error(self) -> float:
        """The relative error."""
        return abs(self.found / self.expected - 1)

    @property
    def passed(self) -> bool:
        """Whether the error is small enough."""
        return self.error <= TOLERANCE


def selftest(embedder: Embedder, progress: Progress = SILENT) -> Iterator[Check]:
    """Yield the published values with those of this machine: black and white, and noise."""
    progress.start("lengths of black and white clips", len(_LENGTHS), "items")
    for done, frames in enumerate(_LENGTHS, 1):
        found = black_and_white(embedder, frames)
        progress.update(done)
        yield Check(f"black and white, {frames} frames", BLACK_AND_WHITE[frames], found)
    yield Check("noise, 128 and 128 clips", NOISE, noise(embedder, 128, progress))


def black_and_white(embedder: Embedder, frames: int) -> float:
    """Return FVD of black and white clips."""
    clips = torch.ones(2, 3, frames, 224, 224)
    clips[0] = -1
    black, white = embedder.embed(clips).numpy()
    return frechet_distance(statistics_of(black[None]), statistics_of(white[None]))


def noise(embedder: Embedder, count: int, progress: Progress = SILENT) -> float:
    """Return FVD of the first clips of two sets of noise."""
    progress.start("clips of noise", 2 * count, "items")
    sets = []
    for seed in (1, 2):
        random, statistics = np.random.RandomState(seed), Statistics()
        for number in range(1, count + 1):
            clip = random.rand(16, 224, 224, 3).astype("f4")
            features = embedder.embed(torch.from_numpy(clip).permute(3, 0, 1, 2)[None])
            statistics.update(features.numpy())
            progress.update(number + count * (seed - 1))
        sets.append(statistics)
    real, fake = sets
    return frechet_distance(real, fake)
