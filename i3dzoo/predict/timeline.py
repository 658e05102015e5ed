"""Probabilities over time, from the logits of windows that cover a video."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from i3dzoo.checkpoints.metadata import Scores
from i3dzoo.video import Clip, Samples

Floats = npt.NDArray[np.float64]

STRIDE: Final = 8
"""Frames from one step of the logits to the next; a step sees the 16 frames around its centre."""


@dataclass(frozen=True)
class Segment:
    """A part of a timeline with the same most probable class; `index` is its position in logits."""

    start: float  # in the timeline's unit
    end: float
    label: str
    index: int
    probability: float  # mean of the segment, 0..1


@dataclass(frozen=True, eq=False)
class Timeline:
    """Probabilities over time, in the network's steps of 8 frames (0.32 s at 25 fps).

    The network is trained on the mean over a clip, and single steps flicker. The probabilities of a
    step therefore come from the mean logits of the steps around it, as many as in one clip.

    Attributes:
        unit: `s` for seconds; `frame` if the video has no frame rate.
        starts: Start of each step, float64 [N]; a step starts where the step before it ends.
        ends: End of each step, float64 [N].
        probabilities: float64 [N, classes], 0..1; each row sums to 1 if the scores are of softmax.
        labels: Names of all classes.
    """

    unit: Literal["s", "frame"]
    starts: Floats
    ends: Floats
    probabilities: Floats
    labels: tuple[str, ...]

    def strongest(self, count: int) -> list[int]:
        """Return the classes with the highest mean probability over time, highest first."""
        mean = np.average(self.probabilities, axis=0, weights=self.ends - self.starts)
        return [int(index) for index in np.argsort(-mean, kind="stable")[:count]]

    def segments(self) -> list[Segment]:
        """Join neighbouring steps with the same most probable class."""
        top = self.probabilities.argmax(axis=1)
        edges = [0, *(np.flatnonzero(np.diff(top)) + 1).tolist(), len(top)]
        segments = []
        for begin, end in itertools.pairwise(edges):
            index = int(top[begin])
            lengths = self.ends[begin:end] - self.starts[begin:end]
            mean = np.average(self.probabilities[begin:end, index], weights=lengths)
            start, stop = float(self.starts[begin]), float(self.ends[end - 1])
            segments.append(Segment(start, stop, self.labels[index], index, float(mean)))
        return segments


def join_windows(
    samples: Samples,
    windows: Sequence[Clip],
    logits: Floats,
    labels: tuple[str, ...],
    width: int,
    pooling: Literal["window", "global"] = "window",
    scores: Scores = "softmax",
) -> tuple[Timeline, Floats]:
    """Join the steps of all windows, in order, from their logits [windows, steps, classes].

    Step j of a window sees frames 8j to 8j + 15, so its centre is 8(j + 1); with global pooling it
    sees 8j to 8j + 7, so its centre is 8j + 4. A step lasts from halfway to the centre before it to
    halfway to the next. Where the last window overlaps the one before it, the earlier steps stay;
    of a looped video, the steps of the first round stay.

    Returns the timeline, whose probabilities are averaged over `width` steps, and the logits
    [N, classes] of its steps, which are not.
    """
    centres: list[float] = []
    rows: list[Floats] = []
    lead = STRIDE if pooling == "window" else STRIDE // 2
    for window, steps in zip(windows, logits, strict=True):
        for number, row in enumerate(steps):
            centre = window.first + lead + STRIDE * number
            earliest = centres[-1] + STRIDE / 2 if centres else 0
            if not centres or earliest <= centre < len(samples):
                centres.append(centre)
                rows.append(row)
    joined = np.stack(rows)
    middles = (np.asarray(centres[1:]) + np.asarray(centres[:-1])) / 2
    edges = np.asarray([0, *middles, len(samples)], dtype=np.float64)
    unit: Literal["s", "frame"] = "frame"
    if samples.times is not None and samples.duration is not None:
        seconds = np.append(samples.times, samples.duration)
        edges, unit = np.interp(edges, np.arange(len(seconds)), seconds), "s"
    half = width // 2  # there are fewer neighbours at both ends
    smooth = [joined[max(i - half, 0) : i + half + 1].mean(axis=0) for i in range(len(joined))]
    probabilities = to_probabilities(np.stack(smooth), scores)
    return Timeline(unit, edges[:-1], edges[1:], probabilities, labels), joined


def to_probabilities(logits: Floats, scores: Scores) -> Floats:
    """Return probabilities 0..1 of logits [..., classes]; see `Metadata.scores`."""
    if scores == "softmax":
        return softmax(logits)
    # exp(-log(1 + exp(-x))) neither overflows nor loses small values
    probabilities: Floats = np.exp(-np.logaddexp(0, -logits))
    return probabilities


def softmax(logits: Floats) -> Floats:
    """Return probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities
