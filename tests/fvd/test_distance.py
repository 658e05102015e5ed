"""The Fréchet and the kernel distance, against closed forms, SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy import linalg
from sklearn.metrics.pairwise import polynomial_kernel

from i3dzoo.errors import OptionError, ShapeError
from i3dzoo.fvd import Statistics, frechet_distance, kernel_distance, statistics_of
from i3dzoo.fvd.statistics import Floats


def _random(count: int, dimensions: int, seed: int) -> Floats:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return random.normal(size=(count, dimensions)) @ mixing + random.normal(size=dimensions)


def _with_sqrtm(real: Floats, fake: Floats, ddof: int) -> float:
    """The formula as the tools write it, with SciPy's root of a product."""
    first, second = (np.cov(rows, rowvar=False, ddof=ddof) for rows in (real, fake))
    root = linalg.sqrtm(first @ second).real
    shift = np.square(real.mean(0) - fake.mean(0)).sum()
    return float(shift + np.trace(first + second - 2 * root))


@pytest.mark.parametrize(("real", "fake"), [(300, 200), (90, 300)])
@pytest.mark.parametrize("ddof", [0, 1])
def test_scipy(real: int, fake: int, ddof: int) -> None:
    """Unequal counts, more of them than dimensions, or fewer in one set."""
    first, second = _random(real, 100, 1), _random(fake, 100, 2)
    distance = frechet_distance(statistics_of(first), statistics_of(second), ddof)
    assert distance == pytest.approx(_with_sqrtm(first, second, ddof), rel=1e-6)


def test_few_vectors_need_no_root() -> None:
    """The distance is the same from the vectors and from the covariance, which has no full rank."""
    first, second = statistics_of(_random(20, 400, 3)), statistics_of(_random(30, 400, 4))
    exact = frechet_distance(first, second)
    for statistics in (first, second):
        statistics.sample = statistics.sample[:0]  # as in statistics that were saved without
    assert frechet_distance(first, second) == pytest.approx(exact, rel=1e-6)


def test_closed_forms() -> None:
    """Equal sets, a shift, and Gaussians whose covariances commute."""
    rows = _random(500, 50, 5)
    shift = np.linspace(-1, 1, 50)
    same, moved = statistics_of(rows), statistics_of(rows + shift)
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(same, moved) == pytest.approx(np.square(shift).sum(), rel=1e-9)
    random = np.random.default_rng(6)
    mean, first, second = random.normal(size=30), random.random(30), random.random(30)
    expected = np.square(mean).sum() + np.square(np.sqrt(first) - np.sqrt(second)).sum()
    gaussians = [
        Statistics(1001, middle, np.diag(variances) * 1000)
        for middle, variances in ((np.zeros(30), first), (mean, second))
    ]
    assert frechet_distance(*gaussians) == pytest.approx(expected, rel=1e-9)


def test_one_video() -> None:
    """One vector has no covariance, so the distance is that of the means."""
    first, second = statistics_of(np.zeros((1, 3))), statistics_of(np.full((1, 3), 2.0))
    assert frechet_distance(first, second) == pytest.approx(12)


def test_kernel() -> None:
    """The estimator of KID, with scikit-learn's kernel; and no bias where the sets are alike."""
    first, second = _random(40, 16, 7), _random(25, 16, 8)
    xx, yy, xy = (
        polynomial_kernel(a, b, 3, 1 / 16, 1)
        for a, b in ((first, first), (second, second), (first, second))
    )
    expected = (xx.sum() - np.trace(xx)) / (40 * 39) + (yy.sum() - np.trace(yy)) / (25 * 24)
    assert kernel_distance(first, second) == pytest.approx(expected - 2 * xy.mean(), rel=1e-9)
    random = np.random.default_rng(9)
    alike = [kernel_distance(*random.normal(size=(2, 20, 16))) for _ in range(200)]
    assert abs(np.mean(alike)) < 4 * np.std(alike) / np.sqrt(200)


def test_refusals() -> None:
    """Sets that cannot be compared are named."""
    first = statistics_of(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match="the fake set has no features"):
        frechet_distance(first, Statistics())
    with pytest.raises(ShapeError, match="the real features have 3 numbers, the fake ones 4"):
        frechet_distance(first, statistics_of(np.zeros((2, 4))))
    with pytest.raises(OptionError, match="2 vectors or more of each, found 1 and 2"):
        kernel_distance(np.zeros((1, 3)), np.zeros((2, 3)))
