"""Make the folder of a training run, with hostile names in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from i3dzoo.evaluation.prediction_file import PredictionWriter
from i3dzoo.evaluation.predictions import PredictionHeader, VideoPrediction
from i3dzoo.training.recipe import load_recipe

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"
LABELS = ["run", "wave", EVIL]


def run_document(**more: Any) -> dict[str, Any]:
    """Return the contents of a run.json."""
    return {
        "command": ["i3dzoo", "finetune", "hmdb51", "--data", "my data"],
        "recipe": load_recipe("smoke").to_dict(),
        "labels": LABELS,
        "environment": {"python": "3.11", EVIL: EVIL},
        "started": "2026-01-01T00:00:00+00:00",
        "source": {"model": "rgb_scratch", "dataset": EVIL},
        "result": "best.safetensors",
        **more,
    }


def make_run(folder: Path, videos: int = 30, **more: Any) -> Path:
    """Make a run folder with 60 steps, 3 epochs, and predictions of that many videos."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run_document(**more)))
    lines = []
    for step in range(1, 61):
        entry = {"kind": "step", "step": step, "epoch": step / 20, "loss": 2 / step, "lr": 0.01}
        lines.append({**entry, "top1": step / 60, "clips_per_second": 8.5, "data_wait": 0.02})
        if step % 20 == 0:
            numbers = {"val_loss": 1.25, "top1": 0.5 + step / 600, "top5": 1.0, "mean_class": 0.4}
            lines.append({"kind": "epoch", "epoch": step // 20, **numbers})
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    random = np.random.default_rng(0)
    logits = random.normal(size=(videos, 3)).tolist()
    add_predictions(folder, {f"{EVIL}/{row}.mov": values for row, values in enumerate(logits)})
    return folder


def add_predictions(folder: Path, logits: dict[str, list[float]]) -> None:
    """Append predictions by video to a run folder; the classes alternate."""
    header = PredictionHeader("a" * 64, "center", "1")
    with PredictionWriter(folder / "predictions.jsonl", header) as writer:
        for row, (video, values) in enumerate(logits.items()):
            writer.write(VideoPrediction(video, row % 2, np.array(values, "f4")))
