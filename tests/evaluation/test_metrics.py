"""The metrics equal scikit-learn's, and every video counts once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from i3dzoo.errors import ShapeError, TrainingError
from i3dzoo.evaluation.metrics import (
    confusion_matrix,
    cross_entropy,
    evaluate_logits,
    log_softmax,
    top_k_accuracy,
    wilson_interval,
)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(3, 60), videos=st.integers(60, 300))
def test_agrees_with_scikit_learn(seed: int, classes: int, videos: int) -> None:
    """On random predictions, every metric equals scikit-learn's."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, videos - classes)])
    logits = random.normal(size=(videos, classes)).astype(np.float32)
    logits[np.arange(videos), labels] += random.normal(size=videos)
    metrics = evaluate_logits(logits, labels)
    best, names = logits.argmax(1), np.arange(classes)
    assert metrics.top1 == pytest.approx(sklearn.accuracy_score(labels, best), abs=1e-12)
    assert metrics.mean_class == pytest.approx(
        sklearn.balanced_accuracy_score(labels, best), abs=1e-12
    )
    confusion = sklearn.confusion_matrix(labels, best, labels=names)
    np.testing.assert_array_equal(metrics.confusion, confusion)
    expected = sklearn.log_loss(labels, np.exp(log_softmax(logits)), labels=names)
    assert metrics.loss == pytest.approx(expected, rel=1e-6)
    for k in range(1, min(classes, 6)):
        theirs = sklearn.top_k_accuracy_score(labels, logits, k=k, labels=names)
        assert top_k_accuracy(logits, labels, k) == pytest.approx(theirs, abs=1e-12)


def test_agrees_where_classes_have_no_videos() -> None:
    """A class without videos does not change the mean, as in scikit-learn; its accuracy is NaN."""
    logits = np.array([[3.0, 1, 0, 0], [0, 3, 1, 0], [3, 1, 0, 0], [0, 0, 0, 9]])
    labels = np.array([0, 1, 1, 3])
    metrics = evaluate_logits(logits, labels)
    assert metrics.mean_class == pytest.approx((1 + 0.5 + 1) / 3)
    assert metrics.mean_class == sklearn.balanced_accuracy_score(labels, logits.argmax(1))
    np.testing.assert_array_equal(metrics.per_class, [1, 0.5, np.nan, 1])
    assert metrics.to_dict()["per_class"] == [1, 0.5, None, 1]


def test_each_video_counts_once() -> None:
    """A video of many clips weighs as much as one of a single clip, unlike in TAO."""
    clips = [np.array(rows) for rows in ([[2.0, 0], [2, 0], [2, 0]], [[2.0, 0]], [[0.0, 2]])]
    labels = np.array([0, 1, 1])
    metrics = evaluate_logits(np.array([rows.mean(0) for rows in clips]), labels)
    assert metrics.videos == metrics.confusion.sum() == 3
    assert metrics.top1 == pytest.approx(2 / 3)
    by_clip = sklearn.accuracy_score(np.repeat(labels, [3, 1, 1]), np.concatenate(clips).argmax(1))
    assert by_clip == pytest.approx(4 / 5)


def test_special_logits() -> None:
    """Few classes, equal logits (the lower class comes first) and large logits have metrics."""
    three = evaluate_logits(np.eye(3), np.array([2, 0, 1]))
    assert (three.top1, three.top5) == (0, 1)
    labels, equal = np.array([0, 1, 2]), np.zeros((3, 3))
    assert top_k_accuracy(equal, labels, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(equal, labels, 2) == pytest.approx(2 / 3)
    assert confusion_matrix(equal, labels)[:, 0].tolist() == [1, 1, 1]
    large = np.array([[1e4, 0.0]])
    assert cross_entropy(large, np.array([1])) == pytest.approx(1e4)
    assert cross_entropy(large, np.array([0])) == 0


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # values of the published formula, to four digits
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(hits: int, total: int, low: float, high: float) -> None:
    """The interval equals the published one; it needs trials, and at most as many hits."""
    assert wilson_interval(hits, total) == pytest.approx((low, high), abs=6e-5)
    for wrong in ((total + 1, total), (-1, total), (0, 0)):
        with pytest.raises(ShapeError, match="expected 0 <= hits <= total"):
            wilson_interval(*wrong)


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        ([[1.0, np.nan]], [0], TrainingError, "the logits of video 0 are not finite"),
        ([[1.0, 2], [1, np.inf]], [0, 0], TrainingError, r"video 1 are not finite \(1 of 2"),
        ([[1.0, 2]], [2], ShapeError, r"video 0: .* 0\.\.1, .* found 2"),
        ([[1.0, 2]], [-1], ShapeError, r"video 0: .* 0\.\.1, .* found -1"),
        ([[1.0, 2]], [0, 1], ShapeError, r"found \[1, 2\] and \[2\]"),
        ([[1.0, 2]], [0.0], ShapeError, "labels: expected integers, found float64"),
        (np.zeros((0, 2)), np.zeros(0, int), ShapeError, "at least one video"),
    ],
)
def test_refusals(
    logits: list[list[float]], labels: list[int], error: type[Exception], message: str
) -> None:
    """Logits and labels that do not fit are refused, and the video is named."""
    with pytest.raises(error, match=message):
        evaluate_logits(np.array(logits), np.array(labels))
