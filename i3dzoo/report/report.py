"""Write the report of a training run: one HTML file that works without a network."""

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from i3dzoo.errors import DependencyError, I3DZooError
from i3dzoo.evaluation.metrics import Metrics, wilson_interval
from i3dzoo.files import atomic_write, check_output
from i3dzoo.report.canvas import CSS_CLASSES
from i3dzoo.report.mistakes import confused_pairs, worst_predictions
from i3dzoo.report.plots import confusion_svg, curve_panels, panel_svg
from i3dzoo.report.run_folder import MetricHistory, RunFolder, RunRecord, read_run_folder
from i3dzoo.report.thumbnails import film_strip
from i3dzoo.version import __version__
from i3dzoo.video.index_file import video_folder

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src"


def write_report(
    source: str | Path | RunFolder, path: str | Path | None = None, *, worst: int = 12
) -> Path:
    """Write the report of a run; an earlier report is replaced.

    The file holds its own style and pictures. Its content security policy forbids browsers to load
    anything, and to run any other script. Without Matplotlib it has no curves and no confusion
    matrix, and says so. `worst` wrong predictions are shown with frames of their videos.
    """
    run = source if isinstance(source, RunFolder) else read_run_folder(source)
    target = Path(path) if path is not None else run.folder / "report.html"
    check_output(target, force=True)
    page = _render(run, worst)
    with atomic_write(target) as file:
        # names of files need not be Unicode
        file.write(page.encode("utf-8", "backslashreplace"))
    return target


def _render(run: RunFolder, worst: int) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"text": _text, "percent": _percent}
    style, script, template = (
        (files("i3dzoo.report") / f"report.{suffix}").read_text("utf-8")
        for suffix in ("css", "js", "html.j2")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    source = run.run.source
    data = source.dataset or f"{len(run.run.labels)} classes"
    context = {
        "version": __version__,
        "policy": f"{_POLICY} 'sha256-{digest}'",
        "style": Markup(style),  # noqa: S704 - files of this package
        "script": Markup(script),  # noqa: S704 - likewise
        "title": run.run.title or f"{source.model or 'Training'} on {data}",
        "facts": list(_facts(run.run, run.history)),
        "tiles": list(_tiles(run)),
        "commands": _commands(run),
        "evaluations": np.stack(list(run.history.epochs.values()), axis=1).tolist(),
        **_plots(run),
        **_evaluation(run, worst),
        **_tables(run.run),
    }
    return environment.from_string(template).render(context).lstrip()


def _facts(run: RunRecord, history: MetricHistory) -> Iterator[str]:
    """Yield what stands below the title."""
    yield run.stream
    yield f"{len(run.labels)} classes"
    yield f"started {_time(run.started)}"
    yield f"finished {_time(run.finished)}" if run.finished else "not finished"
    if len(history.steps["step"]):
        epochs = np.nanmax(history.steps["epoch"], initial=0)
        yield f"{history.steps['step'][-1]:,.0f} steps, {epochs:.3g} epochs"


def _tiles(run: RunFolder) -> Iterator[tuple[str, str, str]]:
    """Yield the numbers that people look for first: value, name and note; the main one first."""
    if run.metrics is not None and run.predictions is not None:
        metrics, header = run.metrics, run.predictions.header
        low, high = (100 * end for end in metrics.interval)
        yield _percent(metrics.top1), "top-1", f"95% interval {low:.1f} to {high:.1f}"
        yield _percent(metrics.top5), "top-5", f"{metrics.videos:,} videos"
        which = f"split {header.split}, protocol {header.protocol}"
        yield _percent(metrics.mean_class), "mean class accuracy", which
        yield f"{metrics.loss:.3f}", "cross-entropy", "nats per video"
    best = run.history.epochs["top1"]
    if np.isfinite(best).any():
        row = int(np.nanargmax(best))
        note = f"after epoch {run.history.epochs['epoch'][row]:g}"
        yield _percent(best[row]), "best validation top-1", note
    speed, wait = run.history.steps["clips_per_second"], run.history.steps["data_wait"]
    if np.isfinite(speed).any():
        note = f"{np.nanmean(wait):.1%} waiting for data" if np.isfinite(wait).any() else ""
        yield f"{np.nanmedian(speed):.4g}", "clips per second", note


def _plots(run: RunFolder) -> dict[str, Any]:
    """Draw the curves and the confusion matrix, or say why not."""
    from markupsafe import Markup

    context: dict[str, Any] = {"panels": [], "confusion": "", "missing": ""}
    try:
        for panel in curve_panels(run.history):
            legend = [(c.name, CSS_CLASSES[c.colour]) for c in panel.curves if c.name]
            svg = "" if panel.empty else Markup(panel_svg(panel))  # noqa: S704 - escapes its texts
            context["panels"].append(
                {"title": panel.title, "small": panel.small, "legend": legend, "svg": svg}
            )
        if run.metrics is not None:
            svg = Markup(confusion_svg(run.metrics, run.run.labels))  # noqa: S704 - likewise
            width = float(svg.partition('viewBox="0 0 ')[2].partition(" ")[0])
            context |= {"confusion": svg, "confusion_width": round(width)}
    except DependencyError as error:
        context |= {"panels": [], "missing": str(error)}
    return context


def _evaluation(run: RunFolder, worst: int) -> dict[str, Any]:
    if run.metrics is None or run.predictions is None:
        return {"evaluated": False}
    labels = run.run.labels
    return {
        "evaluated": True,
        "pairs": confused_pairs(run.metrics, labels),
        "classes": _classes(run.metrics, labels),
        "labels": labels,
        "worst": [
            (wrong, _frames(run, wrong.video))
            for wrong in worst_predictions(run.predictions, worst)
        ],
    }


def _classes(metrics: Metrics, labels: Sequence[str]) -> list[tuple[str, int, int, float, float]]:
    """Return each class with its hits, videos, and the ends of the 95% interval, best first."""
    order = np.argsort(-np.nan_to_num(metrics.per_class, nan=-1.0), kind="stable")
    classes = []
    for index in order.tolist():
        hits, total = int(metrics.confusion[index, index]), int(metrics.confusion[index].sum())
        low, high = wilson_interval(hits, total) if total else (0.0, 0.0)
        classes.append((labels[index], hits, total, low, high))
    return classes


def _frames(run: RunFolder, video: str) -> tuple[str, str]:
    """Return frames of a video as a data URL, and the reason if there are none."""
    names = (video, video.partition("#t=")[0])  # of a segment, the frames are of the whole video
    try:
        folders = [video_folder(Path(run.run.data))] if run.run.data else []
        places = (folder / name for folder in (*folders, run.folder) for name in names)
        path = next((place for place in places if place.exists()), Path(video))
        picture = film_strip(path, "xy" if run.run.stream == "flow" else "rgb")
    except I3DZooError as error:
        return "", str(error)
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii"), ""


def _commands(run: RunFolder) -> list[tuple[str, str]]:
    """Return the titles and texts of commands that go on from the run."""
    record, result = run.run, run.run.result or "FILE"
    models = [result, result.replace("_rgb.", "_flow.")] if record.stream == "joint" else [result]
    if record.result:
        models = [str(run.folder / model) for model in models]
    evaluate = ["i3dzoo", "evaluate", *models, "--data", record.data or "DIR"]
    if run.predictions is not None:
        header = run.predictions.header
        evaluate += ["--split", header.split, "--protocol", header.protocol]
    export = ["i3dzoo", "export", models[0], "--to", "onnx", "-o", "model.onnx"]
    return [
        ("Train again", shlex.join(record.command)),
        ("Evaluate", shlex.join(evaluate)),
        ("Export", shlex.join(export)),
        ("Push", shlex.join(["i3dzoo", "push", models[0], "USER/NAME"])),
        ("Make this report again", shlex.join(["i3dzoo", "report", str(run.folder)])),
    ]


def _tables(run: RunRecord) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Return the tables of the recipe, and of the source and the environment."""
    top = {key: value for key, value in run.recipe.items() if not isinstance(value, dict)}
    sections = [(key, value) for key, value in run.recipe.items() if isinstance(value, dict)]
    source = run.source.to_dict()
    tables: list[tuple[str, Mapping[str, Any]]] = [
        ("source", {key.replace("_", " "): v for key, v in source.items() if v is not None}),
        ("environment", run.environment),
        ("resumed by", {str(n): shlex.join(words) for n, words in enumerate(run.resumed, 1)}),
        *((f"augment, {stream}", values) for stream, values in run.augment.items()),
        ("unreadable videos", run.unreadable_videos),
        ("extra", run.extra),
    ]
    return {
        "recipe": [("recipe", top), *sections] if top else [*sections],
        "details": [table for table in tables if table[1]],
    }


def _text(value: Any) -> str:
    """Return a value of a table as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False)


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1%}"


def _time(text: str) -> str:
    return text.replace("T", " ").partition(".")[0].partition("+")[0]
