"""Name the action in videos, as a whole or over time."""

from i3dzoo.predict.predict import Prediction, Score, predict_video, predict_videos
from i3dzoo.predict.timeline import Segment, Timeline, softmax, to_probabilities

__all__ = [
    "Prediction",
    "Score",
    "Segment",
    "Timeline",
    "predict_video",
    "predict_videos",
    "softmax",
    "to_probabilities",
]
