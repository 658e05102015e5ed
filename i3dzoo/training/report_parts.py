"""The sections of a report, each from records to markup."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from i3dzoo.training.charts import Series, heat_map, line_chart, smooth, thin
from i3dzoo.training.markup import Markup, join, tag
from i3dzoo.training.metrics import Metrics, wilson_interval
from i3dzoo.training.predictions import Predictions
from i3dzoo.training.run_files import History, RunInfo

if TYPE_CHECKING:
    from i3dzoo.training.report import WorstClip

__all__ = [
    "classes",
    "commands",
    "confusion",
    "curves",
    "facts",
    "head",
    "tiles",
    "title",
    "worst",
]

_CONFUSED = 12  # pairs listed beside the matrix


def title(run: RunInfo) -> str:
    """Return the run's title, or make one of its source."""
    if run.title:
        return run.title
    model = next((run.source[key] for key in ("model", "zoo", "from") if run.source.get(key)), None)
    data = run.source.get("dataset") or f"{len(run.labels)} classes"
    return f"{model} on {data}" if model else f"Training on {data}"


def head(run: RunInfo, history: History) -> Markup:
    """Return the heading: what, when, how much."""
    steps, epochs = history.steps["step"], history.steps["epoch"]
    pieces = [run.stream, f"{len(run.labels)} classes", f"started {_time(run.started)}"]
    pieces.append(f"finished {_time(run.finished)}" if run.finished else "not finished")
    if len(steps):
        pieces.append(f"{steps[-1]:,.0f} steps, {np.nanmax(epochs):.3g} epochs")
    return tag(
        "header",
        tag("div", "i3dzoo training report", class_="brand"),
        tag("h1", title(run)),
        tag("div", " · ".join(pieces), class_="muted"),
    )


def tiles(history: History, metrics: Metrics | None, predictions: Predictions | None) -> Markup:
    """Return the numbers that are looked for first."""
    found = []
    if metrics is not None and predictions is not None:
        low, high = metrics.interval
        span = f"95% interval {100 * low:.1f} to {100 * high:.1f}"
        found += [
            _tile(f"{metrics.top1:.1%}", "top-1", span, lead=True),
            _tile(f"{metrics.top5:.1%}", "top-5", f"{metrics.videos:,} videos"),
            _tile(f"{metrics.mean_class:.1%}", "mean class accuracy", _asked(predictions)),
            _tile(f"{metrics.loss:.3f}", "cross-entropy", "nats a video"),
        ]
    best = history.epochs["top1"]
    if np.isfinite(best).any():
        at = int(np.nanargmax(best))
        text = f"after epoch {history.epochs['epoch'][at]:g}"
        found.append(_tile(f"{best[at]:.1%}", "best validation top-1", text))
    speed, wait = history.steps["clips_per_second"], history.steps["data_wait"]
    if np.isfinite(speed).any():
        text = f"{np.nanmean(wait):.1%} waiting for data" if np.isfinite(wait).any() else ""
        found.append(_tile(f"{np.nanmedian(speed):.4g}", "clips a second", text))
    return tag("div", *found, class_="tiles")


def curves(history: History) -> Markup:
    """Return the curves: loss and accuracy large, learning rate, speed and waiting small."""
    x, evaluated = history.steps["epoch"], history.epochs["epoch"]

    def trained(key: str, name: str) -> list[Series]:
        raw_x, raw_y = thin(x, history.steps[key])
        smoothed = smooth(raw_y, len(raw_y) // 25)
        raw = [Series("", raw_x, raw_y, "c1", "faint")] if smoothed is not raw_y else []
        return [*raw, Series(name, raw_x, smoothed, "c1")]

    def measured(key: str, name: str, colour: str) -> Series:
        return Series(name, evaluated, history.epochs[key], colour, "dots")

    loss = line_chart(
        "Loss", [*trained("loss", "training"), measured("val_loss", "validation", "c2")]
    )
    accuracy = line_chart(
        "Accuracy",
        [
            *trained("top1", "training top-1"),
            measured("top1", "validation top-1", "c2"),
            measured("top5", "top-5", "c3"),
            measured("mean_class", "mean class", "c4"),
        ],
        percent=True,
    )
    small: dict[str, Any] = {"width": 380, "height": 190}
    rate = line_chart(
        "Learning rate", [Series("rate", *thin(x, history.steps["lr"]), "c3")], **small
    )
    speed = line_chart(
        "Clips a second",
        [Series("clips/s", *thin(x, history.steps["clips_per_second"]), "c4")],
        zero=True,
        **small,
    )
    waiting = thin(x, history.steps["data_wait"])
    wait = line_chart(
        "Waiting for data", [Series("waiting", *waiting, "c5")], percent=True, **small
    )
    return join(
        tag("h2", "Curves over epochs"),
        tag("div", loss, accuracy, class_="wide"),
        tag("div", rate, speed, wait, class_="narrow"),
    )


def confusion(metrics: Metrics, labels: Sequence[str]) -> Markup:
    """Return the confusion matrix, and the pairs that are confused most."""
    table = metrics.confusion.copy()
    np.fill_diagonal(table, 0)
    order = np.argsort(-table, axis=None, kind="stable")[:_CONFUSED]
    rows = []
    for row, column in np.stack(np.unravel_index(order, table.shape), 1).tolist():
        if table[row, column]:
            pair = join(labels[row], tag("span", " taken for ", class_="muted"), labels[column])
            share = f"{table[row, column]} of {metrics.confusion[row].sum()}"
            rows.append(tag("tr", tag("td", pair), _number(share)))
    pairs = (
        tag("table", *rows, class_="pairs")
        if rows
        else tag("p", "None: all is right.", class_="muted")
    )
    return join(
        tag("h2", "Confusion"),
        tag(
            "p",
            "Rows are true classes, columns predicted ones; point at a cell for its numbers.",
            class_="muted",
        ),
        tag(
            "div",
            tag("div", heat_map(metrics.confusion, labels), class_="card scroll"),
            tag("div", tag("h3", "Confused most"), pairs, class_="card"),
            class_="side",
        ),
    )


def classes(metrics: Metrics, labels: Sequence[str]) -> Markup:
    """Return a bar for each class, best first, with its 95% interval."""
    totals = metrics.confusion.sum(1)
    order = np.argsort(-np.nan_to_num(metrics.per_class, nan=-1.0), kind="stable")
    bars = []
    for at in order.tolist():
        hits, total, name = int(metrics.confusion[at, at]), int(totals[at]), labels[at]
        if not total:
            track, text, tip = Markup(), "no videos", f"{name}\nno videos"
        else:
            low, high = wilson_interval(hits, total)
            text = f"{hits / total:.0%}  {hits}/{total}"
            tip = f"{name}\n{hits} of {total} videos, {hits / total:.1%}\n95% interval "
            tip += f"{low:.0%} to {high:.0%}"
            span = f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"
            track = join(tag("i", style=f"width:{100 * hits / total:.2f}%"), tag("u", style=span))
        whole = tag("span", track, class_="track")
        bars.append(
            tag("div", tag("span", name), whole, tag("span", text), class_="bar", data_tip=tip)
        )
    return join(
        tag("h2", "Accuracy of each class"),
        tag("div", tag("div", *bars, class_="bars"), class_="card"),
    )


def worst(clips: Iterable[tuple["WorstClip", str | None, str]], labels: Sequence[str]) -> Markup:
    """Return the worst predicted videos, each with its frames or the reason why there are none."""
    cards = []
    for clip, picture, reason in clips:
        image = (
            tag("img", src=picture, alt=f"frames of {clip.video}")
            if picture
            else tag("div", f"No frames: {reason}", class_="none")
        )
        text = tag(
            "div",
            tag("code", clip.video),
            _verdict("is", labels[clip.label], clip.p_label, "right-text"),
            _verdict("taken for", labels[clip.predicted], clip.p_predicted, "wrong-text"),
            class_="text",
        )
        cards.append(tag("div", image, text, class_="card clip"))
    if not cards:
        return join(tag("h2", "Predicted worst"), tag("p", "No video is predicted wrongly."))
    return join(tag("h2", "Predicted worst"), tag("div", *cards, class_="clips"))


def commands(entries: Iterable[tuple[str, str]]) -> Markup:
    """Return commands, each of which one click selects."""
    blocks = (join(tag("h3", name), tag("pre", text)) for name, text in entries)
    return join(tag("h2", "Commands"), tag("div", *blocks, class_="card"))


def facts(run: RunInfo) -> Markup:
    """Return the recipe, the source and the environment as tables."""
    plain = {key: value for key, value in run.recipe.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in run.recipe.items() if isinstance(value, Mapping)}
    recipe = [_table("recipe", plain)] if plain else []
    recipe += [_table(name, section) for name, section in sections.items()]
    others = [_table("source", run.source), _table("environment", run.environment)]
    if run.more:
        others.append(_table("more", run.more))
    return join(
        tag("h2", "Recipe"),
        tag("div", *recipe, class_="wide"),
        tag("h2", "Source and environment"),
        tag("div", *others, class_="wide"),
    )


def _table(name: str, values: Mapping[str, Any]) -> Markup:
    rows = (
        tag("tr", tag("td", str(key)), tag("td", _plain(value))) for key, value in values.items()
    )
    return tag("div", tag("h3", name), tag("table", *rows), class_="card")


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(
        isinstance(each, str | int | float) for each in value
    ):
        return ", ".join(str(each) for each in value)
    return json.dumps(value, ensure_ascii=False)


def _tile(value: str, name: str, small: str = "", *, lead: bool = False) -> Markup:
    rest = tag("small", small) if small else Markup()
    return tag(
        "div", tag("b", value), tag("span", name), rest, class_="tile lead" if lead else "tile"
    )


def _asked(predictions: Predictions) -> str:
    return f"split {predictions.run.split}, protocol {predictions.run.protocol}"


def _verdict(word: str, label: str, probability: float, colour: str) -> Markup:
    left = join(tag("span", f"{word} ", class_="muted"), tag("span", label, class_=colour))
    return tag("div", tag("span", left), tag("span", f"{probability:.1%}"), class_="verdict")


def _number(text: str) -> Markup:
    return tag("td", text, class_="number")


def _time(text: str) -> str:
    return text.replace("T", " ").partition(".")[0].partition("+")[0]
