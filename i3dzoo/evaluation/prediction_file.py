"""Files of predictions: JSON lines that survive a kill and are completed by the next process.

The first line is the header; every other line is the prediction of a
video (docs/reference/run-folder.md).
"""

import contextlib
import errno
import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from i3dzoo.distributed import ProcessGroup
from i3dzoo.errors import FormatError, MappingError, MissingFileError, OutputError, ShapeError
from i3dzoo.evaluation.predictions import PredictionHeader, Predictions, VideoPrediction
from i3dzoo.files import check_output, open_input, output_error
from i3dzoo.files.exclusive import exclusive
from i3dzoo.progress import SILENT, Progress
from i3dzoo.records import parse_json

_START: Final = b'{"i3dzoo": "predictions"'
_MAX_INTEGER: Final = (1 << 31) - 1
_MAX_LINE: Final = 16 << 20  # bytes; the logits of half a million classes


class PredictionWriter:
    """Appends predictions to a file, which an earlier process may have begun.

    Each line is a single write, so a killed process leaves at most a last line that is cut off.
    This line is removed, and its video has to be predicted again. `done` are the videos in the
    file, with their numbers of logits.
    """

    def __init__(self, path: str | Path, header: PredictionHeader) -> None:
        self.path = Path(path)
        self.done: dict[str, int] = {}
        check_output(self.path, force=True)
        size = 0
        if self.path.exists():
            found, predictions, size = _load(self.path)
            if found not in (None, header):
                raise OutputError(
                    f"{self.path}: expected predictions of {header}, found those of {found}; name "
                    "another file or remove this one"
                )
            self.done = {row.video: row.logits.size for row in predictions}
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._file, size)
        except OSError as error:
            raise output_error(self.path, error) from error
        if not size:
            self._write_line(header.to_dict())

    def write(self, prediction: VideoPrediction) -> None:
        """Append the prediction of a video that the file does not have."""
        _count(self.path, prediction, self.done)
        # str of a float32 is the shortest text that reads back as the same float32
        logits = [float(str(value)) for value in prediction.logits.astype(np.float32)]
        own = prediction.label
        label = list(own) if isinstance(own, tuple) else int(own)
        document = {"video": prediction.video, "label": label}
        self._write_line({**document, "clips": int(prediction.clips), "logits": logits})

    def write_missing(self, predictions: Iterable[VideoPrediction]) -> None:
        """Append the predictions of videos that the file does not have, and ignore the others."""
        for prediction in predictions:
            if prediction.video not in self.done:
                self.write(prediction)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file)
        os.close(self._file)

    def _write_line(self, document: dict[str, Any]) -> None:
        # in ASCII, a file name that is not UTF-8 is an escaped surrogate
        data = json.dumps(document).encode("ascii") + b"\n"
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise output_error(self.path, error) from error


def read_predictions(path: str | Path) -> Predictions:
    """Read a file of predictions; a last line that was cut off is ignored."""
    path = Path(path)
    header, predictions, _ = _load(path)
    if header is None:
        raise FormatError(f"{path}: expected a file of predictions, found an empty file")
    return Predictions.of(header, predictions)


def complete_predictions(
    path: Path,
    header: PredictionHeader,
    predict: Callable[[set[str]], Iterator[VideoPrediction]],
    processes: ProcessGroup,
    progress: Progress = SILENT,
) -> Predictions:
    """Add to a file the predictions that it does not have yet, and return all on every process.

    If the processes of another command do the same, an OutputError says so.

    Every process calls this, and keeps its predictions as it makes them: the main process in the
    file itself, the others in parts beside it, `NAME.jsonl.N.part`. The main process moves the
    parts into the file at the end, and also at the beginning, where earlier processes were killed.
    `predict` predicts this process's share of the videos, given the videos that are done.
    """
    with exclusive(path) if processes.is_main else contextlib.nullcontext():
        return _complete(path, header, predict, processes, progress)


def _complete(
    path: Path,
    header: PredictionHeader,
    predict: Callable[[set[str]], Iterator[VideoPrediction]],
    processes: ProcessGroup,
    progress: Progress,
) -> Predictions:
    """Complete a file that no other command writes to."""
    done: set[str] = set()
    if processes.is_main:
        with PredictionWriter(path, header) as writer:
            for part in sorted(path.parent.glob(f"{glob.escape(path.name)}.*.part")):
                writer.write_missing(_load(part)[1])
                part.unlink()
            done = set(writer.done)
    done = processes.broadcast(done)
    own = path if processes.is_main else path.with_name(f"{path.name}.{processes.rank}.part")
    predictions = []
    with PredictionWriter(own, header) as writer:
        for prediction in predict(done):
            writer.write(prediction)
            predictions.append(prediction)
            progress.update(len(done) + len(predictions))
    predictions = processes.gather(predictions)
    complete = None
    if processes.is_main:
        with PredictionWriter(path, header) as writer:
            writer.write_missing(predictions)
        complete = read_predictions(path)
    # this waits until the file is complete, so that the parts are not needed any more
    result: Predictions = processes.broadcast(complete)
    if not processes.is_main:
        own.unlink(missing_ok=True)
    return result


def _load(path: Path) -> tuple[PredictionHeader | None, list[VideoPrediction], int]:
    """Return the header, the predictions, and the number of bytes of complete lines."""
    lines, rest = read_lines(path)
    if not lines and not rest.startswith(_START[: len(rest)]):
        raise FormatError(f"{path}: not a file of predictions; name another file")
    header, predictions = None, []
    for number, line in enumerate(lines, 1):
        try:
            if number == 1:
                header = parse_json(line, PredictionHeader, error=FormatError)
            else:
                predictions.append(_parse_prediction(line))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise FormatError(
                f"{path}: line {number} is damaged or not of a file of predictions "
                f"({error}); remove the file and predict again, or name another file"
            ) from error
    done: dict[str, int] = {}
    for prediction in predictions:
        _count(path, prediction, done)
    return header, predictions, sum(len(line) + 1 for line in lines)


def read_lines(path: Path, remedy: str = "") -> tuple[list[bytes], bytes]:
    """Return the complete lines of a file, and a last line that was cut off."""
    lines, line = [], b""
    try:
        with open_input(path) as file:
            while (line := file.readline(_MAX_LINE)).endswith(b"\n"):
                lines.append(line[:-1])
    except MissingFileError as error:
        raise MissingFileError(f"{error}{remedy}") from error
    if len(line) == _MAX_LINE:
        raise FormatError(f"{path}: line {len(lines) + 1} is longer than {_MAX_LINE} bytes")
    return lines, line


def _count(path: Path, prediction: VideoPrediction, done: dict[str, int]) -> None:
    """Add a video and its number of logits to those of the file, which it must fit."""
    video, size = prediction.video, prediction.logits.size
    if video in done:
        raise MappingError(f"{path}: {video} has two predictions; each video counts once")
    classes = next(iter(done.values()), size)
    if size != classes:
        raise ShapeError(f"{path}: {video}: expected {classes} logits, found {size}")
    done[video] = size


def _parse_prediction(line: bytes) -> VideoPrediction:
    # not by i3dzoo.records, which is slow for this many numbers, and refuses NaN (`evaluate_logits`
    # explains it) and file names that are not UTF-8
    document = json.loads(line)
    video, label, clips = document["video"], document["label"], document["clips"]
    with np.errstate(over="ignore"):  # infinity, which `evaluate_logits` explains
        logits = np.array(document["logits"], dtype=np.float32)
    labels = label if isinstance(label, list) else [label]
    if not isinstance(video, str) or any(type(number) is not int for number in (*labels, clips)):
        raise ValueError("expected a text and two integers as video, label and clips")
    if logits.ndim != 1 or any(number < 0 for number in labels):
        raise ValueError("expected a list of numbers as logits, and a label of 0 or more")
    if max(*labels, abs(clips)) > _MAX_INTEGER:
        raise ValueError(f"expected a label and clips of at most {_MAX_INTEGER}")
    return VideoPrediction(video, tuple(label) if labels is label else label, logits, clips)
