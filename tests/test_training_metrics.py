"""The metrics agree with scikit-learn, and every video counts once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    top_k_accuracy_score,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from i3dzoo.errors import ShapeError, TrainingError
from i3dzoo.training.metrics import (
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
    """On random predictions every metric is scikit-learn's."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, videos - classes)])
    logits = random.normal(size=(videos, classes)).astype(np.float32)
    logits[np.arange(videos), labels] += random.normal(size=videos)
    found = evaluate_logits(logits, labels)
    best, names = logits.argmax(1), np.arange(classes)
    assert found.top1 == pytest.approx(accuracy_score(labels, best), abs=1e-12)
    assert found.mean_class == pytest.approx(balanced_accuracy_score(labels, best), abs=1e-12)
    np.testing.assert_array_equal(
        found.confusion, sklearn_confusion_matrix(labels, best, labels=names)
    )
    expected = log_loss(labels, np.exp(log_softmax(logits)), labels=names)
    assert found.loss == pytest.approx(expected, rel=1e-6)
    for k in range(1, min(classes, 6)):
        theirs = top_k_accuracy_score(labels, logits, k=k, labels=names)
        assert top_k_accuracy(logits, labels, k) == pytest.approx(theirs, abs=1e-12)


def test_agrees_where_classes_have_no_videos() -> None:
    """A class without videos leaves the mean alone, as in scikit-learn, and is NaN by itself."""
    logits = np.array([[3.0, 1, 0, 0], [0, 3, 1, 0], [3, 1, 0, 0], [0, 0, 0, 9]])
    labels = np.array([0, 1, 1, 3])
    found = evaluate_logits(logits, labels)
    assert found.mean_class == pytest.approx((1 + 0.5 + 1) / 3)
    assert found.mean_class == balanced_accuracy_score(labels, logits.argmax(1))
    np.testing.assert_array_equal(found.per_class, [1, 0.5, np.nan, 1])
    assert found.to_dict()["per_class"] == [1, 0.5, None, 1]


def test_each_video_counts_once() -> None:
    """Videos of one clip and of many weigh the same; TAO's way of counting gives another number."""
    clips = {"a": [[2.0, 0], [2, 0], [2, 0]], "b": [[2.0, 0]], "c": [[0.0, 2]]}
    truth = {"a": 0, "b": 1, "c": 1}
    logits = np.array([np.mean(rows, axis=0) for rows in clips.values()])
    labels = np.array(list(truth.values()))
    found = evaluate_logits(logits, labels)
    assert found.videos == found.confusion.sum() == 3
    assert found.top1 == pytest.approx(2 / 3)
    per_clip = np.repeat(labels, [3, 1, 1])
    counted_by_clip = accuracy_score(per_clip, np.concatenate(list(clips.values())).argmax(1))
    assert counted_by_clip == pytest.approx(4 / 5)


def test_fewer_than_five_classes() -> None:
    """With five classes or fewer, top-5 is 1."""
    logits = np.eye(3)[[0, 1, 2]]
    assert evaluate_logits(logits, np.array([2, 0, 1])).top5 == 1
    assert evaluate_logits(logits, np.array([2, 0, 1])).top1 == 0


def test_ties_go_to_the_lower_class() -> None:
    """Equal logits are ranked as argmax ranks them."""
    logits = np.zeros((3, 3))
    labels = np.array([0, 1, 2])
    assert top_k_accuracy(logits, labels, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(logits, labels, 2) == pytest.approx(2 / 3)
    assert confusion_matrix(logits, labels)[:, 0].tolist() == [1, 1, 1]


def test_large_logits_do_not_overflow() -> None:
    """The loss of logits far outside exp's range is finite."""
    assert cross_entropy(np.array([[1e4, 0.0]]), np.array([1])) == pytest.approx(1e4)
    assert cross_entropy(np.array([[1e4, 0.0]]), np.array([0])) == 0


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
    """The interval is the published one."""
    assert wilson_interval(hits, total) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        ([[1.0, np.nan]], [0], TrainingError, "the logits of video 0 are not finite"),
        ([[1.0, 2], [1, np.inf]], [0, 0], TrainingError, r"video 1 are not finite \(1 of 2"),
        ([[1.0, 2]], [2], ShapeError, r"video 0 has label 2; expected 0\.\.1"),
        ([[1.0, 2]], [-1], ShapeError, r"video 0 has label -1; expected 0\.\.1"),
        ([[1.0, 2]], [0, 1], ShapeError, r"logits are \[1, 2\] and labels \[2\]"),
        ([[1.0, 2]], [0.0], ShapeError, "labels are float64; expected whole numbers"),
        (np.zeros((0, 2)), np.zeros(0, int), ShapeError, "at least one video"),
    ],
)
def test_refusals(
    logits: list[list[float]], labels: list[int], error: type[Exception], message: str
) -> None:
    """What is no prediction is refused, with the video named."""
    with pytest.raises(error, match=message):
        evaluate_logits(np.array(logits), np.array(labels))


def test_impossible_proportions_are_refused() -> None:
    """No trials, or more hits than trials, have no interval."""
    for hits, total in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ShapeError, match="expected 0 <= hits <= total"):
            wilson_interval(hits, total)
