"""run.json, metrics.jsonl and predictions.jsonl: read, written, and refused when damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.run_folders import add_predictions, make_run, run_document

from i3dzoo.errors import FormatError, MissingFileError, ShapeError, TrainingError
from i3dzoo.report import run_folder
from i3dzoo.report.run_folder import read_metrics, read_run, read_run_folder


def test_steps_that_were_done_again_count_once(tmp_path: Path) -> None:
    """After a resume from an earlier step, the later record of a step is the one that holds."""
    steps = [(1, 5.0), (2, 4.0), (3, 3.0), (2, 4.5), (3, 3.5), (4, 2.5)]
    lines = [json.dumps({"kind": "step", "step": s, "loss": loss}) for s, loss in steps]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "st')
    history = read_metrics(tmp_path)
    assert history.steps["step"].tolist() == [1, 2, 3, 4]
    assert history.steps["loss"].tolist() == [5, 4.5, 3.5, 2.5]
    assert np.isnan(history.steps["lr"]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1: is not valid JSON"),
        ("[]", "line 1: expected .*mapping"),
        ('{"kind": "step", "step": "a"}', "line 1: step: expected an integer"),
        ('{"kind": "epoch", "val_loss": 1}', "line 1: epoch: missing"),
        ('{"kind": "step", "step": 1, "loss": true}', "loss: expected .*number"),
        ({"labels": None}, r"run\.json: labels: expected"),
        ({"labels": [1]}, r"labels\[0\]: expected text, found 1"),
        ({"command": "i3dzoo"}, "command: expected"),
        ({"recipe": []}, "recipe: expected"),
        ({"stream": "depth"}, "stream: expected .*, found 'depth'"),
        ({"started": 5}, "started: expected text, found 5"),
        ({"lables": []}, "lables: unknown key; did you mean labels"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: str | dict[str, Any], message: str) -> None:
    """A line of metrics.jsonl, or a key of run.json, that is missing or wrong is named."""
    line, changes = (content, {}) if isinstance(content, str) else ("", content)
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
    (tmp_path / "run.json").write_text(json.dumps(run_document(**changes)))
    with pytest.raises(FormatError, match=message):
        read_run_folder(tmp_path)


def test_a_resumed_run_keeps_its_first_command(tmp_path: Path) -> None:
    """Each further command is listed once, and text that is not Unicode is escaped."""
    common: dict[str, Any] = {"recipe": {}, "labels": ("a",), "environment": {}}
    for number, command in enumerate(["first", "second", "first", "third\udcff", "second"]):
        run = run_folder.RunRecord(
            command=(command,), source=run_folder.RunSource(), started=str(number), **common
        )
        run_folder.write_run(tmp_path, run, resumed=number > 0)
    run = read_run(tmp_path)
    assert (run.command, run.started) == (("first",), "0")
    assert run.resumed == (("second",), ("third\\udcff",))


def test_folders_that_are_refused(tmp_path: Path) -> None:
    """A missing file, labels that do not fit, and logits that are not finite are named."""
    with pytest.raises(MissingFileError, match=r"run\.json: the file does not exist"):
        read_run_folder(tmp_path)
    folder = make_run(tmp_path / "labels", labels=["a", "b"])
    with pytest.raises(ShapeError, match=r"expected 2 logits per video, .* found 3"):
        read_run_folder(folder)
    folder = make_run(tmp_path / "nan", videos=1)
    add_predictions(folder, {"b": [float("nan"), 1, 2]})
    with pytest.raises(TrainingError, match="the logits of video 1 are not finite"):
        read_run_folder(folder)
