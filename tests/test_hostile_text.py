"""Every text file that i3dzoo reads, with one hostile value in the place of each of its own."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import run_document

from i3dzoo.checkpoints.converter import load_table
from i3dzoo.checkpoints.label_file import read_labels
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.engines.tensorrt_sidecar import read_engine
from i3dzoo.errors import I3DZooError
from i3dzoo.evaluation.prediction_file import read_predictions
from i3dzoo.hub.results import read_results
from i3dzoo.hub.sums import read_sums
from i3dzoo.records import parse_json
from i3dzoo.report.run_folder import read_metrics, read_run
from i3dzoo.tao.spec import load_tao
from i3dzoo.training.recipe import load_recipe
from i3dzoo.video import read_index, read_splits

_TEXTS = [
    '"\\ud800"', '"\\u001b[2J"', '"\\u0000"', '""', '"2001-99-99"', '"../../x"', f'"{"n" * 300}"',
]  # fmt: skip
_NUMBERS = ["9" * 400, "9" * 5000, "1e999", "-1", "0", "1.5", "1e-400", str(2**63)]
_OTHERS = ["null", "true", "[]", "{}", "[[[]]]", "[" * 1000 + "]" * 1000, '{"a": 1, "a": 2}']
JSON = [*_TEXTS, *_NUMBERS, *_OTHERS, "Infinity", "NaN", "?"]
YAML = [
    *_TEXTS, *_NUMBERS, *_OTHERS, ".inf", "!!timestamp x", "!!timestamp 2001-99-99", "2001-99-99",
    "0b_", "&a [*a]", "*missing", "!!binary x", "!!set {a}", "!!python/object:os.system x", "? [a]",
]  # fmt: skip
WHOLE = [
    b"", b"\0", b"\xff\xfe\xfa", b"\xff" * 9, b"\x80\x04K\x01.", "é".encode("latin-1"), b"\n" * 9,
    "{}".encode("utf-16-le"), b"[" * 100_000, b'{"a":' * 1000, b"- " * 1000, b"9" * 5000, b"a" * 9,
    b"\x1b]0;x\x07", b"a." * 50_000 + b"a = 1", b"\xed\xa0\x80",
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, a valid document or lines of them, and what reads it."""

    name: str
    lines: tuple[Any, ...]
    read: Callable[[Path], object]
    values: list[str]


def _split_lists(path: Path) -> object:
    for split in (2, 3):
        path.with_name(f"wave_test_split{split}.txt").write_bytes(path.read_bytes())
    return read_splits(path.parent, "hmdb51")


def _sidecar(path: Path) -> object:
    path.with_name("a.engine").write_bytes(b"")
    return read_engine(path.with_name("a.engine"))


ENTRY = {
    "file": "videos/a.avi", "label": "wave", "roles": ["train", None, "test"], "frames": 9,
    "height": 8, "width": 8, "fps": 25.0, "duration": 0.36,
}  # fmt: skip
INDEX = {
    "format": "i3dzoo-index", "version": 1, "dataset": "hmdb51", "layout": "videos",
    "classes": ["wave"], "fps": None, "short_side": None, "flow": None,
}  # fmt: skip
HEADER = {"i3dzoo": "predictions", "model": "a" * 64, "protocol": "center", "split": "1"}
PREDICTION = {"video": "wave/a.avi", "label": 0, "clips": 1, "logits": [0.5, 1.0]}
RESULT = {"dataset": "hmdb51", "split": "test 1", "top1": 74.3, "top5": 91.9, "videos": 1530}
SIDECAR = {
    "format": 1, "library": "tensorrt", "version": "10.1", "gpu": None, "precision": "fp16",
    "shapes": {"clip": [[1], [1], [1]]}, "inputs": {"clip": {"shape": [1], "type": "FLOAT"}},
    "outputs": {}, "compatible": None, "refittable": False, "sha256": "0" * 64,
    "description": {"i3dzoo": "x"},
}  # fmt: skip
SPEC = {
    "model": {"backbone": "i3d", "input_type": "3d", "rgb_seq_length": 64},
    "dataset": {"train_dataset_dir": "a", "label_map": {"wave": 0}, "batch_size": 2},
    "train": {"optim": {"lr": 0.1, "lr_steps": [1]}, "num_epochs": 2},
}  # fmt: skip
RUN = {**run_document(labels=["a"], command=["a"]), "recipe": {"title": "a"}, "environment": {}}
RECIPE = {"title": "a", "optim": {"lr": 0.1}, "schedule": {"kind": "cosine", "steps": [1]}}
EVALUATION = {"results": [{"i3dzoo": "evaluation", **RESULT}]}
STEP = {"kind": "step", "step": 1, "epoch": 0.5, "loss": 1.0, "lr": 0.1}
KINDS = [
    Kind("run.json", (RUN,), lambda path: read_run(path.parent), JSON),
    Kind("metrics.jsonl", (STEP,), lambda path: read_metrics(path.parent), JSON),
    Kind("a.jsonl", (HEADER, PREDICTION), read_predictions, JSON),
    Kind("index.jsonl", (INDEX, ENTRY), read_index, JSON),
    Kind("results.json", (RESULT,), read_results, JSON),
    Kind("evaluation.json", (EVALUATION,), read_results, JSON),
    Kind("a.engine.json", (SIDECAR,), _sidecar, JSON),
    Kind("labels.json", ({"0": "wave", "1": "run"},), read_labels, JSON),
    Kind("list.json", (["wave", "run"],), read_labels, JSON),
    Kind("recipe.yaml", (RECIPE,), load_recipe, YAML),
    Kind("spec.yaml", (SPEC,), load_tao, YAML),
]  # fmt: skip
LINES = [
    Kind("labels.txt", ("wave",), read_labels, []),
    Kind("labels.csv", ("0,wave",), read_labels, []),
    Kind("SHA256SUMS", (f"{'0' * 64}  a",), read_sums, []),
    Kind("wave_test_split1.txt", ("a.avi 1",), _split_lists, []),
    Kind("table.toml", ("a = 1",), load_table, []),
]


def _documents(document: Any, values: list[str]) -> Iterator[str]:
    """Yield the document with each value in the place of each of its leaves, and as a key."""
    mark = "@@"

    def places(node: Any, rebuild: Callable[[Any], Any]) -> Iterator[Any]:
        yield rebuild(mark)
        if isinstance(node, dict):
            yield rebuild({mark: 1, **node})
            for key, item in node.items():
                yield from places(item, lambda new, k=key: rebuild({**node, k: new}))
        elif isinstance(node, list | tuple):
            for at, item in enumerate(node):
                yield from places(item, lambda new, i=at: rebuild([*node[:i], new, *node[i + 1 :]]))

    for place in places(document, lambda new: new):
        text = json.dumps(place)
        is_key = f'"{mark}":' in text
        for value in values:
            if not is_key or value.startswith('"'):
                yield text.replace(f'"{mark}"', value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_hostile_values_are_refused_in_one_sentence(kind: Kind, tmp_path: Path) -> None:
    """A value is accepted, or refused at once by an error of ours, whatever and wherever it is."""
    path, lines = tmp_path / kind.name, [json.dumps(line) for line in kind.lines]
    for number, line in enumerate(kind.lines):
        for text in _documents(line, kind.values):
            path.write_text("\n".join([*lines[:number], text, *lines[number + 1 :], ""]), "utf-8")
            _read(kind, path)


@pytest.mark.parametrize("kind", [*KINDS, *LINES], ids=lambda kind: kind.name)
def test_other_content_is_refused_in_one_sentence(kind: Kind, tmp_path: Path) -> None:
    """Bytes that are no text, no lines, or nested without end are one sentence, as pipes are."""
    path = tmp_path / kind.name
    for content in WHOLE:
        path.write_bytes(content)
        _read(kind, path)
    if kind.read is not _split_lists:
        path.unlink()
        os.mkfifo(path)
        if kind.read is _sidecar:
            path.with_name("a.engine").write_bytes(b"")
        with pytest.raises(I3DZooError, match=r"expected a regular file, found a pipe|is missing"):
            kind.read(path)


def _read(kind: Kind, path: Path) -> None:
    start, text = time.process_time(), f"{path.name} {path.parent.name}"
    try:
        kind.read(path)
    except I3DZooError as error:
        text = str(error)
    assert any(name in text for name in (path.name, path.parent.name))
    assert "\x1b" not in text
    assert len(text) < 2100
    assert time.process_time() - start < 1


@pytest.mark.parametrize("value", JSON)
def test_hostile_descriptions_are_refused(value: str) -> None:
    """The description in a checkpoint is read by the same rules."""
    with pytest.raises(I3DZooError, match=r"^a\.safetensors: "):
        parse_json(value, Metadata, "a.safetensors")
