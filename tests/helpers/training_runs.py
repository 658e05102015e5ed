"""Small training runs for tests, which can be killed and run in parallel."""

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from helpers.cli import call
from torch import Tensor, nn

from i3dzoo.distributed import ProcessGroup
from i3dzoo.network.architecture import Unit
from i3dzoo.network.i3d import ConvUnit
from i3dzoo.progress import SILENT, Progress
from i3dzoo.training import checkpointing
from i3dzoo.training.checkpointing import Position
from i3dzoo.training.loop import train
from i3dzoo.training.metric_logger import read_metric_lines
from i3dzoo.training.recipe import load_recipe, override
from i3dzoo.training.streams import Streams
from i3dzoo.training.train_step import make_accelerator, processes_of
from i3dzoo.video import BadVideo, Sample
from i3dzoo.video.bad_videos import BadVideos
from i3dzoo.video.generate import Shape, generate, invent
from i3dzoo.video.prepare import prepare

BAD = (3, 4, 10)


class Noise:
    """Clips of seeded noise whose class is their brightness; some stand for unreadable videos."""

    classes = ("dark", "bright")

    def __init__(self, count: int = 16) -> None:
        self.labels = [number % 2 for number in range(count)]

    clip_shapes = None

    def sample(self, epoch: int, number: int) -> Sample:
        """Return float32 [1, 3, 9, 32, 32]."""
        noise = np.random.default_rng([epoch, number]).standard_normal((3, 9, 32, 32), dtype="f4")
        clip = torch.from_numpy(noise * 0.2 + self.labels[number] - 0.5)
        bad = (BadVideo(f"bad {number}", "for the test"),) if number in BAD else ()
        return Sample({"rgb": clip[None]}, self.labels[number], number, bad)

    def stack(self, epoch: int, numbers: Iterable[int]) -> Tensor:
        """Return a batch of clips."""
        return torch.cat([self.sample(epoch, number).views["rgb"] for number in numbers])

    def normalise(self, stream: str, clips: Tensor) -> Tensor:  # noqa: ARG002 - one stream
        """Return the clips as they are."""
        return clips


class Small(nn.Module):
    """A small network of I3D's units with I3D's names."""

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
    """Return a network with seeded weights and the statistics of `Noise`."""
    torch.manual_seed(0)
    model = Small()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(Noise().stack(0, range(8)))
    for norm in norms:
        norm.momentum = 0.1
    return Streams({"rgb": model})  # type: ignore[dict-item] # it has what training uses


BASE = ["network.freeze=none", "network.batchnorm=frozen", "optim.lr=0.0005"]
BASE += ["optim.clip_grad_norm=5", "loop.epochs=3", "loop.batch_size=8"]


class NoiseTrainer:
    """Evaluates on noise, and keeps the weights as PyTorch files."""

    facts: dict[str, Any] = {}  # noqa: RUF012 - the protocol has an attribute

    def __init__(self, folder: Path, clips: Noise, processes: ProcessGroup) -> None:
        self.folder, self.clips, self.processes = folder, clips, processes
        self.bad_videos = BadVideos(processes)

    def begin(self) -> None:
        """Do nothing."""

    def needs_evaluation(self) -> bool:
        """Return that the last weights need no evaluation."""
        return False

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Measure the network on eight clips."""
        with torch.inference_mode():
            for _ in range(self.processes.rank):  # processes may take different numbers of batches
                network({"rgb": self.clips.stack(99, [0])})
            logits = network({"rgb": self.clips.stack(99, range(8))})
        labels = torch.tensor(self.clips.labels[:8])
        loss = nn.functional.cross_entropy(logits, labels)
        return {"loss": float(loss), "top1": float((logits.argmax(1) == labels).float().mean())}

    def end_epoch(self, streams: Streams, position: Position) -> None:
        """Use nothing."""

    def keep(self, name: str, streams: Streams, metrics: Mapping[str, float]) -> None:
        """Write the weights and the metrics."""
        with (self.folder / f"{name}.pt").open("wb") as file:
            torch.save(streams.state_dict(), file)
        (self.folder / f"{name}.json").write_text(json.dumps(metrics))


def run(
    folder: Path, settings: Iterable[str] = (), progress: Progress = SILENT
) -> tuple[Position, Streams]:
    """Train on noise, or resume the run in a folder; return where it ended, and the network."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = override(load_recipe("smoke"), [*BASE, *settings])
    accelerator = make_accelerator(recipe, "cpu")
    streams, clips = network(), Noise()
    trainer = NoiseTrainer(folder, clips, processes_of(accelerator))
    options: Any = {"accelerator": accelerator, "resume": checkpointing.latest(folder)}
    position = train(recipe, streams, clips, trainer, folder, progress=progress, **options)
    if accelerator.is_main_process:
        (folder / "bad.json").write_text(json.dumps(list(trainer.bad_videos.reasons)))
    return position, streams


# An epoch of three steps on the clips of `three_motions` with five in each class.
SMOKE = [
    "--recipe", "smoke", "--set", "augment.frames=9", "--set", "network.batchnorm=frozen",
    "--set", "loop.batch_size=4", "--set", "loop.epochs=1", "--set", "optim.lr=0.001",
    "--set", "optim.head_lr_scale=1",
]  # fmt: skip
THREE = ("brush_hair", "fencing", "kick_ball")  # still, moving left fast, turning fast


def three_motions(folder: Path, per_class: int = 14) -> Path:
    """Generate and prepare three classes of HMDB51 whose motions are very different."""
    generate(folder / "source", invent(per_class, THREE), Shape(frames=16))
    return prepare("hmdb51", folder / "source", folder / "prepared").path.parent


def finetune(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `i3dzoo finetune` on the CPU."""
    return call("finetune", *arguments, "--device", "cpu")


def losses(folder: Path) -> list[float]:
    """Return the training losses of a run."""
    return [line["loss"] for line in read_metric_lines(folder / "metrics.jsonl") if "loss" in line]


def train_on_noise(folder: Path, settings: Iterable[str]) -> None:
    """Do what `run` does, and return nothing, as processes that work together must."""
    run(folder, settings)


def run_traced(folder: Path, settings: Iterable[str]) -> None:
    """Train on noise with a torch.compile that only traces, which takes seconds less."""
    torch.compile = partial(torch.compile, backend="aot_eager")  # type: ignore[assignment]
    run(folder, settings)


def run_until_save(number: int, folder: Path, settings: Iterable[str]) -> None:
    """Train on noise, and kill this process when half of a checkpoint, from 1, is written."""
    save, left = torch.save, [number]

    def half(content: dict[str, Any], file: BinaryIO) -> None:
        whole = io.BytesIO()
        save(content, whole)
        left[0] -= "position" in content
        if left[0] or "position" not in content:
            file.write(whole.getvalue())
            return
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half  # type: ignore[assignment] # for the test
    run(folder, settings)
