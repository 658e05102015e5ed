"""Predict the action in a video, from its path to labels with probabilities.

Logits are averaged before the softmax, over the network's steps in time and over clips, as the
published network averages its logits over time (arXiv:1705.07750, section 2.4).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from i3dzoo.checkpoints.metadata import Input, Scores, scores_of
from i3dzoo.engines.base import Engine, as_engine
from i3dzoo.engines.videos import run_videos
from i3dzoo.errors import FormatError, I3DZooError, MetadataError, VideoError
from i3dzoo.network.architecture import DEEPMIND, Variant
from i3dzoo.predict.timeline import STRIDE, Floats, Timeline, join_windows, to_probabilities
from i3dzoo.pretrained import InceptionI3d
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video import BadVideo, Clip, Samples, VideoInfo, sampling
from i3dzoo.video.pipeline import DecoderName, Planned
from i3dzoo.video.plan import Plan, resize_of

MAX_WHOLE: Final = 1024
"""The most frames in a clip that is a whole video."""


@dataclass(frozen=True)
class Score:
    """The score of one class; `index` is its position among the logits."""

    label: str  # `class 17` if the checkpoint has no labels
    index: int
    probability: float  # 0..1; see `Prediction.scores`
    logit: float  # averaged over time and clips


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for a video.

    Attributes:
        info: The video.
        top: The most probable classes, best first.
        logits: float64 [classes], averaged over time and clips.
        clips: Start and end of each clip in seconds; None if the video has no frame rate.
        notes: How the video was sampled, what is wrong with it, and what the probabilities mean if
            they are not shares of 1, one sentence each.
        timeline: Probabilities over time, if requested.
        scores: `softmax`: probabilities sum to 1 over all classes; `sigmoid`: each class has its
            own.
    """

    info: VideoInfo
    top: tuple[Score, ...]
    logits: Floats
    clips: tuple[tuple[float | None, float | None], ...]
    notes: tuple[str, ...]
    timeline: Timeline | None = None
    scores: Scores = "softmax"

    @property
    def path(self) -> Path:
        """The file or folder of the video."""
        return self.info.path


def predict_video(
    model: Engine | InceptionI3d,
    path: str | Path,
    *,
    progress: Progress = SILENT,
    **options: Any,
) -> Prediction:
    """Predict the action in a video.

    Examples:
        >>> import i3dzoo
        >>> prediction = i3dzoo.predict_video(i3dzoo.load("mine.safetensors"), "clip.mp4")
        >>> [score.label for score in prediction.top] in (["walk", "wave"], ["wave", "walk"])
        True

    Args:
        model: A network from `i3dzoo.load`, in eval mode, which runs on its device and in its
            dtype; or an engine from `i3dzoo.engines.base.load_engine`.
        path: A video file, a folder of frames or a .npy array; see `i3dzoo.video.probe`.
        progress: Shows the clips of the video, if there are several.
        options: The options of `predict_videos`.

    Raises:
        MissingFileError: There is no such file or folder.
        VideoError: The video cannot be decoded, or is not of the model's stream.
        ShapeError: Its frames are smaller than the crop.
        MetadataError: The model has no metadata or no head, or returns no steps for a timeline.
        FormatError: The logits are not finite, so the weights are damaged.
    """
    (result,) = predict_videos(model, [path], progress=progress, **options)
    if isinstance(result, BadVideo):
        raise result.error or VideoError(result.reason)
    return result


def predict_videos(
    model: Engine | InceptionI3d,
    paths: Sequence[str | Path],
    *,
    clips: int | Literal["whole"] = 1,
    top_k: int = 5,
    timeline: bool = False,
    fps: float | Literal["model", "native"] = "model",
    spec: Input | None = None,
    batch_size: int | None = None,
    decoder: DecoderName = "auto",
    progress: Progress = SILENT,
) -> Iterator[Prediction | BadVideo]:
    """Yield a prediction for each video in order, or the reason why there is none.

    Several videos are decoded at once, and their clips share batches.

    Args:
        model: As for `predict_video`.
        paths: The videos.
        clips: Number of clips spread over the video; 1 is its centre clip. `whole` makes all frames
            one clip, as in the authors' evaluation. Ignored with `timeline`.
        top_k: Number of classes in `Prediction.top`.
        timeline: Run over the whole video and return probabilities over time as well. The logits
            are then averaged over the whole video.
        fps: Frame rate to sample at; `model` is the rate in the model's metadata, `native` the
            video's own.
        spec: The input that the model expects; None takes it from the model's metadata.
        batch_size: Clips that run at once; None chooses by the device.
        decoder: What decodes video files: `nvdec` also uses the decoder of an NVIDIA GPU.
        progress: Shows the videos, or the clips if there is one video.

    Raises:
        MetadataError: The model has no metadata or no head, or returns no steps for a timeline.
        VideoError: `top_k` is less than 1.
    """
    engine = as_engine(model)
    spec, labels = _input_and_labels(engine, spec)
    if timeline and spec.sampling == "interval":
        raise MetadataError(
            "the model takes frames spread over the whole video, so it has no timeline; predict "
            "without one"
        )
    if timeline and not engine.has_steps:
        raise MetadataError(
            "the exported model returns no steps, which a timeline needs; export it with --steps"
        )
    if top_k < 1:
        raise VideoError(f"top_k is {top_k}; expected 1 or more")
    rate = spec.fps if fps == "model" else None if fps == "native" else fps
    predictor = _Predictor(engine, spec, labels, rate, clips, timeline, top_k)
    results = run_videos(
        engine,
        paths,
        predictor.plan,
        batch_size=batch_size,
        decoder=decoder,
        channels=spec.decoded,
        progress=progress,
    )
    for result in results:
        if isinstance(result, BadVideo):
            yield result
            continue
        try:
            yield predictor.prediction(result)
        except I3DZooError as error:
            yield BadVideo(result.video, str(error), error)


@dataclass(frozen=True, eq=False, kw_only=True)
class _ClipPlan(Plan):
    """The clips of a video, with what is said about them."""

    samples: Samples
    note: str


@dataclass(frozen=True)
class _Predictor:
    """Plans the clips of videos, and makes predictions of their logits."""

    engine: Engine
    spec: Input
    labels: tuple[str, ...]
    fps: float | None
    clips: int | Literal["whole"]
    timeline: bool
    top_k: int

    @property
    def variant(self) -> Variant:
        return self.engine.metadata.variant if self.engine.metadata else DEEPMIND

    def plan(self, info: VideoInfo) -> _ClipPlan:
        """Return the clips of a video."""
        samples = sampling.resample(info, self.fps)
        fixed, variant = self.engine.fixed_frames, self.variant
        clips, note = _sample_clips(samples, self.spec, self.clips, self.timeline, fixed, variant)
        return _ClipPlan(
            info=info,
            clips=tuple(clips),
            spec=self.spec,
            resize=resize_of(self.spec),
            samples=samples,
            note=note,
        )

    def prediction(self, result: Planned) -> Prediction:
        """Return the prediction of a video from the logits of its clips."""
        plan = result.plan
        assert isinstance(plan, _ClipPlan)  # noqa: S101 - it is of `plan`
        metadata = self.engine.metadata
        scores = metadata.scores if metadata else scores_of(False, self.engine.num_classes)
        logits_of_clips = np.stack([output[0] for output in result.outputs]).astype(np.float64)
        line, rows = None, logits_of_clips.mean(axis=1)
        if self.timeline:
            width = max(self.variant.steps(self.spec.frames), 1)
            pooling = self.variant.pooling
            line, rows = join_windows(
                plan.samples, plan.clips, logits_of_clips, self.labels, width, pooling, scores
            )
        logits = rows.mean(axis=0)
        if not np.isfinite(logits).all():
            raise FormatError(
                "the logits are not finite: the model's weights are damaged; check them with "
                "i3dzoo verify"
            )
        probabilities = to_probabilities(logits, scores)
        return Prediction(
            info=plan.info,
            top=tuple(
                Score(self.labels[index], index, float(probabilities[index]), float(logits[index]))
                for index in np.argsort(-logits, kind="stable")[: self.top_k].tolist()
            ),
            logits=logits,
            clips=tuple((clip.start, clip.end) for clip in plan.clips),
            notes=(
                *plan.info.notes,
                plan.samples.note,
                plan.note,
                *_score_note(scores, len(logits)),
            ),
            timeline=line,
            scores=scores,
        )


def _score_note(scores: Scores, classes: int) -> tuple[str, ...]:
    if scores == "softmax":
        return ()
    why = "the head has one class" if classes == 1 else "a clip can have several classes at once"
    return (f"{why}, so each probability is the sigmoid of its own logit",)


def _input_and_labels(engine: Engine, spec: Input | None) -> tuple[Input, tuple[str, ...]]:
    if engine.num_classes == 0:
        raise MetadataError("the model has no head to predict classes with; convert it with a head")
    if spec is None:
        if engine.metadata is None:
            raise MetadataError("the model has no metadata; i3dzoo.load gives one that has")
        spec = engine.metadata.input
    return spec, engine.labels or tuple(f"class {i}" for i in range(engine.num_classes))


def _sample_clips(
    samples: Samples,
    spec: Input,
    count: int | Literal["whole"],
    timeline: bool,
    fixed: bool,
    variant: Variant,
) -> tuple[list[Clip], str]:
    """Return the clips that the network runs on, and a note about them."""
    least = variant.min_frames
    if timeline:
        frames = max(spec.frames, least)
        if not fixed:
            frames = min(frames, len(samples))
        if least <= frames <= len(samples):
            # the last step of a window and the first step of the next are one step apart
            windows = sampling.windows(samples, frames, STRIDE * variant.steps(frames))
            return windows, f"{len(windows)} windows of {frames} frames over the whole video"
        count = 1 if fixed else "whole"
    if count != "whole":
        clips = sampling.clips(samples, max(spec.frames, least), count, spec.sampling)
    elif len(samples) <= MAX_WHOLE:
        clips = [sampling.whole(samples, least, spec.crop)]
    else:
        raise VideoError(
            f"{samples.info.path}: has {len(samples)} frames; a whole video can have at most "
            f"{MAX_WHOLE}: use several clips or the timeline instead"
        )
    clip, frames = clips[0], len(clips[0].indices)
    if spec.sampling == "interval" and count != "whole":
        note = f"{len(clips)} clips of {frames} frames, each spread over the whole video"
    elif clip.loops > 1:
        note = sampling.looped_note(samples, clip)
    elif len(samples) == frames:
        note = f"one clip of all {frames} frames"
    elif len(clips) > 1:
        note = f"{len(clips)} clips of {frames} frames spread over the video, logits averaged"
    elif clip.start is None or clip.end is None:
        note = f"the centre clip of {frames} frames, {clip.first} to {clip.last}"
    else:
        note = f"the centre clip of {frames} frames, {clip.start:.1f} to {clip.end:.1f} s"
    return clips, note
