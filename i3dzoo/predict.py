"""Naming the action in videos: from a path to labels with probabilities, over time if asked.

Logits are averaged before the softmax, over the network's own steps of time and over clips, as the
published network averages its logits over time (arXiv:1705.07750, section 2.4).
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from i3dzoo.architecture import MIN_FRAMES
from i3dzoo.engines import Engine, run_clips
from i3dzoo.errors import FormatError, I3DZooError, MetadataError, VideoError
from i3dzoo.metadata import Input
from i3dzoo.video import Clip, Samples, VideoInfo, load_clips, probe, sampling

__all__ = [
    "Failure",
    "Prediction",
    "Score",
    "Segment",
    "Timeline",
    "predict_video",
    "predict_videos",
]

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

FRAMES_A_STEP = 8
"""Frames from one step of the logits to the next; a step sees the 16 frames around its centre."""

MAX_WHOLE = 1024
"""Frames that go through the network at once when the whole video is one clip."""


@dataclass(frozen=True)
class Score:
    """One class.

    Attributes:
        label: Its name, or `class 17` where the checkpoint has no labels.
        index: Its position among the logits.
        probability: 0..1, over all classes.
        logit: Averaged over time and clips.
    """

    label: str
    index: int
    probability: float
    logit: float


@dataclass(frozen=True)
class Segment:
    """A stretch of a timeline throughout which one class comes first.

    Attributes:
        start: In the timeline's unit.
        end: In the timeline's unit.
        label: The class that comes first.
        index: Its position among the logits.
        probability: Its mean over the stretch, 0..1.
    """

    start: float
    end: float
    label: str
    index: int
    probability: float


@dataclass(frozen=True, eq=False)
class Timeline:
    """Probabilities over time, in the network's steps of 8 frames (0.32 s at 25 fps).

    The row of a step comes from the mean logits of the steps around it, as many as the network
    averages in one of its clips (7 steps of 64 frames), since single steps flicker.

    Attributes:
        unit: `s` for seconds; `frame` where the source has no frame rate.
        starts: Of each step, float64 [N]; each but the first is where the step before it ends.
        ends: Of each step, float64 [N].
        probabilities: float64 [N, classes], 0..1; each row sums to 1.
        labels: Of all classes.
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
        """Join neighbouring steps with the same first class."""
        first = self.probabilities.argmax(axis=1)
        edges = [0, *(np.flatnonzero(np.diff(first)) + 1).tolist(), len(first)]
        joined = []
        for begin, end in itertools.pairwise(edges):
            index = int(first[begin])
            lengths = self.ends[begin:end] - self.starts[begin:end]
            mean = np.average(self.probabilities[begin:end, index], weights=lengths)
            joined.append(
                Segment(
                    float(self.starts[begin]),
                    float(self.ends[end - 1]),
                    self.labels[index],
                    index,
                    float(mean),
                )
            )
        return joined


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says of a video.

    Attributes:
        info: The video.
        top: The most probable classes, best first.
        logits: float64 [classes], averaged over time and clips.
        clips: Where each clip begins and ends in seconds; Nones where the source has no rate.
        notes: What was sampled and how, and what is wrong with the video, one sentence each.
        timeline: Probabilities over time, where asked for.
    """

    info: VideoInfo
    top: tuple[Score, ...]
    logits: Floats
    clips: tuple[tuple[float | None, float | None], ...]
    notes: tuple[str, ...]
    timeline: Timeline | None = None

    @property
    def path(self) -> Path:
        """The video's file or folder."""
        return self.info.path


@dataclass(frozen=True)
class Failure:
    """A video that could not be predicted, and why."""

    path: Path
    error: I3DZooError


def predict_video(
    model: Engine,
    path: str | Path,
    *,
    clips: int | Literal["whole"] = 1,
    top_k: int = 5,
    timeline: bool = False,
    fps: float | Literal["model", "native"] = "model",
    spec: Input | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Name the action in a video.

    Args:
        model: From `i3dzoo.load`, used as it is, so in eval mode and on its device; or any other
            engine from `i3dzoo.engines.load_engine`.
        path: A video file, a folder of frames or a .npy array; see `i3dzoo.video.probe`.
        clips: How many clips are spread over the video, 1 being its centre; `whole` makes all its
            frames one clip, as the authors test. Ignored with `timeline`.
        top_k: Classes in `Prediction.top`.
        timeline: Run over the whole video and give probabilities over time too. The logits are
            then averaged over all of it.
        fps: Frames a second to sample at; `model` as its metadata says, `native` the video's own.
        spec: How frames become input, in place of the model's own.
        progress: Called with (done, all) after each run of the network.

    Raises:
        MissingFileError: There is nothing at this path.
        VideoError: The video cannot be decoded, or is not of the stream that the model takes.
        ShapeError: Its frames are smaller than the crop.
        MetadataError: The model has no metadata or no head, or gives no steps for a timeline.
        FormatError: The logits are not finite, so the weights are broken.
    """
    spec, labels = _describe(model, spec)
    if timeline and not getattr(model, "has_steps", True):
        raise MetadataError(
            "the exported model gives one answer a clip, and a timeline is made of steps; export "
            "it with --steps"
        )
    if top_k < 1:
        raise VideoError(f"top_k is {top_k}; expected 1 or more")
    info = probe(path, spec.channels)
    samples = _sample(info, spec, fps)
    chosen, note = _choose(samples, spec, clips, timeline, _has_fixed_frames(model))
    steps = []
    loaded = (pixels for _, pixels in load_clips(info, chosen, spec))
    for number, logits_of_clip in enumerate(run_clips(model, loaded), 1):
        steps.append(logits_of_clip.double().cpu().numpy())
        if progress is not None:
            progress(number, len(chosen))
    if timeline:
        kept, edges, unit = _join(samples, chosen, steps)
        logits = kept.mean(axis=0)
        near = softmax(_smooth(kept, max(_steps(spec.frames), 1)))
        line = Timeline(unit, edges[:-1], edges[1:], near, labels)
    else:
        logits, line = np.mean([step.mean(axis=0) for step in steps], axis=0), None
    if not np.isfinite(logits).all():
        raise FormatError(
            "the network's logits are not finite: its weights are broken; try `i3dzoo verify`"
        )
    return Prediction(
        info=info,
        top=_top(logits, labels, top_k),
        logits=logits,
        clips=tuple((clip.start, clip.end) for clip in chosen),
        notes=(*info.warnings, samples.note, note),
        timeline=line,
    )


def predict_videos(
    model: Engine,
    paths: Iterable[str | Path],
    *,
    clips: int | Literal["whole"] = 1,
    top_k: int = 5,
    timeline: bool = False,
    fps: float | Literal["model", "native"] = "model",
    progress: Progress | None = None,
) -> Iterator[Prediction | Failure]:
    """Name the action in several videos; one that fails is reported and the others go on.

    Args:
        model: As for `predict_video`, like the rest.
        paths: The videos.
        clips: Clips of each.
        top_k: Classes of each.
        timeline: Probabilities over time of each.
        fps: Frames a second to sample at.
        progress: Called with (done, all) after each run of the network, video by video.

    Yields:
        A prediction or a failure for each path, in order.

    Raises:
        MetadataError: The model has no metadata or no head.
    """
    _describe(model, None)
    for path in paths:
        try:
            yield predict_video(
                model,
                path,
                clips=clips,
                top_k=top_k,
                timeline=timeline,
                fps=fps,
                progress=progress,
            )
        except I3DZooError as error:
            yield Failure(Path(path), error)


def softmax(logits: Floats) -> Floats:
    """Return probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def _describe(model: Engine, spec: Input | None) -> tuple[Input, tuple[str, ...]]:
    if model.num_classes == 0:
        raise MetadataError("the model has no head, so it names no action; convert with one")
    if spec is None:
        if model.metadata is None:
            raise MetadataError("the model has no metadata; i3dzoo.load gives one that has")
        spec = model.metadata.input
    return spec, model.labels or tuple(f"class {i}" for i in range(model.num_classes))


def _sample(info: VideoInfo, spec: Input, fps: float | Literal["model", "native"]) -> Samples:
    if fps == "model":
        return sampling.resample(info, spec.fps)
    return sampling.resample(info, None if fps == "native" else fps)


def _has_fixed_frames(model: Engine) -> bool:
    """Whether the model was exported for clips of one length."""
    options = getattr(model, "options", None)
    return options is not None and "frames" not in options.dynamic


def _choose(
    samples: Samples, spec: Input, count: int | Literal["whole"], timeline: bool, fixed: bool
) -> tuple[list[Clip], str]:
    """Return the clips that go through the network, and a note on them."""
    if timeline:
        frames = max(spec.frames, MIN_FRAMES)
        if not fixed:
            frames = min(frames, len(samples))
        if MIN_FRAMES <= frames <= len(samples):
            # The last step of a window and the first of the next are one step apart.
            stride = FRAMES_A_STEP * _steps(frames)
            chosen = sampling.windows(samples, frames, stride)
            return chosen, f"{len(chosen)} windows of {frames} frames over the whole video"
        count = 1 if fixed else "whole"
    if count == "whole":
        if len(samples) > MAX_WHOLE:
            raise VideoError(
                f"{samples.info.path}: has {len(samples)} frames, and {MAX_WHOLE} at most go "
                "through the network at once; use several clips or the timeline instead"
            )
        chosen = [sampling.whole(samples, MIN_FRAMES)]
    else:
        chosen = sampling.clips(samples, max(spec.frames, MIN_FRAMES), count)
    return chosen, _clip_note(samples, chosen)


def _clip_note(samples: Samples, chosen: Sequence[Clip]) -> str:
    clip, frames = chosen[0], len(chosen[0].indices)
    if clip.loops > 1:
        return f"{len(samples)} frames looped {clip.loops:.3g}x to fill a clip of {frames}"
    if len(samples) == frames:
        return f"one clip of all {frames} frames"
    if len(chosen) > 1:
        return f"{len(chosen)} clips of {frames} frames spread over the video, logits averaged"
    if clip.start is None or clip.end is None:
        return f"the centre clip of {frames} frames, {clip.first} to {clip.last}"
    return f"the centre clip of {frames} frames, {clip.start:.1f} to {clip.end:.1f} s"


def _steps(frames: int) -> int:
    return -(-frames // FRAMES_A_STEP) - 1


def _join(
    samples: Samples, chosen: Sequence[Clip], steps: Sequence[Floats]
) -> tuple[Floats, Floats, Literal["s", "frame"]]:
    """Join the steps of all windows: their logits [N, classes], their N + 1 edges, and the unit.

    Step j of a window sees frames 8j to 8j + 15, so its centre is 8(j + 1); a step lasts from
    halfway to the centre before it to halfway to the next. Where the last window overlaps the one
    before it, what is there already stays; of a looped video, steps of its first round do.
    """
    centres: list[float] = []
    rows: list[Floats] = []
    for clip, logits in zip(chosen, steps, strict=True):
        for number, row in enumerate(logits, 1):
            centre = clip.first + FRAMES_A_STEP * number
            after = centres[-1] + FRAMES_A_STEP / 2 if centres else 0
            if not centres or after <= centre < len(samples):
                centres.append(centre)
                rows.append(row)
    middles = (np.asarray(centres[1:]) + np.asarray(centres[:-1])) / 2
    edges = np.asarray([0, *middles, len(samples)], dtype=np.float64)
    if samples.times is None or samples.duration is None:
        return np.stack(rows), edges, "frame"
    known = np.append(samples.times, samples.duration)
    return np.stack(rows), np.interp(edges, np.arange(len(known)), known), "s"


def _smooth(logits: Floats, width: int) -> Floats:
    """Average each row with its neighbours, `width` rows in all and fewer at both ends.

    A single step flickers: the network was trained on the mean over a clip's steps.
    """
    half = width // 2
    means = [logits[max(i - half, 0) : i + half + 1].mean(axis=0) for i in range(len(logits))]
    return np.stack(means)


def _top(logits: Floats, labels: tuple[str, ...], top_k: int) -> tuple[Score, ...]:
    probabilities = softmax(logits)
    order = np.argsort(-logits, kind="stable")[:top_k].tolist()
    return tuple(
        Score(labels[index], index, float(probabilities[index]), float(logits[index]))
        for index in order
    )
