"""How good predictions are: accuracies, confusion matrix, cross-entropy, confidence interval.

Every function takes one row of logits a video, so that each video counts once, however many clips
its logits were averaged over. (NVIDIA TAO's `conv` evaluation adds a video's first clip twice and
counts a video again in every batch that it reaches into.)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import ShapeError, TrainingError

__all__ = [
    "Metrics",
    "confusion_matrix",
    "cross_entropy",
    "evaluate_logits",
    "log_softmax",
    "mean_class_accuracy",
    "per_class_accuracy",
    "top_k_accuracy",
    "wilson_interval",
]

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

_Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True, eq=False)
class Metrics:
    """How good the predictions of a set of videos are; all accuracies are in 0..1.

    Attributes:
        videos: How many there are.
        top1: Part of the videos whose highest logit is the label's.
        top5: Part of the videos whose label is among the five highest logits; 1 where there are
            five classes or fewer.
        mean_class: Mean of `per_class` over the classes that have videos.
        loss: Mean cross-entropy in nats.
        interval: Wilson's 95 % confidence interval of `top1`.
        per_class: Accuracy of each class, float64 [C]; NaN where a class has no video.
        confusion: int64 [C, C], true class by predicted class.
    """

    videos: int
    top1: float
    top5: float
    mean_class: float
    loss: float
    interval: tuple[float, float]
    per_class: npt.NDArray[np.float64]
    confusion: npt.NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON takes them; None for classes without videos."""
        return {
            "videos": self.videos,
            "top1": self.top1,
            "top5": self.top5,
            "mean_class": self.mean_class,
            "loss": self.loss,
            "interval": list(self.interval),
            "per_class": [None if np.isnan(value) else float(value) for value in self.per_class],
            "confusion": self.confusion.tolist(),
        }


def evaluate_logits(logits: Logits, labels: Labels) -> Metrics:
    """Compute all metrics.

    Args:
        logits: [N, C], one row a video; means over its clips.
        labels: Classes in 0..C-1, [N].

    Returns:
        The record.

    Raises:
        ShapeError: The shapes do not match, there is no video, or a label is no class.
        TrainingError: A logit is NaN or infinite.
    """
    logits, labels = _checked(logits, labels)
    confusion = confusion_matrix(logits, labels)
    hits = int(confusion.trace())
    return Metrics(
        videos=len(labels),
        top1=hits / len(labels),
        top5=top_k_accuracy(logits, labels, 5),
        mean_class=mean_class_accuracy(confusion),
        loss=cross_entropy(logits, labels),
        interval=wilson_interval(hits, len(labels)),
        per_class=per_class_accuracy(confusion),
        confusion=confusion,
    )


def top_k_accuracy(logits: Logits, labels: Labels, k: int) -> float:
    """Return the part of the videos whose label is among the `k` highest logits, 0..1.

    Of equal logits the lower class comes first, as in `argmax`; so top-1 is argmax's accuracy.

    Args:
        logits: [N, C].
        labels: Classes in 0..C-1, [N].
        k: At least 1; with C classes or more, the result is 1.

    Raises:
        ShapeError: The shapes do not match, there is no video, or a label is no class.
        TrainingError: A logit is NaN or infinite.
    """
    logits, labels = _checked(logits, labels)
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None] < labels[:, None]
    rank = (logits > own).sum(1) + ((logits == own) & earlier).sum(1)
    return float((rank < k).mean())


def confusion_matrix(logits: Logits, labels: Labels) -> npt.NDArray[np.int64]:
    """Count videos by true class (row) and predicted class (column), int64 [C, C].

    Args:
        logits: [N, C].
        labels: Classes in 0..C-1, [N].

    Raises:
        ShapeError: The shapes do not match, there is no video, or a label is no class.
        TrainingError: A logit is NaN or infinite.
    """
    logits, labels = _checked(logits, labels)
    classes = logits.shape[1]
    cells = labels * classes + logits.argmax(1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def per_class_accuracy(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the accuracy of each class, float64 [C] in 0..1; NaN where a class has no video."""
    totals = confusion.sum(1)
    known = totals > 0
    result = np.full(len(totals), np.nan)
    result[known] = confusion.diagonal()[known] / totals[known]
    return result


def mean_class_accuracy(confusion: npt.NDArray[np.int64]) -> float:
    """Return the mean accuracy over the classes that have videos, 0..1.

    A class without videos says nothing of the network and does not count, neither as 0 (as TAO
    has it) nor as 1.
    """
    return float(np.nanmean(per_class_accuracy(confusion)))


def cross_entropy(logits: Logits, labels: Labels) -> float:
    """Return the mean of -log softmax(logits)[label], in nats.

    Args:
        logits: [N, C].
        labels: Classes in 0..C-1, [N].

    Raises:
        ShapeError: The shapes do not match, there is no video, or a label is no class.
        TrainingError: A logit is NaN or infinite.
    """
    logits, labels = _checked(logits, labels)
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Return the logarithms of the probabilities, float64, over the last axis."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def wilson_interval(hits: int, total: int, z: float = _Z95) -> tuple[float, float]:
    """Return Wilson's confidence interval of a proportion, both ends in 0..1.

    Unlike the normal approximation it stays within 0..1 and has a width at 0 and at 1. Source:
    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.

    Args:
        hits: Successes, 0..total.
        total: Trials, at least 1.
        z: Quantile of the standard normal distribution; the default gives 95 %.

    Raises:
        ShapeError: There is no trial, or there are more hits than trials.
    """
    if total < 1 or not 0 <= hits <= total:
        raise ShapeError(f"{hits} hits of {total}; expected 0 <= hits <= total and total >= 1")
    p = hits / total
    denominator = 1 + z**2 / total
    centre = (p + z**2 / (2 * total)) / denominator
    half = z / denominator * np.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


def _checked(
    logits: Logits, labels: Labels
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    rows, classes = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if rows.ndim != 2 or classes.shape != rows.shape[:1] or 0 in rows.shape:
        raise ShapeError(
            f"logits are {list(rows.shape)} and labels {list(classes.shape)}; expected [N, C] and "
            "[N] with at least one video and one class"
        )
    if not np.issubdtype(classes.dtype, np.integer):
        raise ShapeError(f"labels are {classes.dtype}; expected whole numbers 0..{rows.shape[1]}")
    wrong = np.flatnonzero((classes < 0) | (classes >= rows.shape[1]))
    if wrong.size:
        raise ShapeError(
            f"video {wrong[0]} has label {classes[wrong[0]]}; expected 0..{rows.shape[1] - 1}, as "
            f"there are {rows.shape[1]} logits"
        )
    wrong = np.flatnonzero(~np.isfinite(rows).all(1))
    if wrong.size:
        raise TrainingError(
            f"the logits of video {wrong[0]} are not finite ({wrong.size} of {len(rows)} videos); "
            "the network has diverged or overflowed: train with a lower learning rate or in fp32"
        )
    return rows, classes.astype(np.int64)
