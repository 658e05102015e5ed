"""Inputs that several kinds share and that are not damaged, each made when it is first needed."""

import dataclasses
import os
import traceback
from functools import cached_property
from pathlib import Path

import numpy as np
from helpers.checkpoints import described
from helpers.cli import call
from helpers.exported import noisy
from helpers.training_runs import THREE
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.labels import labels
from i3dzoo.checkpoints.streams import change_dtype
from i3dzoo.video.generate import Shape, generate, invent
from i3dzoo.video.prepare import prepare

RECIPE = """title: two steps
network: {dropout: 0.0, batchnorm: frozen, freeze: trunk}
augment: {frames: 9, resize: 36, crop: 32, train_crop: center, flip: 0.0, fps: native}
optim: {kind: sgd, lr: 0.01, momentum: 0.9, weight_decay: 1.0e-7, head_lr_scale: 1.0}
schedule: {kind: multistep, steps: [1, 2], decay: 0.1}
loop: {epochs: 1, max_steps: 1, batch_size: 2, precision: fp32, seed: 1, workers: 0}
evaluation: {protocol: center, batch_size: 4}
"""


class Shared:
    """A folder with a network of each stream, a video, and a prepared dataset of three classes.

    Commands name them `{shared}/rgb.safetensors` and so on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(RECIPE)

    def make(self, word: str) -> None:
        """Make what a word of a command names."""
        files = {
            "rgb.safetensors": "network",
            "flow.safetensors": "flow_network",
            "motions.safetensors": "motions_network",
            "multi.safetensors": "multi_label_network",
            "video.avi": "video",
            "source": "source",
            "data": "data",
        }
        name = word.removeprefix("{shared}/")
        if name != word and name in files:
            getattr(self, files[name])

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """An RGB network of 5 classes for clips of 16 frames of 32x32, in half precision."""
        network = noisy("rgb", 5)
        # several layouts do not store the scales of BatchNorm, which are ones there
        tensors = {
            name: np.ones_like(array) if name.endswith("bn.weight") else array
            for name, array in network.tensors.items()
        }
        checkpoint = change_dtype(dataclasses.replace(network, tensors=tensors), "float16")
        return described(checkpoint, input=checkpoint.metadata.input.replace(frames=9))

    @cached_property
    def network(self) -> Path:
        """The network as a canonical file."""
        return write_checkpoint(self.folder / "rgb.safetensors", self.checkpoint)

    @cached_property
    def flow_network(self) -> Path:
        """A network for optical flow as a canonical file."""
        flow = change_dtype(noisy("flow", 5), "float16")
        return write_checkpoint(self.folder / "flow.safetensors", flow)

    @cached_property
    def motions_network(self) -> Path:
        """The network with a head for the classes of `data`."""
        tensors = dict(self.checkpoint.tensors)
        for name in list(tensors):
            if name.startswith("Logits"):
                tensors[name] = np.ascontiguousarray(tensors[name][:3])
        metadata = self.checkpoint.metadata.replace(num_classes=3, labels=THREE)
        checkpoint = dataclasses.replace(self.checkpoint, tensors=tensors, metadata=metadata)
        return write_checkpoint(self.folder / "motions.safetensors", checkpoint)

    @cached_property
    def multi_label_network(self) -> Path:
        """The same for videos with several classes."""
        network = self.motions_network  # makes it
        checkpoint = read_checkpoint(network)
        metadata = checkpoint.metadata.replace(multi_label=True)
        return write_checkpoint(
            self.folder / "multi.safetensors", dataclasses.replace(checkpoint, metadata=metadata)
        )

    @cached_property
    def video(self) -> Path:
        """A video of 24 frames of 48x40."""
        return write_video(self.folder / "video.avi", numbered(24, 40, 48), codec="mjpeg",
                           pixels="yuvj420p")  # fmt: skip

    @cached_property
    def source(self) -> Path:
        """Clips of three classes of HMDB51, two of each, with split lists."""
        assert set(THREE) <= set(labels("hmdb51"))
        generate(self.folder / "source", invent(2, THREE), Shape(height=36, width=48, frames=12))
        return self.folder / "source"

    @cached_property
    def data(self) -> Path:
        """The prepared clips."""
        prepare("hmdb51", self.source, self.folder / "data", jobs=1)
        return self.folder / "data"

    @cached_property
    def interrupted(self) -> Path:
        """The folder of a run that was stopped after one of two steps."""
        words = finetune("{shared}", 1)
        for word in words:
            self.make(word)
        run_apart(*(word.format(shared=self.folder) for word in words), "-o", self.folder / "run")
        return self.folder / "run"


def finetune(shared: str, steps: int) -> tuple[str, ...]:
    """Return the words of a command that trains for one or two steps."""
    return (
        "finetune", "motions", "--data", f"{shared}/data", "--from",
        f"{shared}/motions.safetensors", "--recipe", f"{shared}/recipe.yaml", "--device", "cpu",
        "--keep", "last", "--set", f"loop.max_steps={steps}", "--set", "loop.save_every=1",
    )  # fmt: skip


def run_apart(*words: object) -> None:
    """Run a command in a fork of this process, which has imported what the command needs."""
    child = os.fork()
    if not child:
        code = 1
        try:
            call(*words, code=0)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"i3dzoo {words[0]} failed; its traceback is above"
