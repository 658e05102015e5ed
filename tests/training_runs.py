"""Small runs for the tests of training: also a program, so that it can be killed and parallel.

python tests/training_runs.py FOLDER [--resume] [--die-in-save N] [--set KEY=VALUE ...]
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i3dzoo.architecture import Unit
from i3dzoo.model import ConvUnit
from i3dzoo.training import state
from i3dzoo.training.bad_videos import BadVideos
from i3dzoo.training.clips import Clip
from i3dzoo.training.engine import make_accelerator
from i3dzoo.training.loop import Result, Run, train
from i3dzoo.training.network import Streams
from i3dzoo.training.recipe import load_recipe, override
from i3dzoo.video import BadVideo
from i3dzoo.video.generate import Shape, generate, invent
from i3dzoo.video.prepare import prepare

BAD = (3, 4, 10)


class Noise:
    """Clips of seeded noise whose class is their brightness; some say that they are substitutes."""

    classes = ("dark", "bright")

    def __init__(self, count: int = 16) -> None:
        self.labels = [number % 2 for number in range(count)]

    def clip(self, epoch: int, number: int) -> Clip:
        """Return float32 [3, 9, 32, 32]."""
        noise = np.random.default_rng([epoch, number]).standard_normal((3, 9, 32, 32), dtype="f4")
        views = {"rgb": torch.from_numpy(noise * 0.2 + self.labels[number] - 0.5)}
        bad = (BadVideo(f"bad {number}", "for the test"),) if number in BAD else ()
        return Clip(views, self.labels[number], bad)

    def normalise(self, stream: str, clips: Tensor) -> Tensor:  # noqa: ARG002 - one stream
        """Return the clips as they are."""
        return clips


class Small(nn.Module):
    """A network of I3D's own units, under its names, that is small enough for many runs."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = ConvUnit(Unit("Conv3d_1a_7x7", 3, 8, 7), 3, stride=2)
        self.Mixed_4b = ConvUnit(Unit("Mixed_4b", 8, 8, 3), 8)
        self.Mixed_4c = ConvUnit(Unit("Mixed_4c", 8, 8, 1), 8)
        self.dropout = nn.Dropout(0.5)
        head = nn.ModuleDict({"conv": nn.Conv3d(8, 2, 1)})
        self.Logits = nn.ModuleDict({"Conv3d_0c_1x1": head})

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 3, T, H, W] to logits [B, 2]."""
        x = self.Mixed_4c(self.Mixed_4b(self.Conv3d_1a_7x7(x)))
        pooled = self.dropout(x.mean((2, 3, 4), keepdim=True))
        logits: Tensor = self.get_submodule("Logits.Conv3d_0c_1x1.conv")(pooled)
        return logits.flatten(1)


def network() -> Streams:
    """Return a network with seeded weights and the statistics of such clips."""
    torch.manual_seed(0)
    model = Small()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.stack([Noise().clip(0, number).views["rgb"] for number in range(8)]))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 0.1
    return Streams({"rgb": model})  # type: ignore[dict-item] # it has all that training uses


BASE = (
    "network.freeze=none",
    "network.batchnorm=frozen",
    "optim.lr=0.0005",
    "optim.clip_grad_norm=5",
    "loop.epochs=3",
    "loop.batch_size=8",
)


def run(folder: Path, settings: list[str], resume: Path | None = None) -> tuple[Result, Streams]:
    """Train on noise by a small recipe; return the result and the trained network."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = override(load_recipe("smoke"), [*BASE, *settings])
    accelerator = make_accelerator(recipe, "cpu")
    streams = network()
    clips = Noise()

    def evaluate(module: nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            for _ in range(accelerator.process_index):  # processes need not take equally many
                module({"rgb": clips.clip(99, 0).views["rgb"][None]})
            batch = torch.stack([clips.clip(99, number).views["rgb"] for number in range(8)])
            logits = module({"rgb": batch})
        labels = torch.tensor(clips.labels[:8])
        loss = nn.functional.cross_entropy(logits, labels)
        return {"loss": float(loss), "top1": float((logits.argmax(1) == labels).float().mean())}

    def keep(name: str, trained: Streams, metrics: dict[str, float]) -> None:
        torch.save(trained.state_dict(), folder / f"{name}.pt")
        (folder / f"{name}.json").write_text(json.dumps(metrics))

    told: list[BadVideo] = []
    bad = BadVideos(accelerator, told.append)
    result = train(
        Run(recipe, streams, clips, evaluate, keep, folder, bad=bad), accelerator, resume
    )
    if accelerator.is_main_process:
        (folder / "bad.json").write_text(json.dumps([one.file for one in told]))
    return result, streams


THREE = ("brush_hair", "fencing", "kick_ball")  # still, moving left fast, turning fast


def three_motions(folder: Path, per_class: int = 14) -> Path:
    """Generate and prepare three classes of HMDB51's shape whose motions are very different."""
    generate(folder / "source", invent(per_class, THREE), Shape(frames=16))
    return prepare("hmdb51", folder / "source", folder / "prepared").path.parent


def finetune(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `i3dzoo finetune` on the CPU, as a user does."""
    return launch("i3dzoo", "finetune", *arguments, "--device", "cpu")


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a module in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def die_in_save(number: int) -> None:
    """Have this process killed when half of a checkpoint is on the disk."""
    save, left = torch.save, [number]

    def half(content: Any, file: Any) -> None:
        left[0] -= 1
        if left[0] or not isinstance(content, dict) or "position" not in content:
            left[0] += not (isinstance(content, dict) and "position" in content)
            save(content, file)
            return
        whole = io.BytesIO()
        save(content, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        os.fsync(file.fileno())
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half  # type: ignore[assignment] # for the test


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--die-in-save", type=int, help="Number of the save to die in, from 1.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.die_in_save:
        die_in_save(arguments.die_in_save)
    resume = state.latest(arguments.folder) if arguments.resume else None
    run(arguments.folder, arguments.settings, resume)


if __name__ == "__main__":
    main()
