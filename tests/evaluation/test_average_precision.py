"""Average precision: the numbers of scikit-learn and of Charades' scorer."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss

from i3dzoo.errors import ShapeError, TrainingError
from i3dzoo.evaluation.average_precision import average_precision, evaluate_multi_label

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(60, 9)) * 4
TARGETS = RANDOM.random((60, 9)) < np.linspace(0.02, 0.7, 9)
TARGETS[:, 4] = False  # a class without videos


@pytest.mark.parametrize("logits", [LOGITS, LOGITS.round()], ids=["distinct", "ties"])
def test_equals_scikit_learn(logits: Any) -> None:
    """Each class, the mean over the classes with videos, and the loss are scikit-learn's."""
    metrics = evaluate_multi_label(logits, TARGETS.astype(int))
    classes = [number for number in range(9) if TARGETS[:, number].any()]
    expected = [average_precision_score(TARGETS[:, c], logits[:, c]) for c in classes]
    assert metrics.per_class[classes].tolist() == pytest.approx(expected)
    assert np.isnan(metrics.per_class[4])
    assert metrics.mean_ap == pytest.approx(np.mean(expected))
    flat = 1 / (1 + np.exp(-logits.ravel()))
    assert metrics.loss == pytest.approx(log_loss(TARGETS.ravel(), flat))
    assert metrics.to_dict()["per_class"][4] is None
    assert "60 videos, mAP" in str(metrics)


def test_equals_the_definition() -> None:
    """Without ties it is the mean of the precision at each hit, as Charades' scorer adds it up."""
    scores = np.array([0.1, 0.9, 0.8, 0.3, 0.5])
    has_class = np.array([True, False, True, True, False])
    # ranks 2, 4 and 5 are hits
    assert average_precision(scores, has_class) == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)


@pytest.mark.parametrize(
    ("logits", "targets", "error", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2), int), ShapeError, r"in \[2, 3\].*found int64 \[2, 2\]"),
        (np.zeros((2, 3)), np.full((2, 3), 2), ShapeError, "as 0 or 1"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), ShapeError, "at least one of them 1"),
        (np.full((1, 2), np.nan), np.ones((1, 2), int), TrainingError, "video 0 are not finite"),
    ],
)
def test_refused(logits: Any, targets: Any, error: type[Exception], message: str) -> None:
    """Shapes that do not match, other classes than 0 and 1, and logits that are not finite."""
    with pytest.raises(error, match=message):
        evaluate_multi_label(logits, targets)
