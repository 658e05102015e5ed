"""Facts about a checkpoint that its repository states: licence, base model, datasets, results."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import asdict

from i3dzoo import zoo
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.labels import label_sets, labels
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.errors import MetadataError
from i3dzoo.hub.results import Result, read_results


@dataclass(frozen=True)
class About:
    """What a user states about a checkpoint, in addition to its metadata.

    Attributes:
        repository: `USER/NAME`; None for a folder.
        licence: SPDX identifier; None uses the licence of the published checkpoint that it is or
            was made from.
        results: A JSON file of results; see `i3dzoo.hub.results`.
        onnx: The same weights as ONNX, made by `i3dzoo export`.
        base_model: Hub repository of the model that it was fine-tuned from; None uses the one in
            the history.
        datasets: Datasets that it was trained on; empty uses the one in the history or of the
            labels.
    """

    repository: str | None = None
    licence: str | None = None
    results: Path | None = None
    onnx: Path | None = None
    base_model: str | None = None
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a repository states about its checkpoint; see `About`."""

    repository: str | None
    licence: str
    base: str | None  # zoo name of the published checkpoint that it is or was made from
    base_model: str | None
    datasets: tuple[str, ...]
    results: tuple[Result, ...]
    untrained_head: bool  # whether the head was replaced and not trained since


def collect_facts(metadata: Metadata, about: About, where: str) -> Facts:
    """Combine what the metadata and the user state; the user takes precedence."""
    base = metadata.zoo or metadata.base
    base = base if base in zoo.names() else None
    trainings = [step for step in metadata.history if step.operation == "finetune"]
    training = trainings[-1] if trainings else None
    base_model = training.base_model if training else None
    if base_model and "/" not in base_model:  # a zoo name
        base_model = None
    operations = [step.operation for step in reversed(metadata.history)]
    untrained_head = "head" in itertools.takewhile(lambda name: name != "finetune", operations)
    datasets = about.datasets or _datasets(metadata, training, untrained_head)
    return Facts(
        repository=about.repository,
        licence=_licence(about.licence, base, where),
        base=base,
        base_model=about.base_model or base_model,
        datasets=datasets,
        results=_results(about.results, metadata, datasets),
        untrained_head=untrained_head,
    )


def _datasets(
    metadata: Metadata, training: HistoryStep | None, untrained_head: bool
) -> tuple[str, ...]:
    """Return the dataset that the weights were last trained on, if it is a known one.

    Without training in the history it is the dataset of the labels, or of the published
    checkpoint whose head was replaced.
    """
    if training is not None and training.dataset in label_sets():
        return (training.dataset,)
    names = metadata.labels
    if untrained_head:
        base = metadata.base
        names = zoo.manifest(base).class_names if base in zoo.names() else None
    return tuple(name for name in label_sets() if labels(name) == names)


def _licence(licence: str | None, base: str | None, where: str) -> str:
    if licence:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", licence):
            raise MetadataError(
                f"the licence {licence!r} is not an SPDX identifier; expected one such as "
                "Apache-2.0, or LicenseRef-NAME for your own licence"
            )
        return licence
    if base is None:
        raise MetadataError(
            f"{where}: its licence is unknown, because its metadata names no published checkpoint, "
            "and nothing is pushed without a licence; pass --license, such as Apache-2.0"
        )
    return zoo.manifest(base).licence


def _results(
    path: Path | None, metadata: Metadata, datasets: tuple[str, ...]
) -> tuple[Result, ...]:
    if path:
        return read_results(path, datasets[0] if datasets else None)
    if metadata.zoo is None:
        return ()
    return tuple(
        Result(**asdict(metric) | {"dataset": metric.dataset.lower()})
        for metric in zoo.manifest(metadata.zoo).metrics
    )
