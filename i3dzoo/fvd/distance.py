"""Distances between two sets of feature vectors: the Fréchet distance and the kernel distance."""

import numpy as np

from i3dzoo.errors import OptionError, ShapeError
from i3dzoo.fvd.statistics import Floats, Statistics


def frechet_distance(real: Statistics, fake: Statistics, ddof: int = 1) -> float:
    """Return the squared Fréchet distance of two Gaussians, the number that FVD and FID are.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau, 1982; arXiv:1706.08500). With
    C1 = A^T A and C2 = B^T B, the trace of the root is the sum of the singular values of A B^T, so
    no root of a product is needed. A holds the centred vectors if there are fewer of them than
    dimensions, which is exact where the covariance has no full rank; otherwise it is the root of
    the covariance.

    Args:
        real: Statistics of one set, which may have another number of vectors than the other.
        fake: Statistics of the other set.
        ddof: 1 divides the covariance by N - 1, 0 by N.

    Raises:
        ShapeError: A set is empty, or they have different dimensions.
    """
    check_pair(real, fake)
    first, second = _factor(real, ddof), _factor(fake, ddof)
    shift = float(np.square(real.mean - fake.mean).sum())
    cross = float(np.linalg.svd(first @ second.T, compute_uv=False).sum())
    spread = float(np.square(first).sum() + np.square(second).sum())
    return max(shift + spread - 2 * cross, 0.0)


def kernel_distance(real: Floats, fake: Floats) -> float:
    """Return the unbiased squared MMD with the kernel (x.y / D + 1)^3: KVD, as KID is of images.

    Source: Binkowski et al., arXiv:1801.01401, section 4. All vectors are one block; values of
    equal distributions scatter around 0 and can be negative.

    Args:
        real: Feature vectors, float64 [N, D] with N >= 2.
        fake: Feature vectors, float64 [M, D] with M >= 2.

    Raises:
        ShapeError: The dimensions differ.
        OptionError: A set has fewer than 2 vectors.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ShapeError(
            f"expected features [N, D] and [M, D], found {list(real.shape)} and {list(fake.shape)}"
        )
    if min(len(real), len(fake)) < 2:
        raise OptionError(
            f"the kernel distance needs 2 vectors or more of each, found {len(real)} and "
            f"{len(fake)}"
        )

    def within(rows: Floats) -> float:
        kernel = _kernel(rows, rows)
        return float((kernel.sum() - np.trace(kernel)) / (len(rows) * (len(rows) - 1)))

    return within(real) + within(fake) - 2 * float(_kernel(real, fake).mean())


def check_pair(real: Statistics, fake: Statistics) -> None:
    """Check that two sets can be compared."""
    for name, statistics in (("real", real), ("fake", fake)):
        if not statistics.count:
            raise ShapeError(f"the {name} set has no features; expected 1 video or more")
    if real.dimensions != fake.dimensions:
        raise ShapeError(
            f"the real features have {real.dimensions} numbers, the fake ones {fake.dimensions}; "
            "expected features of one network and one layer"
        )


def _kernel(first: Floats, second: Floats) -> Floats:
    kernel: Floats = (first @ second.T / first.shape[1] + 1) ** 3
    return kernel


def _factor(statistics: Statistics, ddof: int) -> Floats:
    """Return A with A^T A = covariance: [min(N, D), D]."""
    factor: Floats
    if statistics.complete and statistics.count < statistics.dimensions:
        factor = statistics.sample - statistics.mean
        factor /= np.sqrt(max(statistics.count - ddof, 1))
    else:
        values, vectors = np.linalg.eigh(statistics.covariance(ddof))
        factor = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T
    return factor
