"""Small runs for the tests of training: also a program, so that it can be killed and parallel.

python tests/training_runs.py WEIGHTS FOLDER [--resume] [--set KEY=VALUE ...]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from i3dzoo.checkpoint import read_checkpoint
from i3dzoo.head import change_head
from i3dzoo.loading import build
from i3dzoo.training import state
from i3dzoo.training.engine import make_accelerator
from i3dzoo.training.loop import Result, Run, train
from i3dzoo.training.network import Streams
from i3dzoo.training.recipe import load_recipe, override


class Noise:
    """Clips of seeded noise whose class is their brightness."""

    classes = ("dark", "bright")

    def __init__(self, count: int = 16) -> None:
        self.labels = [number % 2 for number in range(count)]

    def clip(self, epoch: int, number: int) -> dict[str, Tensor]:
        """Return float32 [3, 9, 32, 32]."""
        noise = np.random.default_rng([epoch, number]).standard_normal((3, 9, 32, 32), dtype="f4")
        return {"rgb": torch.from_numpy(noise * 0.2 + self.labels[number] - 0.5)}

    def normalise(self, stream: str, clips: Tensor) -> Tensor:  # noqa: ARG002 - one stream
        """Return the clips as they are."""
        return clips


def network(weights: Path) -> Streams:
    """Return the genuine network with a seeded head of two classes."""
    return Streams({"rgb": build(change_head(read_checkpoint(weights), 2))})


def run(
    weights: Path, folder: Path, settings: list[str], resume: Path | None = None
) -> tuple[Result, Streams]:
    """Train on noise by the smoke recipe; return the result and the trained network."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = override(load_recipe("smoke"), settings)
    accelerator = make_accelerator(recipe, "cpu")
    streams = network(weights)
    clips = Noise()

    def evaluate(module: nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            batch = torch.stack([clips.clip(99, number)["rgb"] for number in range(8)])
            logits = module({"rgb": batch})
        labels = torch.tensor(clips.labels[:8])
        loss = nn.functional.cross_entropy(logits, labels)
        return {"loss": float(loss), "top1": float((logits.argmax(1) == labels).float().mean())}

    def keep(name: str, trained: Streams, metrics: dict[str, float]) -> None:
        torch.save(trained.state_dict(), folder / f"{name}.pt")
        (folder / f"{name}.json").write_text(json.dumps(metrics))

    return train(Run(recipe, streams, clips, evaluate, keep, folder), accelerator, resume), streams


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    resume = state.latest(arguments.folder) if arguments.resume else None
    run(arguments.weights, arguments.folder, arguments.settings, resume)


if __name__ == "__main__":
    main()
