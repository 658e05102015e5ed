"""Predictions of videos, kept as JSON lines that survive a kill and are taken up again.

The first line says whose predictions these are; every other line is one video:

```
{"i3dzoo": "predictions", "version": 1, "model": SHA-256, "protocol": "center", "split": "1",
 "data": SHA-256}
{"video": "wave/a.avi", "label": 48, "clips": 1, "logits": [0.25, ...]}
```
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from i3dzoo._files import atomic_write, check_output, output_error
from i3dzoo.errors import (
    DependencyError,
    FormatError,
    MappingError,
    MissingFileError,
    OutputError,
    ShapeError,
)

__all__ = [
    "Prediction",
    "PredictionWriter",
    "Predictions",
    "Run",
    "fuse",
    "read_predictions",
    "write_parquet",
]

_VERSION = 1
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Run:
    """Whose predictions a file holds.

    Attributes:
        model: SHA-256 of the checkpoint's file.
        protocol: Such as `center`; see `i3dzoo evaluate`.
        split: Which videos, such as `1`.
        data: Digest of these videos and their classes; empty in files of older versions.
    """

    model: str
    protocol: str
    split: str
    data: str = ""

    def __str__(self) -> str:
        data = f", data {self.data[:12]}" if self.data else ""
        return f"model {self.model[:12]}, protocol {self.protocol}, split {self.split}{data}"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says of one video.

    Attributes:
        video: Its path, as the data set names it.
        label: Its true class, an index of the labels.
        logits: Mean over its clips, float32 [C].
        clips: How many there were.
    """

    video: str
    label: int
    logits: npt.NDArray[np.float32]
    clips: int = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the network says of all videos of a split.

    Attributes:
        run: Whose predictions these are.
        videos: Their paths, each once.
        labels: True classes, int64 [N].
        logits: float32 [N, C].
        clips: Of each video, int64 [N].
    """

    run: Run
    videos: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    clips: npt.NDArray[np.int64]

    @classmethod
    def of(cls, run: Run, predictions: Iterable[Prediction]) -> Self:
        """Gather single predictions.

        Raises:
            ShapeError: They differ in their number of classes.
            MappingError: A video occurs twice.
        """
        each = list(predictions)
        sizes = {prediction.logits.shape for prediction in each}
        if len(sizes) > 1:
            raise ShapeError(f"predictions have {sorted(sizes)} logits; expected one number")
        seen: set[str] = set()
        for prediction in each:
            if prediction.video in seen:
                raise MappingError(
                    f"{prediction.video}: is predicted twice; each video counts once"
                )
            seen.add(prediction.video)
        logits = np.array([one.logits for one in each], dtype=np.float32)
        return cls(
            run,
            tuple(one.video for one in each),
            np.array([one.label for one in each], dtype=np.int64),
            logits.reshape(len(each), *next(iter(sizes), (0,))),
            np.array([one.clips for one in each], dtype=np.int64),
        )


class PredictionWriter:
    """Appends predictions to a file, and takes up a file that an earlier process left.

    Every line reaches the operating system as one write, so a killed process leaves at most its
    last line cut; that line is dropped and its video is to be predicted again.

    Attributes:
        done: The videos that the file holds already.
    """

    def __init__(self, path: str | Path, run: Run) -> None:
        """Open or make the file.

        Raises:
            OutputError: It holds predictions of another run, or cannot be written.
            FormatError: It is no file of predictions.
        """
        self.path = Path(path)
        self.done: set[str] = set()
        self._classes: int | None = None
        check_output(self.path, force=True)
        kept = 0
        if self.path.exists():
            found, lines, kept = _load(self.path)
            if found is not None and found != run:
                raise OutputError(
                    f"{self.path}: holds predictions of {found}; expected {run}; name another file "
                    "or remove this one"
                )
            for line in lines:
                self._add(line)
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._file, kept)
        except OSError as error:
            raise output_error(self.path, error) from error
        if not kept:
            self._line({"i3dzoo": "predictions", "version": _VERSION, **asdict(run)})

    def write(self, prediction: Prediction) -> None:
        """Append one video.

        Raises:
            MappingError: The file holds this video already.
            ShapeError: It has other classes than those before it.
            OutputError: The disk is full.
        """
        self._add(prediction)
        # str of a float32 is the shortest text that reads back as the same float32.
        logits = [float(str(value)) for value in prediction.logits.astype(np.float32)]
        self._line(
            {
                "video": prediction.video,
                "label": int(prediction.label),
                "clips": int(prediction.clips),
                "logits": logits,
            }
        )

    def close(self) -> None:
        """Put everything on the disk and close the file."""
        os.fsync(self._file)
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, prediction: Prediction) -> None:
        if prediction.video in self.done:
            raise MappingError(
                f"{self.path}: holds {prediction.video} already; each video counts once"
            )
        size = prediction.logits.size
        if self._classes not in (None, size):
            raise ShapeError(
                f"{self.path}: {prediction.video} has {size} logits; expected {self._classes}"
            )
        self._classes = size
        self.done.add(prediction.video)

    def _line(self, document: dict[str, Any]) -> None:
        # ASCII: names of files that are no UTF-8 are kept as escaped surrogates.
        data = json.dumps(document, allow_nan=True).encode("ascii") + b"\n"
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(28, os.strerror(28))
        except OSError as error:
            raise output_error(self.path, error) from error


def read_predictions(path: str | Path) -> Predictions:
    """Read a file of predictions; a last line that was cut is left out.

    Raises:
        MissingFileError: There is no such file.
        FormatError: It is no file of predictions, or a line is damaged.
        MappingError: A video occurs twice.
        ShapeError: Lines differ in their number of classes.
    """
    path = Path(path)
    run, lines, _ = _load(path)
    if run is None:
        raise FormatError(f"{path}: is empty; expected a file of predictions")
    return Predictions.of(run, lines)


def write_parquet(predictions: Predictions, path: str | Path, *, force: bool = False) -> Path:
    """Write predictions as a parquet file: video, label, prediction, clips, logits.

    The run is in the schema's metadata, under `i3dzoo`.

    Raises:
        DependencyError: pyarrow is not installed.
        OutputError: The file exists or cannot be written.
    """
    path = Path(path)
    check_output(path, force)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError(
            "parquet files need pyarrow: pip install 'i3dzoo[parquet]'"
        ) from error
    best = predictions.logits.argmax(1) if predictions.videos else np.empty(0, np.int64)
    table = pyarrow.table(
        {
            "video": pyarrow.array(
                [video.encode("utf-8", "replace").decode() for video in predictions.videos],
                pyarrow.string(),
            ),
            "label": predictions.labels,
            "prediction": best.astype(np.int64),
            "clips": predictions.clips,
            "logits": pyarrow.array(list(predictions.logits), pyarrow.list_(pyarrow.float32())),
        },
        metadata={"i3dzoo": json.dumps(asdict(predictions.run))},
    )
    with atomic_write(path) as file:
        parquet.write_table(table, file)
    return path


def fuse(a: Predictions, b: Predictions) -> Predictions:
    """Fuse two streams by the sum of their logits, as published (arXiv:1705.07750, section 4).

    Args:
        a: Predictions of one stream; its order of videos is kept.
        b: Predictions of the other, of the same videos in any order.

    Returns:
        Predictions of the two-stream network.

    Raises:
        MappingError: They are of different splits or videos, disagree on a label, or are of one
            model.
        ShapeError: They differ in their number of classes.
    """
    if a.run.split != b.run.split:
        raise MappingError(
            f"the streams are of the splits {a.run.split} and {b.run.split}; expected the same one"
        )
    for one, other, which in ((a, b, "second"), (b, a, "first")):
        missing = sorted(set(one.videos) - set(other.videos))
        if missing:
            some = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
            raise MappingError(
                f"{len(missing)} videos are missing from the {which} stream: {some}; predict the "
                "same videos with both"
            )
    if a.logits.shape[1:] != b.logits.shape[1:]:
        raise ShapeError(
            f"the streams have {a.logits.shape[1]} and {b.logits.shape[1]} classes; expected the "
            "same labels"
        )
    place = {video: at for at, video in enumerate(b.videos)}
    order = np.array([place[video] for video in a.videos], dtype=np.int64)
    wrong = np.flatnonzero(a.labels != b.labels[order])
    if wrong.size:
        at = int(wrong[0])
        raise MappingError(
            f"{a.videos[at]}: is of class {a.labels[at]} in the first stream and of class "
            f"{b.labels[order[at]]} in the second; expected the same labels"
        )
    if a.run.model == b.run.model:
        raise MappingError(
            f"both streams are predictions of the model {a.run.model[:12]}; expected RGB and flow"
        )
    protocol = a.run.protocol
    if b.run.protocol != protocol:
        protocol += f"+{b.run.protocol}"
    run = Run(f"{a.run.model}+{b.run.model}", protocol, a.run.split, a.run.data)
    return Predictions(run, a.videos, a.labels, a.logits + b.logits[order], a.clips)


def _load(path: Path) -> tuple[Run | None, list[Prediction], int]:
    """Return whose predictions, the predictions, and the bytes that are whole lines."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: there is no such file") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    kept = data.rfind(b"\n") + 1
    if not kept and data and not b'{"i3dzoo": "predictions"'.startswith(data[:24]):
        raise FormatError(f"{path}: is no file of predictions; name another")
    run, predictions = None, []
    for number, line in enumerate(data[:kept].split(b"\n")[:-1], 1):
        try:
            document = json.loads(line)
            if number == 1:
                if document.pop("i3dzoo") != "predictions" or document.pop("version") != _VERSION:
                    raise ValueError("another kind or version")
                run = Run(**document)
            else:
                predictions.append(_prediction(document))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            what = "is no header of predictions" if number == 1 else "is damaged"
            raise FormatError(
                f"{path}: line {number} {what}: {error}; remove the file and predict again"
            ) from error
    return run, predictions, kept


def _prediction(document: dict[str, Any]) -> Prediction:
    video, label, clips = document["video"], document["label"], document["clips"]
    logits = np.array(document["logits"], dtype=np.float32)
    if not isinstance(video, str) or type(label) is not int or type(clips) is not int:
        raise ValueError("video, label or clips are of the wrong type")
    if logits.ndim != 1 or label < 0:
        raise ValueError("logits are no list of numbers, or the label is negative")
    return Prediction(video, label, logits, clips)
