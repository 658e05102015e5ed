"""How sure a number is: bootstrap, and the value for infinitely many videos."""

from dataclasses import dataclass

import numpy as np

from i3dzoo.errors import OptionError
from i3dzoo.fvd.distance import frechet_distance
from i3dzoo.fvd.statistics import Floats, Statistics, statistics_of

_POINTS = 10
_LEAST = 10


@dataclass(frozen=True)
class Interval:
    """A confidence interval of 95 %, from `rounds` resamples."""

    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Extrapolation:
    """FVD for infinitely many videos: the intercept of a line through FVD against 1/N.

    Attributes:
        fvd: The intercept.
        slope: The bias of N videos is about slope / N.
        r2: Coefficient of determination of the fit.
        counts: N of each point.
        values: FVD of each point.
    """

    fvd: float
    slope: float
    r2: float
    counts: tuple[int, ...]
    values: tuple[float, ...]


def bootstrap(
    real: Statistics, fake: Statistics, ddof: int, rounds: int, seed: int = 0
) -> Interval:
    """Return the bootstrap's confidence interval of FVD.

    Both samples are drawn anew with repetition. A resample has fewer different vectors, so its
    distance is biased upwards, like that of a smaller sample; the percentiles are therefore moved
    by the difference between the mean of the rounds and the distance of the sample itself.

    Raises:
        OptionError: There are fewer than 2 rounds, or fewer than 2 vectors of a set.
    """
    first, second = real.sample, fake.sample
    if rounds < 2 or min(len(first), len(second)) < 2:
        raise OptionError(
            f"a bootstrap needs 2 rounds and 2 features of each set or more, found {rounds} rounds "
            f"of {len(first)} and {len(second)} features"
        )
    random = np.random.default_rng(seed)

    def resample(rows: Floats) -> Statistics:
        return statistics_of(rows[random.integers(0, len(rows), len(rows))])

    values = [frechet_distance(resample(first), resample(second), ddof) for _ in range(rounds)]
    middle = frechet_distance(real, fake, ddof) - float(np.mean(values))
    low, high = np.percentile(values, [2.5, 97.5]) + middle
    return Interval(max(float(low), 0.0), max(float(high), 0.0), rounds)


def extrapolate(
    real: Statistics, fake: Statistics, ddof: int, seed: int = 0
) -> Extrapolation | None:
    """Return FVD for infinitely many videos; None if a set has fewer than 10.

    FVD of N videos is biased by about a constant / N (Chong and Forsyth, arXiv:1911.07023). Random
    subsets of ten sizes, from a fifth of the smaller set to all of it, are drawn of both sets
    without repetition, and a line is fitted to FVD against 1/N. With fewer than some thousand
    videos the bias of 400 dimensions is not linear in 1/N yet.
    """
    first, second = real.sample, fake.sample
    most = min(len(first), len(second))
    if most < _LEAST:
        return None
    random = np.random.default_rng(seed)
    counts = np.unique(np.linspace(max(most // 5, 2), most, _POINTS).astype(int)).tolist()

    def subset(rows: Floats, count: int) -> Statistics:
        return statistics_of(rows[random.choice(len(rows), count, replace=False)])

    values = np.array(
        [frechet_distance(subset(first, count), subset(second, count), ddof) for count in counts]
    )
    inverse = 1 / np.array(counts)
    slope, intercept = np.polyfit(inverse, values, 1)
    spread = float(np.square(values - values.mean()).sum())
    rest = float(np.square(values - (intercept + slope * inverse)).sum())
    r2 = 1 - rest / spread if spread > 0 else 1.0
    return Extrapolation(float(intercept), float(slope), r2, tuple(counts), tuple(values.tolist()))
