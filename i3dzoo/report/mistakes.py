"""Wrong predictions: the worst ones, and the classes that are confused most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from i3dzoo.evaluation.metrics import Metrics, log_softmax
from i3dzoo.evaluation.predictions import Predictions


@dataclass(frozen=True)
class WorstPrediction:
    """A wrong prediction: the true and the predicted class, and their probabilities in 0..1."""

    video: str
    label: int
    predicted: int
    p_label: float
    p_predicted: float


def worst_predictions(predictions: Predictions, count: int) -> list[WorstPrediction]:
    """Return the wrong predictions whose true class is least probable, worst first."""
    log_probabilities = log_softmax(predictions.logits)
    best = predictions.logits.argmax(1)
    own = log_probabilities[np.arange(len(best)), predictions.labels]
    wrong = np.flatnonzero(best != predictions.labels)
    order = wrong[np.argsort(own[wrong], kind="stable")][:count]
    return [
        WorstPrediction(
            predictions.videos[row],
            int(predictions.labels[row]),
            int(best[row]),
            float(np.exp(own[row])),
            float(np.exp(log_probabilities[row, best[row]])),
        )
        for row in order.tolist()
    ]


def confused_pairs(
    metrics: Metrics, labels: Sequence[str], count: int = 12
) -> list[tuple[str, str, int, int]]:
    """Return the classes that are confused most: true, predicted, number of errors, of videos."""
    errors = metrics.confusion.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, errors.shape)
    return [
        (labels[row], labels[column], int(errors[row, column]), int(metrics.confusion[row].sum()))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if errors[row, column]
    ]
