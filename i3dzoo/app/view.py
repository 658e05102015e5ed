"""Turn results into HTML: escaped, with the drawing of the timeline, and without any script."""

import base64
import functools
import json
from importlib.resources import files
from typing import Any, Final

import numpy as np

from i3dzoo.app.analysis import Analysis, Lane
from i3dzoo.app.jobs import Status
from i3dzoo.app.mistakes import PAGE, Mistakes
from i3dzoo.app.models import Model
from i3dzoo.app.sessions import Session
from i3dzoo.app.settings import Settings
from i3dzoo.fvd import FVDResult
from i3dzoo.predict import Timeline
from i3dzoo.text import message, printable, shorten

_COLOURS: Final = 5  # of app.css
_HEIGHT: Final = 100  # of a drawing, in its own units; its width is 1000
_MOST_POINTS: Final = 600  # of a curve
_MOST_SEGMENTS: Final = 200


def asset(name: str) -> str:
    """Return a file of the page: its style, its script or a template."""
    return (files("i3dzoo.app") / "assets" / name).read_text("utf-8")


@functools.cache
def _templates() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda value: f"{100 * value:.1f} %",
        "plain": lambda text: printable(shorten(str(text), 120)),
        "json": lambda value: json.dumps(value, separators=(",", ":")),
    }
    return environment


def _render(template: str, **context: Any) -> str:
    page: str = _templates().get_template(template).render(context)
    return page.encode("utf-8", "backslashreplace").decode()  # names of files need not be Unicode


def status(now: Status | None) -> str:
    """Show how far the work is, or the sentence of an error."""
    return "" if now is None else _render("status.html.j2", now=now, left=_left(now.seconds_left))


def note(text: str) -> str:
    """Show one sentence."""
    return _render("status.html.j2", now=Status(message(text), kind="note"), left="")


def _left(seconds: float | None) -> str:
    if seconds is None or seconds < 1:
        return ""
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} minutes left"


def analysis(known: Analysis, session: Session, settings: Settings) -> str:
    """Show a video with what the models say about it."""
    return _render(
        "player.html.j2",
        known=known,
        name=known.info.path.name,
        clip=session.address(known.clip),
        flow=session.address(known.flow_clip) if known.flow_clip else None,
        strip=_data_url(known.strip),
        lanes=[_lane(lane, known.seconds, settings) for lane in known.lanes],
    )


def _lane(lane: Lane, seconds: float, settings: Settings) -> dict[str, Any]:
    line = lane.timeline
    drawn = line.strongest(_COLOURS) if line else []
    colours = {index: number for number, index in enumerate(drawn, 1)}
    return {
        "title": lane.title,
        "top": [(score, colours.get(score.index, 0)) for score in lane.top],
        "curves": [
            (colours[index], _path(line, line.probabilities[:, index], seconds)) for index in drawn
        ]
        if line
        else [],
        "segments": _segments(line, colours, seconds) if line else [],
        "more": max(len(line.segments()) - _MOST_SEGMENTS, 0) if line else 0,
        "steps": _steps(line) if line else None,
        "provenance": _provenance(lane.model, settings) if lane.model else [],
        "notes": lane.notes,
    }


def _path(line: Timeline, values: Any, seconds: float) -> str:
    """Return the path of a curve through the middles of the steps."""
    x = np.concatenate([line.starts[:1], (line.starts + line.ends) / 2, line.ends[-1:]])
    y = np.pad(values, 1, mode="edge")
    if len(x) > _MOST_POINTS:
        keep = np.linspace(0, len(x) - 1, _MOST_POINTS).astype(int)
        x, y = x[keep], y[keep]
    points = zip(1000 * x / seconds, _HEIGHT * (1 - y), strict=True)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def _segments(line: Timeline, colours: dict[int, int], seconds: float) -> list[dict[str, Any]]:
    return [
        {
            "label": part.label,
            "start": part.start,
            "end": part.end,
            "left": 100 * part.start / seconds,
            "width": 100 * (part.end - part.start) / seconds,
            "probability": part.probability,
            "colour": colours.get(part.index, 0),
        }
        for part in line.segments()[:_MOST_SEGMENTS]
    ]


def _steps(line: Timeline) -> dict[str, Any]:
    """Return what the script shows at each moment: ends of the steps, and the best class."""
    best = line.probabilities.argmax(1)
    names = sorted({*best.tolist()})
    return {
        "ends": [round(float(end), 3) for end in line.ends],
        "best": [names.index(index) for index in best.tolist()],
        "p": [round(float(p), 4) for p in line.probabilities.max(1)],
        "labels": [printable(shorten(line.labels[index], 120)) for index in names],
    }


def _provenance(model: Model, settings: Settings) -> list[tuple[str, str]]:
    """Return which checkpoint it is, and where it comes from."""
    metadata, manifest = model.metadata, model.manifest
    rows = [
        (
            "checkpoint",
            f"{metadata.zoo}: published, and recognised by its tensors"
            if metadata.zoo
            else "not a published checkpoint",
        )
    ]
    if manifest:
        rows.append(("title" if metadata.zoo else "made from", manifest.title))
    elif metadata.base:
        rows.append(("made from", metadata.base))
    rows += [
        ("file", str(model.path) if settings.local else model.path.name),
        ("SHA-256 of the file", model.sha256),
        ("source", f"{metadata.source.layout} layout, SHA-256 {metadata.source.sha256}"),
    ]
    if manifest:
        rows += [
            ("licence", manifest.licence),
            ("first published", manifest.origin),
            ("paper", manifest.paper),
        ]
    rows += [
        ("input", str(metadata.input)),
        ("network", str(metadata.variant)),
        ("classes", f"{metadata.num_classes}{'' if metadata.labels else ', without names'}"),
        *(("history", str(step)) for step in metadata.history),
        ("runs on", f"{model.engine.name}, {model.engine.precision}, {model.engine.device}"),
    ]
    return rows


def mistakes(found: Mistakes, chosen: str, shown: int, playable: bool) -> str:
    """Show wrong predictions with frames, the worst first; `chosen` is a true class, or empty."""
    rows = [
        (number, wrong)
        for number, wrong in enumerate(found.wrong)
        if not chosen or found.label(wrong.label) == chosen
    ]
    cards = []
    for number, wrong in rows[:shown]:
        picture, reason = found.picture(wrong.video)
        cards.append((number, wrong, _data_url(picture) if picture else "", reason))
    return _render(
        "mistakes.html.j2",
        found=found,
        cards=cards,
        rest=max(len(rows) - shown, 0),
        page=PAGE,
        chosen=chosen,
        total=len(rows),
        playable=playable and found.channels == "rgb",
    )


def report(address: str) -> str:
    """Show the report of a run in a frame of its own."""
    return _render("report.html.j2", address=address)


def fvd(result: FVDResult, protocol: str) -> str:
    """Show an FVD, and what it is computed of."""
    return _render("fvd.html.j2", result=result, protocol=protocol)


def _data_url(picture: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii")
