"""Statistics of features: streaming, merging, and a sample of bounded size."""

import tracemalloc

import numpy as np
import pytest

from i3dzoo.errors import FormatError, ShapeError
from i3dzoo.fvd import Statistics, statistics_of
from i3dzoo.fvd.statistics import SAMPLE


def test_stream_is_numpys_covariance() -> None:
    """Vectors that come in batches of any size have NumPy's mean and covariance."""
    rows = np.random.default_rng(0).normal(1000, [1, 2, 3, 4, 5], (300, 5))
    statistics = Statistics()
    for part in np.split(rows, [0, 1, 2, 50, 299]):
        statistics.update(part)
    np.testing.assert_allclose(statistics.mean, rows.mean(0), rtol=1e-13)
    for ddof in (0, 1):
        expected = np.cov(rows, rowvar=False, ddof=ddof)
        np.testing.assert_allclose(statistics.covariance(ddof), expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(statistics.sample, rows)


def test_merge_is_the_union() -> None:
    """Two processes have the same statistics as one; empty ones add nothing."""
    rows = np.random.default_rng(1).normal(size=(200, 7))
    left, right = statistics_of(rows[:31], seed=1), statistics_of(rows[31:], seed=2)
    left.merge(right)
    left.merge(Statistics())
    whole = statistics_of(rows)
    assert left.count == 200
    np.testing.assert_allclose(left.mean, whole.mean, atol=1e-14)
    np.testing.assert_allclose(left.scatter, whole.scatter, atol=1e-11)
    np.testing.assert_array_equal(left.sample, rows)
    empty = Statistics()
    empty.merge(whole)
    np.testing.assert_array_equal(empty.scatter, whole.scatter)
    empty.update(rows[:1])
    assert whole.count == 200


def test_memory_is_flat() -> None:
    """A hundred thousand vectors take no more memory than the sample; it is uniform."""
    statistics = Statistics()
    tracemalloc.start()
    for start in range(0, 100_000, 1000):
        statistics.update(np.arange(start, start + 1000)[:, None] * np.ones(8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert statistics.count == 100_000
    assert len(statistics.sample) == SAMPLE
    assert not statistics.complete
    assert peak < 8 * SAMPLE * 9 * 4
    places = statistics.sample[:, 0]
    assert len(set(places)) == SAMPLE
    assert abs(places.mean() - 49_999.5) < 4 * 100_000 / np.sqrt(12 * SAMPLE)


def test_refusals() -> None:
    """Features of another shape or of another length are refused, and NaN."""
    statistics = statistics_of(np.zeros((3, 4)))
    with pytest.raises(ShapeError, match=r"have 5 numbers, those before 4"):
        statistics.update(np.zeros((3, 5)))
    with pytest.raises(ShapeError, match=r"expected features \[N, D\].* found \[3\]"):
        statistics.update(np.zeros(3))
    for value in (np.nan, np.inf, 1e300):
        with pytest.raises(FormatError, match="not finite or too large: the largest is"):
            statistics.update(np.array([[0, value, 0, 0]]))
    assert statistics.count == 3
