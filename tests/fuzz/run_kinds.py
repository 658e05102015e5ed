"""Run folders, predictions, results, training checkpoints, engines and their sidecars."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import msgspec
from helpers.run_folders import make_run

from fuzz import mutators as damage
from fuzz.kind import Kind
from fuzz.shared import Shared, finetune
from i3dzoo.engines.tensorrt_sidecar import Sidecar, TensorType
from i3dzoo.onnx.description import describe
from i3dzoo.onnx.options import ExportOptions


def _run(folder: Path, _: Shared) -> None:
    make_run(folder / "run", videos=6)


def _predictions(folder: Path, shared: Shared) -> None:
    _run(folder, shared)
    content = (folder / "run" / "predictions.jsonl").read_bytes()
    (folder / "rgb.jsonl").write_bytes(content)
    (folder / "flow.jsonl").write_bytes(content.replace(b"a" * 64, b"b" * 64))
    shutil.rmtree(folder / "run")


def _interrupted(folder: Path, shared: Shared) -> None:
    shutil.copytree(shared.interrupted, folder / "out" / "run", copy_function=os.link)


_RESULT = {"dataset": "hmdb51", "split": "test 1", "top1": 74.3, "top5": 91.9, "videos": 1530}
_EVALUATION = {
    "i3dzoo": "evaluation",
    "split": "1",
    "protocol": "center",
    "top1": 0.5,
    "top5": 0.9,
    "interval": [0.4, 0.6],
    "videos": 3,
}


def _results(folder: Path, _: Shared) -> None:
    document = {"results": [_RESULT, {**_RESULT, "split": "test 2"}]}
    (folder / "results.json").write_text(json.dumps(document))


def _evaluation_results(folder: Path, _: Shared) -> None:
    (folder / "results.json").write_text(json.dumps([{**_EVALUATION, "dataset": "hmdb51"}]))


def _pictures(folder: Path, shared: Shared) -> None:
    shutil.copy(shared.network, folder / "x.safetensors")
    from PIL import Image

    Image.new("RGB", (40, 30)).save(folder / "training_curves.png")


def _engine(folder: Path, shared: Shared) -> None:
    plan = bytes(range(256)) * 8
    (folder / "x.engine").write_bytes(plan)
    shape = (1, 3, 9, 32, 32)
    sidecar = Sidecar(
        library="tensorrt",
        version="10.0.1",
        gpu=None,
        precision="fp32",
        shapes={"input_rgb": (shape, shape, shape)},
        inputs={"input_rgb": TensorType(shape, "FLOAT")},
        outputs={"fc_pred": TensorType((1, 5), "FLOAT")},
        compatible=None,
        refittable=False,
        sha256=hashlib.sha256(plan).hexdigest(),
        description=describe([shared.checkpoint], ExportOptions()),
    )
    (folder / "x.engine.json").write_bytes(json.dumps(msgspec.to_builtins(sidecar)).encode())


_REPORT = ("report", "run", "-o", "out/report.html", "--no-plots")
_PUSH = ("push", "{shared}/rgb.safetensors", "alice/x", "--license", "Apache-2.0", "--dry-run")
_ENGINE = ("predict", "{shared}/video.avi", "--model", "x.engine")

KINDS = (
    Kind("run.json", _run, {"run/run.json": damage.damage_json}, _REPORT, 0.3),
    Kind("metrics", _run, {"run/metrics.jsonl": damage.damage_json_lines}, _REPORT, 0.3),
    Kind("predictions of a run", _run, {"run/predictions.jsonl": damage.damage_json_lines},
         _REPORT, 0.3),
    Kind("curves of a run", _run, {"run/*.json*": damage.damage_json_lines},
         ("report", "run", "-o", "out/report.html"), 0.2, partial=("*.png", "*.html")),
    Kind("predictions", _predictions, {"*.jsonl": damage.damage_json_lines},
         ("evaluate", "rgb.jsonl", "flow.jsonl", "--results", "out/results.json")),
    Kind("training checkpoint", _interrupted,
         {"out/run/checkpoints/*.pt": damage.damage_zip},
         (*finetune("{shared}", 2), "-o", "out/run", "--resume"), 0.02, partial=("run/*",)),
    Kind("run to resume", _interrupted,
         {"out/run/run.json": damage.damage_json, "out/run/metrics.jsonl":
          damage.damage_json_lines},
         (*finetune("{shared}", 2), "-o", "out/run", "--resume"), 0.02, partial=("run/*",)),
    Kind("results", _results, {"results.json": damage.damage_json},
         (*_PUSH, "--results", "results.json"), 0.4),
    Kind("results of an evaluation", _evaluation_results, {"results.json": damage.damage_json},
         (*_PUSH, "--results", "results.json"), 0.4),
    Kind("pictures", _pictures, {"training_curves.png": damage.damage_bytes},
         ("push", "x.safetensors", "alice/x", "--license", "Apache-2.0", "--dry-run"), 0.2),
    Kind("engine", _engine, {"x.engine": damage.damage_bytes}, _ENGINE, 0.5, code=1),
    Kind("sidecar", _engine, {"x.engine.json": damage.damage_json}, _ENGINE, code=1),
)  # fmt: skip
