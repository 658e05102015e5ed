"""Metrics of predictions: accuracies, confusion matrix, cross-entropy, confidence interval.

Each video has one row of logits, so it counts once, however many clips its logits are averaged
over. (NVIDIA TAO's `conv` evaluation adds a video's first clip twice, and counts a video again in
each batch that has some of its clips.)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import ShapeError, TrainingError

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Metrics:
    """Metrics of the predictions of a set of videos; accuracies are in 0..1.

    Attributes:
        videos: Number of videos.
        top1: Part of the videos whose label has the highest logit.
        top5: Part of the videos whose label is among the five highest logits; 1 if there are five
            classes or fewer.
        mean_class: Mean of `per_class` over the classes that have videos. A class without videos
            counts neither as 0, as in TAO, nor as 1.
        loss: Mean cross-entropy in nats.
        interval: Wilson's 95 % confidence interval of `top1`.
        per_class: Accuracy of each class, float64 [C]; NaN for a class without videos.
        confusion: Number of videos, int64 [C, C], true class by predicted class.
    """

    videos: int
    top1: float
    top5: float
    mean_class: float
    loss: float
    interval: tuple[float, float]
    per_class: npt.NDArray[np.float64]
    confusion: npt.NDArray[np.int64]

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.videos} videos, top-1 {self.top1:.2%} ({low:.1%} to {high:.1%}), "
            f"top-5 {self.top5:.2%}, mean class {self.mean_class:.2%}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as JSON values; the accuracy of a class without videos is None."""
        return {
            **vars(self),
            "interval": list(self.interval),
            "per_class": [None if np.isnan(value) else float(value) for value in self.per_class],
            "confusion": self.confusion.tolist(),
        }


def evaluate_logits(logits: Logits, labels: Labels) -> Metrics:
    """Compute all metrics from one row of logits for each video, [N, C], and its class in 0..C-1.

    Logits that are not finite raise a TrainingError, and shapes that do not match a ShapeError.
    """
    logits, labels = _check(logits, labels)
    confusion = confusion_matrix(logits, labels)
    hits = int(confusion.trace())
    with np.errstate(invalid="ignore"):
        per_class = confusion.diagonal() / confusion.sum(1)
    return Metrics(
        videos=len(labels),
        top1=hits / len(labels),
        top5=top_k_accuracy(logits, labels, 5),
        mean_class=float(np.nanmean(per_class)),
        loss=cross_entropy(logits, labels),
        interval=wilson_interval(hits, len(labels)),
        per_class=per_class,
        confusion=confusion,
    )


def top_k_accuracy(logits: Logits, labels: Labels, k: int) -> float:
    """Return the part of the videos whose label is among the `k` highest logits, 0..1.

    Of equal logits the lower class comes first, as in `argmax`, so top-1 is the accuracy of argmax.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    is_earlier = np.arange(logits.shape[1])[None] < labels[:, None]
    rank = (logits > own).sum(1) + ((logits == own) & is_earlier).sum(1)
    return float((rank < k).mean())


def confusion_matrix(logits: Logits, labels: Labels) -> npt.NDArray[np.int64]:
    """Count videos by true class (row) and predicted class (column), int64 [C, C]."""
    classes = logits.shape[1]
    cells = labels * classes + logits.argmax(1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def cross_entropy(logits: Logits, labels: Labels) -> float:
    """Return the mean of -log softmax(logits)[label], in nats."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Return the logarithms of the probabilities, float64, along the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % confidence interval of a proportion, both ends in 0..1.

    Unlike the normal approximation, it stays within 0..1 and has a width at 0 and at 1. Source:
    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    if total < 1 or not 0 <= hits <= total:
        raise ShapeError(f"{hits} hits of {total}; expected 0 <= hits <= total and total >= 1")
    z = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
    p = hits / total
    denominator = 1 + z**2 / total
    centre = (p + z**2 / (2 * total)) / denominator
    half = z / denominator * np.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


def check_logits(logits: Logits) -> npt.NDArray[np.float64]:
    """Return logits [N, C] in float64; raise an error if they are not finite, or not [N, C]."""
    rows = np.asarray(logits, dtype=np.float64)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ShapeError(
            f"expected logits [N, C] of at least one video and one class; found {list(rows.shape)}"
        )
    wrong = np.flatnonzero(~np.isfinite(rows).all(1))
    if wrong.size:
        raise TrainingError(
            f"the logits of video {wrong[0]} are not finite ({wrong.size} of {len(rows)} videos); "
            "the network has diverged or overflowed; train with a lower learning rate or in fp32"
        )
    return rows


def _check(logits: Logits, labels: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    classes, shape = np.asarray(labels), np.shape(logits)
    if len(shape) != 2 or classes.shape != shape[:1] or 0 in shape:
        raise ShapeError(
            f"expected logits [N, C] and labels [N] with at least one video and one class; found "
            f"{list(shape)} and {list(classes.shape)}"
        )
    if not np.issubdtype(classes.dtype, np.integer):
        raise ShapeError(f"labels: expected integers, found {classes.dtype}")
    wrong = np.flatnonzero((classes < 0) | (classes >= shape[1]))
    if wrong.size:
        raise ShapeError(
            f"video {wrong[0]}: expected a label in 0..{shape[1] - 1}, one for each logit; "
            f"found {classes[wrong[0]]}"
        )
    return check_logits(logits), classes.astype(np.int64)
