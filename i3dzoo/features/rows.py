"""Which frames each row of features has seen, and when they are on screen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from i3dzoo.features.planner import StreamPlan
from i3dzoo.features.settings import FeatureSettings
from i3dzoo.network.architecture import ENDPOINTS, POOLED, STEM, Variant
from i3dzoo.video.sampling import Clip, time_span

_POOLED: Final = (POOLED, "logits")


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a video.

    Attributes:
        frames: First and last frame of the source video, int64 [rows, 2], counted from 0.
        spans: Seconds at which the first frame starts and the last one ends, float64 [rows, 2]; NaN
            if the video has no frame rate.
        padded: Frames of the window that are zeros or repetitions, int64 [rows].
    """

    frames: npt.NDArray[np.int64]
    spans: npt.NDArray[np.float64]
    padded: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.frames)

    def table(self) -> list[dict[str, int | float | None]]:
        """Return a dictionary for each row, as the JSON has it."""
        columns = zip(self.frames.tolist(), self.spans.tolist(), self.padded.tolist(), strict=True)
        return [
            {
                "first_frame": first,
                "last_frame": last,
                "start": None if np.isnan(start) else start,
                "end": None if np.isnan(end) else end,
                "padded": padded,
            }
            for (first, last), (start, end), padded in columns
        ]


def rows_of(plan: StreamPlan, settings: FeatureSettings, steps: Sequence[int]) -> Rows:
    """Return the rows of a plan.

    Args:
        plan: The plan of the video.
        settings: How features are extracted.
        steps: Number of rows of each clip: 1, or the steps of the network if they are kept.
    """
    frames, spans, padded = [], [], []
    for clip, count in zip(plan.clips, steps, strict=True):
        span, stride = _step_span(len(clip.indices), count, settings)
        extra = _padding(clip)
        for step in range(count):
            first = min(clip.first + step * stride, clip.last)
            last = min(clip.first + step * stride + span - 1, clip.last)
            begin, end = time_span(plan.samples, first, last)
            frames.append((plan.samples.indices[first], plan.samples.indices[last]))
            spans.append((begin, end))
            padded.append(extra)
    rows = Rows(
        np.array(frames, np.int64).reshape(-1, 2),
        np.array(spans, np.float64).reshape(-1, 2),
        np.array(padded, np.int64),
    )
    if not settings.mean or not len(rows):
        return rows
    return Rows(
        np.array([[rows.frames[:, 0].min(), rows.frames[:, 1].max()]]),
        np.array([[rows.spans[:, 0].min(), rows.spans[:, 1].max()]]),
        np.array([rows.padded.sum()]),
    )


def step_count(frames: int, settings: FeatureSettings, variant: Variant) -> int:
    """Return the number of rows that the network makes of a clip of this many frames."""
    if settings.steps != "keep":
        return 1
    if settings.endpoint in _POOLED:
        return variant.steps(frames)
    return -(-frames // _endpoint_stride(settings.endpoint))


def _endpoint_stride(endpoint: str) -> int:
    """Return how many frames of input are one step of an endpoint."""
    place = ENDPOINTS.index(endpoint)
    halvings = (STEM[0].name, "MaxPool3d_4a_3x3", "MaxPool3d_5a_2x2")
    stride: int = 2 ** sum(place >= ENDPOINTS.index(name) for name in halvings)
    return stride


def _step_span(frames: int, count: int, settings: FeatureSettings) -> tuple[int, int]:
    """Return how many frames a row stands for, and how many are between rows."""
    if settings.steps != "keep":
        return frames, frames
    if settings.endpoint not in _POOLED:
        stride = _endpoint_stride(settings.endpoint)
        return stride, stride
    # pooling in windows averages two steps of 8 frames each
    return (8, 8) if count == -(-frames // 8) else (16, 8)


def _padding(clip: Clip) -> int:
    """Return how many frames of a clip are zeros or repetitions."""
    return len(clip.indices) - round(len(clip.indices) / clip.loops)
