"""Run one or two models on a video, with its optical flow if it is needed, result by result."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from i3dzoo.app.models import Model, Models
from i3dzoo.app.optical_flow import OpticalFlow, compute_flow
from i3dzoo.app.previews import FPS, duration, write_preview
from i3dzoo.app.sessions import Session
from i3dzoo.errors import I3DZooError, VideoError
from i3dzoo.predict import Prediction, Score, Timeline, predict_video, to_probabilities
from i3dzoo.progress import SILENT, Progress
from i3dzoo.report.thumbnails import film_strip
from i3dzoo.video import VideoInfo, probe
from i3dzoo.video.flow import FlowMethod

TOP: Final = 5
_STRIP_FRAMES, _STRIP_HEIGHT = 14, 64


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to do with a video: one or two models, and whether and how to compute flow."""

    video: Path
    models: tuple[str, ...]
    flow: bool = False
    method: FlowMethod = "tvl1"
    max_seconds: float = 600.0
    max_flow_seconds: float = 60.0


@dataclass(frozen=True, eq=False)
class Lane:
    """What one model says about the video.

    Attributes:
        title: The name of the model.
        top: The most probable classes of the whole video.
        timeline: In seconds; None if the model has none.
        model: None for the sum of two streams.
        notes: How the video was sampled, one sentence each.
    """

    title: str
    top: tuple[Score, ...]
    timeline: Timeline | None
    model: Model | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that is known so far.

    Attributes:
        info: The video.
        seconds: How long it lasts on the page.
        clip: The preview of the video.
        strip: Some of its frames, side by side, as JPEG.
        lanes: The models that have finished.
        flow: The optical flow, if it has been computed.
        flow_clip: The preview of the flow.
        finished: Whether nothing more comes.
    """

    info: VideoInfo
    seconds: float
    clip: Path
    strip: bytes
    lanes: tuple[Lane, ...] = ()
    flow: OpticalFlow | None = None
    flow_clip: Path | None = None
    finished: bool = False


def analyse(
    session: Session, request: Request, models: Models, progress: Progress = SILENT
) -> Iterator[Analysis]:
    """Yield what is known of a video, each time that there is more.

    Raises:
        I3DZooError: The video or a model cannot be read, or the video is too long.
    """
    info = probe(request.video)
    seconds = duration(info)
    if seconds > request.max_seconds:
        raise VideoError(
            f"{info.path.name}: lasts {seconds:.0f} s, and the page takes at most "
            f"{request.max_seconds:g} s; cut the video, or start i3dzoo app with --max-seconds"
        )
    clip = session.shown("clip.mp4")
    if not clip.exists():
        write_preview(info, clip, progress)
    strip = film_strip(info.path, frames=_STRIP_FRAMES, height=_STRIP_HEIGHT)
    known = Analysis(info, seconds, clip, strip)
    yield known
    chosen = [models.load(name, progress) for name in dict.fromkeys(request.models)]
    predictions: list[Prediction] = []
    # models of RGB first, since flow takes long
    for model in sorted(chosen, key=lambda model: model.metadata.stream != "rgb"):
        if model.metadata.stream == "flow":
            known = _with_flow(known, model, session, request, progress)
            yield known
        lane, prediction = _run(model, known, progress)
        predictions.append(prediction)
        known = dataclasses.replace(known, lanes=(*known.lanes, lane))
        yield known
    if both := _two_stream(known.lanes, predictions):
        known = dataclasses.replace(known, lanes=(*known.lanes, both))
    if request.flow and known.flow is None:
        known = _with_flow(known, None, session, request, progress)
    yield dataclasses.replace(known, finished=True)


def _with_flow(
    known: Analysis, model: Model | None, session: Session, request: Request, progress: Progress
) -> Analysis:
    """Compute the flow that a model takes; None takes the published input of flow."""
    preview = session.shown("flow.mp4")
    flow = compute_flow(
        known.info,
        model.metadata.input if model else None,
        request.method,
        session.folder,
        preview,
        request.max_flow_seconds,
        progress,
    )
    return dataclasses.replace(known, flow=flow, flow_clip=preview)


def _run(model: Model, known: Analysis, progress: Progress) -> tuple[Lane, Prediction]:
    """Run a model on the video or on its flow, over time if it can."""
    timed = model.engine.has_steps and model.metadata.input.sampling == "consecutive"
    flow = known.flow if model.metadata.stream == "flow" else None
    progress.start(f"running {model.name}", None, "items")
    try:
        prediction = predict_video(
            model.engine,
            flow.path if flow else known.info.path,
            top_k=TOP,
            timeline=timed,
            fps="native" if flow else "model",
            progress=_Named(progress, f"running {model.name}, windows"),
        )
    except I3DZooError as error:
        raise type(error)(f"{model.name}: {error}") from error
    timeline = prediction.timeline and _in_seconds(prediction.timeline, flow)
    notes = prediction.notes if flow is None else (flow.note, *prediction.notes[1:])
    if not timed:
        notes = (*notes, "this model gives one answer for the whole video, so it has no timeline")
    return Lane(model.name, prediction.top, timeline, model, notes), prediction


class _Named:
    """Passes progress on, under one description."""

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress, self._description = progress, description
        self.update, self.message = progress.update, progress.message

    def start(self, description: str, total: int | None, unit: object = "items") -> None:  # noqa: ARG002
        """Begin a task."""
        self._progress.start(self._description, total, "items")


def _in_seconds(timeline: Timeline, flow: OpticalFlow | None) -> Timeline:
    """Return a timeline in the seconds of the page."""
    if timeline.unit == "s":
        return timeline
    edges = np.append(timeline.starts, timeline.ends[-1])
    if flow is None:
        edges = edges / FPS
    else:
        edges = np.interp(edges, np.arange(len(flow.edges)), flow.edges)
    return dataclasses.replace(timeline, unit="s", starts=edges[:-1], ends=edges[1:])


def _two_stream(lanes: tuple[Lane, ...], predictions: list[Prediction]) -> Lane | None:
    """Return the sum of the logits of RGB and flow (arXiv:1705.07750, section 4)."""
    streams = [lane.model.metadata for lane in lanes if lane.model]
    if [own.stream for own in streams] != ["rgb", "flow"]:
        return None
    labels = [own.labels for own in streams]
    if (
        labels[0] is None
        or labels[0] != labels[1]
        or {own.scores for own in streams} != {"softmax"}
    ):
        return None
    logits = predictions[0].logits + predictions[1].logits
    probabilities = to_probabilities(logits, "softmax")
    top = tuple(
        Score(labels[0][index], index, float(probabilities[index]), float(logits[index]))
        for index in np.argsort(-logits, kind="stable")[:TOP].tolist()
    )
    note = "the logits of both streams are added, as published (arXiv:1705.07750, section 4)"
    return Lane("RGB and flow together", top, None, None, (note,))
