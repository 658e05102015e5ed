"""The records that a TAO spec is translated to; `i3dzoo.tao.spec` makes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from i3dzoo.errors import RecipeError
from i3dzoo.training.recipe import Recipe

Task = Literal["train", "evaluate", "inference", "export"]

# Keys outside the section `train` that only training uses.
_TRAIN_ONLY = (
    "wandb.",
    "model.rgb_pretrained",
    "model.of_pretrained",
    "model.joint_pretrained",
    "model.imagenet_pretrained",
    "dataset.train_dataset_dir",
    "dataset.augmentation_config.train_crop_type",
)
NEEDED: dict[Task, tuple[str, ...]] = {
    "train": ("dataset.train_dataset_dir", "dataset.label_map"),
    "evaluate": ("evaluate.checkpoint", "evaluate.test_dataset_dir"),
    "inference": ("inference.checkpoint", "inference.inference_dataset_dir"),
    "export": ("export.checkpoint",),
}


@dataclass(frozen=True)
class Refusal:
    """A value that i3dzoo does not support, with the key as the spec writes it, and the reason."""

    key: str
    written: str
    reason: str

    def concerns(self, task: Task) -> bool:
        """Return whether a task uses the value."""
        section = self.key.partition(".")[0]
        if self.key.startswith(_TRAIN_ONLY):
            section = "train"
        return section == task or section not in NEEDED


@dataclass(frozen=True)
class TaoStream:
    """One stream of a spec; mean and standard deviation are in 0..1, by channel.

    Without a pretrained model, it starts from random weights.
    """

    stream: Literal["rgb", "flow"]
    frames: int
    pretrained: str | None
    pretrained_classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class TaoRun:
    """The section `evaluate` or `inference`; the protocol is that of `i3dzoo evaluate`."""

    checkpoint: str | None
    data_dir: Path | None
    batch_size: int
    protocol: str
    results_dir: Path | None
    gpu_ids: tuple[int, ...]


@dataclass(frozen=True)
class TaoExport:
    """The section `export`."""

    checkpoint: str | None
    onnx_file: Path | None
    batch_size: int
    results_dir: Path | None
    gpu_id: int


@dataclass(frozen=True)
class TaoSpec:
    """A translated spec.

    Attributes:
        recipe: How to train; for a joint spec, the RGB stream (see `recipe_of`). `loop.batch_size`
            is TAO's batch size, which is per GPU, times the number of GPUs.
        streams: The streams, RGB first.
        train_dir: Training data: `<class>/<video>/{rgb,u,v}/` images, or videos.
        gpu_ids: GPUs on each of `num_nodes` machines.
        notes: Remarks on keys without effect, and on differences from TAO.
        refused: Values that i3dzoo does not support; `check` raises those that a task uses.
        needs: For each task, the keys that it needs and that are not set.
        folders: Where TAO writes the results of each task: a folder of its own in `results_dir`.
        wandb: Arguments of `wandb.init`; None if the spec does not use Weights & Biases.
    """

    path: Path
    recipe: Recipe
    stream: Literal["rgb", "flow", "joint"]
    streams: tuple[TaoStream, ...]
    train_dir: Path | None
    val_dir: Path | None
    label_map: Mapping[str, int]
    results_dir: Path | None
    resume: Path | None
    gpu_ids: tuple[int, ...]
    num_nodes: int
    evaluate: TaoRun
    inference: TaoRun
    export: TaoExport
    notes: tuple[str, ...]
    refused: tuple[Refusal, ...]
    needs: Mapping[Task, tuple[str, ...]]
    folders: Mapping[Task, Path]
    wandb: Mapping[str, Any] | None

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names in the order of their indices."""
        return tuple(sorted(self.label_map, key=self.label_map.__getitem__))

    def recipe_of(self, stream: TaoStream) -> Recipe:
        """Return the recipe with the frames, mean and standard deviation of a stream."""
        augment = replace(
            self.recipe.augment, frames=stream.frames, mean=stream.mean, std=stream.std
        )
        return replace(self.recipe, augment=augment)

    def check(self, task: Task) -> None:
        """Check that i3dzoo supports everything that a task uses."""
        reasons = [
            f"{refusal.written} {refusal.reason}"
            for refusal in self.refused
            if refusal.concerns(task)
        ]
        reasons += [f"{key} is not set, but {task} needs it" for key in self.needs[task]]
        reasons = list(dict.fromkeys(reasons))  # an older key can stand for several newer ones
        if reasons:
            raise RecipeError(f"{self.path}: {'; '.join(reasons)}")
