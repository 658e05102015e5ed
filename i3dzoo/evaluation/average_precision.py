"""Metrics of multi-label predictions: the average precision of each class, and their mean.

Average precision is the mean, over the videos of a class, of the precision among the videos that
score at least as high, as in Charades' official scorer (Charades_v1_classify.m) and scikit-learn's
`average_precision_score`. The scorer takes equal scores in the order of the videos; here they count
together, as in scikit-learn, so that the order does not matter.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import ShapeError
from i3dzoo.evaluation.metrics import Logits, check_logits

Targets = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class MultiLabelMetrics:
    """Metrics of the predictions of a set of multi-label videos, in 0..1.

    Attributes:
        videos: Number of videos.
        mean_ap: Mean of `per_class` over the classes that have videos (mAP).
        loss: Mean binary cross-entropy over videos and classes, in nats.
        per_class: Average precision of each class, float64 [C]; NaN for a class without videos.
    """

    videos: int
    mean_ap: float
    loss: float
    per_class: npt.NDArray[np.float64]

    def __str__(self) -> str:
        classes = int(np.isfinite(self.per_class).sum())
        return f"{self.videos} videos, mAP {self.mean_ap:.2%} over {classes} classes"

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as JSON values; the precision of a class without videos is None."""
        values = [None if np.isnan(value) else float(value) for value in self.per_class]
        return {**vars(self), "per_class": values}


def evaluate_multi_label(logits: Logits, targets: Targets) -> MultiLabelMetrics:
    """Compute the metrics from logits [N, C] and classes [N, C], 1 where a video has a class.

    Logits that are not finite raise a TrainingError, and shapes that do not match a ShapeError.
    """
    rows, wanted = check_logits(logits), np.asarray(targets)
    if wanted.shape != rows.shape or not np.isin(wanted, (0, 1)).all() or not wanted.any():
        raise ShapeError(
            f"expected the classes of {rows.shape[0]} videos as 0 or 1 in {list(rows.shape)}, at "
            f"least one of them 1; found {wanted.dtype} {list(wanted.shape)}"
        )
    has_class = wanted == 1
    per_class = np.array(
        [average_precision(*pair) for pair in zip(rows.T, has_class.T, strict=True)]
    )
    return MultiLabelMetrics(
        videos=len(rows),
        mean_ap=float(np.nanmean(per_class)),
        # log(1 + exp(x)) - x for a class that a video has
        loss=float((np.logaddexp(0, rows) - rows * has_class).mean()),
        per_class=per_class,
    )


def average_precision(scores: npt.NDArray[np.float64], has_class: npt.NDArray[np.bool_]) -> float:
    """Return the average precision of one class, from a score of each video; NaN without videos."""
    if not has_class.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each group of equals
    hits = np.cumsum(has_class[order])[last]
    precision, found = hits / (last + 1), np.diff(hits, prepend=0)
    return float((precision * found).sum() / has_class.sum())
