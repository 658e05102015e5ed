"""The report of a training run: one HTML file that needs nothing else, made of a run's folder."""

import base64
import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from i3dzoo import __version__
from i3dzoo._files import atomic_write, check_output
from i3dzoo.errors import I3DZooError, ShapeError
from i3dzoo.training import report_parts as parts
from i3dzoo.training.markup import Markup, join, tag
from i3dzoo.training.metrics import Metrics, evaluate_logits, log_softmax
from i3dzoo.training.predictions import Predictions, read_predictions
from i3dzoo.training.run_files import PREDICTIONS, History, RunInfo, read_history, read_run
from i3dzoo.training.thumbnails import film_strip

__all__ = ["REPORT", "RunFolder", "WorstClip", "read_folder", "worst_clips", "write_report"]

REPORT = "report.html"


@dataclass(frozen=True, eq=False)
class RunFolder:
    """All that a run's folder holds for a report.

    Attributes:
        folder: The folder.
        run: What was run.
        history: What happened.
        predictions: Of the evaluated videos; None where the run has not been evaluated.
        metrics: Of these predictions.
    """

    folder: Path
    run: RunInfo
    history: History
    predictions: Predictions | None
    metrics: Metrics | None


@dataclass(frozen=True)
class WorstClip:
    """A video that the network is far from understanding.

    Attributes:
        video: As predictions.jsonl names it.
        label: Its true class.
        predicted: The class of the highest logit.
        p_label: Probability of the true class.
        p_predicted: Probability of the predicted class.
    """

    video: str
    label: int
    predicted: int
    p_label: float
    p_predicted: float


def read_folder(folder: str | Path) -> RunFolder:
    """Read a run's folder: run.json, metrics.jsonl and, where there is one, predictions.jsonl.

    Raises:
        MissingFileError: run.json or metrics.jsonl is not there.
        FormatError: A file is damaged.
        ShapeError: The labels are not those of the predictions.
        TrainingError: A logit is NaN or infinite.
    """
    folder = Path(folder)
    run, history = read_run(folder), read_history(folder)
    path = folder / PREDICTIONS
    predictions = read_predictions(path) if path.exists() else None
    if predictions is None or not predictions.videos:
        return RunFolder(folder, run, history, None, None)
    if predictions.logits.shape[1] != len(run.labels):
        raise ShapeError(
            f"{path}: has {predictions.logits.shape[1]} logits a video; expected "
            f"{len(run.labels)}, as run.json has so many labels"
        )
    metrics = evaluate_logits(predictions.logits, predictions.labels)
    return RunFolder(folder, run, history, predictions, metrics)


def worst_clips(predictions: Predictions, count: int) -> list[WorstClip]:
    """Return the wrongly predicted videos whose true class is least probable, worst first."""
    logs = log_softmax(predictions.logits)
    rows = np.arange(len(predictions.labels))
    best, own = predictions.logits.argmax(1), logs[rows, predictions.labels]
    wrong = np.flatnonzero(best != predictions.labels)
    order = wrong[np.argsort(own[wrong], kind="stable")][:count]
    return [
        WorstClip(
            predictions.videos[at],
            int(predictions.labels[at]),
            int(best[at]),
            float(np.exp(own[at])),
            float(np.exp(logs[at, best[at]])),
        )
        for at in order.tolist()
    ]


def write_report(
    source: str | Path | RunFolder, path: str | Path | None = None, *, worst: int = 12
) -> Path:
    """Write a run's report, in place of an earlier one.

    The file holds its style, pictures and curves, and asks browsers to load nothing and to run no
    script but its own, so that it can be mailed, archived, and opened without a network.

    Args:
        source: The run's folder, or what `read_folder` returned for it.
        path: Where to; None is report.html in that folder.
        worst: How many of the worst predicted videos are shown with their frames.

    Returns:
        The path.

    Raises:
        I3DZooError: As `read_folder`.
        OutputError: The file cannot be written.
    """
    found = source if isinstance(source, RunFolder) else read_folder(source)
    target = Path(path) if path is not None else found.folder / REPORT
    check_output(target, force=True)
    page = _page(parts.title(found.run), join(*_body(found, worst)))
    with atomic_write(target) as file:
        # Names of files may hold what is no UTF-8.
        file.write(page.encode("utf-8", "backslashreplace"))
    return target


def _body(found: RunFolder, worst: int) -> Iterator[Markup]:
    run, history, metrics = found.run, found.history, found.metrics
    yield parts.head(run, history)
    yield parts.tiles(history, metrics, found.predictions)
    yield parts.curves(history)
    if metrics is None or found.predictions is None:
        yield tag("p", "The run has not been evaluated: there are no predictions.", class_="muted")
    else:
        yield parts.confusion(metrics, run.labels)
        yield parts.classes(metrics, run.labels)
        clips = worst_clips(found.predictions, worst)
        yield parts.worst([(clip, *_strip(found, clip)) for clip in clips], run.labels)
    yield parts.commands(_commands(found))
    yield parts.facts(run)


def _strip(found: RunFolder, clip: WorstClip) -> tuple[str | None, str]:
    """Return the frames of a video as a data URL, or None and why there are none."""
    name = Path(clip.video)
    places = [Path(found.run.data) / name] if found.run.data else []
    path = next((each for each in (*places, found.folder / name) if each.exists()), name)
    try:
        picture = film_strip(path, "xy" if found.run.stream == "flow" else "rgb")
    except I3DZooError as error:
        return None, str(error)
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii"), ""


def _commands(found: RunFolder) -> list[tuple[str, str]]:
    run, folder = found.run, found.folder
    result = str(folder / run.result) if run.result else "FILE"
    results = [result]
    if run.stream == "joint":  # two files, whose logits are summed
        results.append(str(folder / (run.result or "FILE").replace("_rgb.", "_flow.")))
    evaluate = ["i3dzoo", "evaluate", *results, "--data", run.data or "DIR"]
    if found.predictions is not None:
        asked = found.predictions.run
        evaluate += ["--split", asked.split, "--protocol", asked.protocol]
    return [
        ("Train again", shlex.join(run.command)),
        ("Evaluate", shlex.join(evaluate)),
        ("Export", shlex.join(["i3dzoo", "export", result, "--to", "onnx", "-o", "model.onnx"])),
        ("Push", shlex.join(["i3dzoo", "push", result, "USER/NAME"])),
        ("Make this report again", shlex.join(["i3dzoo", "report", str(folder)])),
    ]


def _page(title: str, body: Markup) -> str:
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    meta: list[dict[str, Any]] = [
        {"charset": "utf-8"},
        {"http_equiv": "Content-Security-Policy", "content": policy},
        {"name": "viewport", "content": "width=device-width, initial-scale=1"},
        {"name": "generator", "content": f"i3dzoo {__version__}"},
    ]
    head = join(
        *(tag("meta", **each) for each in meta),
        tag("title", title),
        tag("style", Markup(style)),
    )
    footer = tag("footer", f"Made by i3dzoo {__version__}. The file needs no network.")
    end = join(
        tag("div", id="tip", hidden=""),
        tag("script", Markup(script)),
    )
    whole = tag("body", tag("main", body, footer), end)
    return "<!doctype html>\n" + tag("html", tag("head", head), whole, lang="en") + "\n"


def _asset(name: str) -> str:
    return (files("i3dzoo.training") / "assets" / name).read_text("utf-8")
