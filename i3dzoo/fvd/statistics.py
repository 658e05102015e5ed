"""Statistics of feature vectors: mean and covariance that stream in float64, and a sample."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import FormatError, ShapeError

Floats = npt.NDArray[np.float64]

SAMPLE: Final = 8192
"""Most feature vectors that are kept besides the mean and the covariance: 26 MB of 400 numbers."""

LARGEST: Final = 1e30
"""Largest absolute value of a feature: the kernel of KVD takes its sixth power."""

MAX_DIMENSIONS: Final = 8192
"""Most numbers of a feature vector; the covariance of this many takes 512 MiB."""


@dataclass(eq=False)
class Statistics:
    """Mean and covariance of feature vectors, and a uniform sample of at most `SAMPLE` of them.

    Memory does not grow with the number of vectors. The mean and the scatter are updated with Chan,
    Golub and LeVeque's formula for two groups (Algorithms for computing the sample variance, 1983).
    The sample holds the vectors with the smallest random keys, so the sample of two merged groups
    is one of their union.

    Attributes:
        count: Number of vectors, N.
        mean: float64 [D].
        scatter: Sum of (x - mean)(x - mean)^T, float64 [D, D].
        sample: float64 [min(N, SAMPLE), D]; all vectors in order as long as there are few.
        keys: The random key of each vector of the sample, float64 [min(N, SAMPLE)].
        seed: Seed of the keys; the processes of a run take different ones.
    """

    count: int = 0
    mean: Floats = field(default_factory=lambda: np.zeros(0))
    scatter: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    sample: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    keys: Floats = field(default_factory=lambda: np.zeros(0))
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng([self.seed, self.count])

    @property
    def dimensions(self) -> int:
        """D, or 0 as long as there are no vectors."""
        return len(self.mean)

    @property
    def complete(self) -> bool:
        """Whether the sample holds every vector."""
        return len(self.sample) == self.count

    def update(self, features: npt.ArrayLike) -> None:
        """Add feature vectors [n, D] of any float type.

        Raises:
            ShapeError: They are not a matrix, or have another D than those before.
            FormatError: They are not finite, or larger than `LARGEST`.
        """
        rows = np.array(features, dtype=np.float64)
        if rows.ndim != 2 or not 0 < rows.shape[1] <= MAX_DIMENSIONS:
            raise ShapeError(
                f"expected features [N, D] with D from 1 to {MAX_DIMENSIONS}, found "
                f"{list(rows.shape)}"
            )
        if not len(rows):
            return
        if not (largest := np.abs(rows).max()) <= LARGEST:  # also NaN
            raise FormatError(
                f"the features are not finite or too large: the largest is {largest:.3g}; expected "
                f"at most {LARGEST:g}"
            )
        mean = rows.mean(0)
        centred = rows - mean
        self._add(len(rows), mean, centred.T @ centred, rows, self._random.random(len(rows)))

    def merge(self, other: "Statistics") -> None:
        """Add the vectors of other statistics."""
        if other.count:
            self._add(other.count, other.mean, other.scatter, other.sample, other.keys)

    def covariance(self, ddof: int = 1) -> Floats:
        """Return the scatter divided by N - `ddof`, [D, D]; zeros if there is one vector."""
        return self.scatter / max(self.count - ddof, 1)

    def _add(self, count: int, mean: Floats, scatter: Floats, sample: Floats, keys: Floats) -> None:
        if not self.count:
            self.mean, self.scatter = np.zeros_like(mean), np.zeros_like(scatter)
            self.sample = np.zeros((0, len(mean)))
        if len(mean) != self.dimensions:
            raise ShapeError(
                f"the features have {len(mean)} numbers, those before {self.dimensions}; expected "
                "features of one network and one layer"
            )
        total, delta = self.count + count, mean - self.mean
        self.mean = self.mean + delta * (count / total)
        if self.count:
            weight = self.count * count / total
            self.scatter = self.scatter + scatter + weight * np.outer(delta, delta)
        else:
            self.scatter = scatter.copy()
        self.count = total
        self.sample, self.keys = np.concatenate([self.sample, sample]), np.append(self.keys, keys)
        if len(self.keys) > SAMPLE:
            kept = np.sort(np.argpartition(self.keys, SAMPLE)[:SAMPLE])
            self.sample, self.keys = self.sample[kept], self.keys[kept]


def statistics_of(features: npt.ArrayLike, seed: int = 0) -> Statistics:
    """Return the statistics of feature vectors [N, D]."""
    statistics = Statistics(seed=seed)
    statistics.update(features)
    return statistics
