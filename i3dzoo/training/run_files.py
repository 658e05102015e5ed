"""The files of a run folder: run.json says what was run, metrics.jsonl what happened.

docs/run-folder.md describes them for those who read or write them with other tools.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from i3dzoo.errors import FormatError, MissingFileError

__all__ = ["METRICS", "PREDICTIONS", "RUN", "History", "RunInfo", "read_history", "read_run"]

RUN, METRICS, PREDICTIONS = "run.json", "metrics.jsonl", "predictions.jsonl"

Column = npt.NDArray[np.float64]

_STEP_KEYS = ("step", "epoch", "loss", "lr", "top1", "clips_per_second", "data_wait")
_EPOCH_KEYS = ("epoch", "val_loss", "top1", "top5", "mean_class")


@dataclass(frozen=True)
class RunInfo:
    """What run.json says.

    Attributes:
        command: The command as it was typed, word by word.
        recipe: The recipe with every key, by section.
        labels: Names of the classes in the order of the logits.
        environment: Versions, devices and the like, in the order to be shown.
        started: ISO 8601 time.
        source: What was trained from, and on what.
        finished: ISO 8601 time; None where the run is not finished.
        title: Heading of the report; None makes one of `source`.
        stream: `rgb`, `flow` or `joint`.
        data: Folder that the names of videos in predictions.jsonl begin at.
        result: The checkpoint that the run made, from the run's folder on.
        more: Any other keys, which the report shows as they are.
    """

    command: tuple[str, ...]
    recipe: Mapping[str, Any]
    labels: tuple[str, ...]
    environment: Mapping[str, Any]
    started: str
    source: Mapping[str, Any]
    finished: str | None
    title: str | None
    stream: str
    data: str | None
    result: str | None
    more: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class History:
    """What happened, float64 columns; a value that was not recorded is NaN.

    Attributes:
        steps: Optimiser steps: step, epoch (passes over the data, a fraction), loss in nats, lr,
            top1 of the batch in 0..1, clips_per_second, data_wait in 0..1.
        epochs: Evaluations: epoch (passes done), val_loss, top1, top5, mean_class.
    """

    steps: Mapping[str, Column]
    epochs: Mapping[str, Column]


def read_run(folder: str | Path) -> RunInfo:
    """Read run.json of a run folder.

    Raises:
        MissingFileError: There is none.
        FormatError: It is no JSON, or a key is missing or of another type.
    """
    path = Path(folder) / RUN
    document = _json(path, _text(path))
    if not isinstance(document, dict):
        raise FormatError(f"{path}: is no JSON object")
    left = dict(document)

    def take(key: str, kind: type, what: str, *, needed: bool = False) -> Any:
        value = left.pop(key, None)
        if value is None and not needed:
            return None
        wrong = not isinstance(value, kind)
        if wrong or (kind is list and not all(isinstance(each, str) for each in value)):
            raise FormatError(f"{path}: {key} is {value!r}; expected {what}")
        return value

    stream = take("stream", str, "'rgb', 'flow' or 'joint'") or "rgb"
    if stream not in ("rgb", "flow", "joint"):
        raise FormatError(f"{path}: stream is {stream!r}; expected 'rgb', 'flow' or 'joint'")
    return RunInfo(
        command=tuple(take("command", list, "a list of texts", needed=True)),
        recipe=take("recipe", dict, "an object", needed=True),
        labels=tuple(take("labels", list, "a list of texts", needed=True)),
        environment=take("environment", dict, "an object", needed=True),
        started=take("started", str, "a time", needed=True),
        source=take("source", dict, "an object", needed=True),
        finished=take("finished", str, "a time"),
        title=take("title", str, "a text"),
        stream=stream,
        data=take("data", str, "a folder"),
        result=take("result", str, "a file"),
        more=left,
    )


def read_history(folder: str | Path) -> History:
    """Read metrics.jsonl of a run folder.

    A last line that was cut is left out. Where a run was resumed from before its last step, what it
    did again takes the place of what was done before.

    Raises:
        MissingFileError: There is none.
        FormatError: A line is no JSON object, or a value is no number.
    """
    path = Path(folder) / METRICS
    text = _text(path)
    steps: list[dict[str, float]] = []
    epochs: list[dict[str, float]] = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        document = _json(path, line, f" line {number}")
        if not isinstance(document, dict):
            raise FormatError(f"{where} is no JSON object")
        kind = document.get("kind")
        if kind == "step":
            _replace(steps, _numbers(where, document, _STEP_KEYS), lambda each: each["step"])
        elif kind == "epoch":
            _replace(epochs, _numbers(where, document, _EPOCH_KEYS), lambda each: each["epoch"])
    return History(_columns(steps, _STEP_KEYS), _columns(epochs, _EPOCH_KEYS))


def _replace(
    rows: list[dict[str, float]],
    row: dict[str, float],
    order: Callable[[dict[str, float]], float],
) -> None:
    while rows and order(rows[-1]) >= order(row):
        rows.pop()
    rows.append(row)


def _numbers(where: str, document: dict[str, Any], keys: tuple[str, ...]) -> dict[str, float]:
    row = {}
    for key in keys:
        value = document.get(key)
        if value is None and key != keys[0]:
            value = float("nan")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FormatError(f"{where}: {key} is {value!r}; expected a number")
        row[key] = float(value)
    return row


def _columns(rows: list[dict[str, float]], keys: tuple[str, ...]) -> dict[str, Column]:
    return {key: np.array([row[key] for row in rows], dtype=np.float64) for key in keys}


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path}: there is no such file; name the folder of a run, which i3dzoo finetune makes"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error


def _json(path: Path, text: str, which: str = "") -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise FormatError(f"{path}:{which} is no JSON: {error}") from error
