"""Random predictions."""

import numpy as np

from i3dzoo.evaluation.predictions import PredictionHeader, VideoPrediction

HEADER = PredictionHeader("a" * 64, "center", "1")


def make_predictions(count: int, classes: int = 4, seed: int = 0) -> list[VideoPrediction]:
    """Make random predictions of that many videos."""
    logits = np.random.default_rng(seed).normal(size=(count, classes)).astype("f4")
    return [
        VideoPrediction(f"wave/{row}.avi", row % classes, values, row + 1)
        for row, values in enumerate(logits)
    ]
