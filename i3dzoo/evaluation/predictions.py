"""Predictions of videos: in memory, as parquet, and fused over two streams."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt

from i3dzoo.errors import DependencyError, MappingError, ShapeError
from i3dzoo.files import atomic_write, check_output
from i3dzoo.records import Record
from i3dzoo.text import listing


class PredictionHeader(Record, frozen=True, tag_field="i3dzoo", tag="predictions"):
    """What was predicted, and by which model; the first line of a file of predictions.

    `model` is the SHA-256 of its file; of two fused models, both with `+` between them. `data` is
    the digest of the videos, their classes and the order of these; it is empty if unknown.
    """

    model: str
    protocol: str
    split: str
    data: str = ""
    version: Literal[1] = 1

    def __str__(self) -> str:
        data = f", data {self.data[:12]}" if self.data else ""
        return f"model {self.model[:12]}, protocol {self.protocol}, split {self.split}{data}"


@dataclass(frozen=True, eq=False)
class VideoPrediction:
    """The prediction of one video: its path, true class, mean logits [C], and number of clips.

    `label` are the true classes of a multi-label video.
    """

    video: str
    label: int | tuple[int, ...]
    logits: npt.NDArray[np.float32]
    clips: int = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of the N videos of a split: paths, true classes, logits [N, C], and clips.

    `labels` is int64 [N], or [N, C] of 0 and 1 for multi-label videos.
    """

    header: PredictionHeader
    videos: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    clips: npt.NDArray[np.int64]

    @classmethod
    def of(cls, header: PredictionHeader, predictions: Iterable[VideoPrediction]) -> Self:
        """Collect predictions of different videos, with one number of classes."""
        rows = list(predictions)
        logits = np.array([row.logits for row in rows], dtype=np.float32)
        logits = logits.reshape(len(rows), rows[0].logits.size if rows else 0)
        return cls(
            header,
            tuple(row.video for row in rows),
            _labels(rows, logits.shape[1]),
            logits,
            np.array([row.clips for row in rows], dtype=np.int64),
        )


def _labels(rows: list[VideoPrediction], classes: int) -> npt.NDArray[np.int64]:
    if not any(isinstance(row.label, tuple) for row in rows):
        return np.array([row.label for row in rows], dtype=np.int64)
    labels = np.zeros((len(rows), classes), np.int64)
    for number, row in enumerate(rows):
        own = row.label if isinstance(row.label, tuple) else (row.label,)
        if max(own, default=0) >= classes:
            raise ShapeError(
                f"{row.video}: expected labels in 0..{classes - 1}, one for each logit; found "
                f"{max(own)}"
            )
        labels[number, list(own)] = 1
    return labels


def write_parquet(predictions: Predictions, path: str | Path, *, force: bool = False) -> Path:
    """Write predictions as a parquet file with the columns video, label, prediction, clips, logits.

    The header is in the metadata of the schema, under `i3dzoo`.
    """
    path = Path(path)
    check_output(path, force)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        message = "parquet files need pyarrow: pip install 'i3dzoo[parquet]'"
        raise DependencyError(message) from error
    best = predictions.logits.argmax(1) if predictions.videos else np.empty(0)
    names = [video.encode("utf-8", "replace").decode() for video in predictions.videos]
    table = pyarrow.table(
        {
            "video": pyarrow.array(names, pyarrow.string()),
            "label": pyarrow.array(list(predictions.labels))
            if predictions.labels.ndim > 1
            else predictions.labels,
            "prediction": best.astype(np.int64),
            "clips": predictions.clips,
            "logits": pyarrow.array(list(predictions.logits), pyarrow.list_(pyarrow.float32())),
        },
        metadata={"i3dzoo": json.dumps(msgspec.structs.asdict(predictions.header))},
    )
    with atomic_write(path) as file:
        parquet.write_table(table, file)
    return path


def fuse(a: Predictions, b: Predictions) -> Predictions:
    """Fuse two streams by the sum of their logits, as published (arXiv:1705.07750, section 4).

    The result has the videos in the order of `a`; `b` has the same ones in any order.
    """
    one, other = a.header, b.header
    _expect_same("split", one.split, other.split)
    for stream, missing in (
        ("second", sorted(set(a.videos).difference(b.videos))),
        ("first", sorted(set(b.videos).difference(a.videos))),
    ):
        if missing:
            raise MappingError(
                f"{len(missing)} videos are missing from the {stream} stream: {listing(missing)}; "
                "predict the same videos with both models"
            )
    _expect_same("number of classes", a.logits.shape[1], b.logits.shape[1], ShapeError)
    rows = {video: row for row, video in enumerate(b.videos)}
    order = np.array([rows[video] for video in a.videos], dtype=np.int64)
    _expect_same("kind of labels", a.labels.ndim, b.labels.ndim)
    labels = zip(a.videos, a.labels.tolist(), b.labels[order].tolist(), strict=True)
    for video, label, other_label in labels:
        _expect_same(f"label of {video}", label, other_label)
    if one.model == other.model:
        raise MappingError(
            f"expected predictions of an RGB and of a flow model, found those of the model "
            f"{one.model[:12]} twice"
        )
    protocol = "+".join(dict.fromkeys((one.protocol, other.protocol)))
    header = PredictionHeader(f"{one.model}+{other.model}", protocol, one.split, one.data)
    return Predictions(header, a.videos, a.labels, a.logits + b.logits[order], a.clips)


def _expect_same(
    name: str, one: object, other: object, error: type[MappingError] = MappingError
) -> None:
    if one != other:
        raise error(f"expected the same {name} in both streams, found {one} and {other}")
