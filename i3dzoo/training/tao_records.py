"""What a TAO spec says, as records; tao.py makes them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from i3dzoo.errors import RecipeError
from i3dzoo.training.recipe import Recipe

__all__ = ["NEEDED", "Refusal", "TaoExport", "TaoRun", "TaoSpec", "TaoStream", "Task"]

Task = Literal["train", "evaluate", "inference", "export"]

# What concerns training alone, outside the section `train`.
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
    """A value that i3dzoo does not do.

    Attributes:
        key: By its newer name.
        written: The key as the spec writes it.
        reason: What its value is, why it is refused, and what to do.
    """

    key: str
    written: str
    reason: str

    def concerns(self, task: Task) -> bool:
        """Say whether the value matters to a task."""
        section = self.key.partition(".")[0]
        if self.key.startswith(_TRAIN_ONLY):
            section = "train"
        return section == task or section not in NEEDED


@dataclass(frozen=True)
class TaoStream:
    """What a spec says of one stream.

    Attributes:
        stream: `rgb` or `flow`.
        frames: Of one clip.
        pretrained: Checkpoint to begin with, as written; None begins with random weights.
        pretrained_classes: Its number of classes; None says that it has those of the label map.
        mean: Of each channel, in 0..1.
        std: Likewise.
    """

    stream: Literal["rgb", "flow"]
    frames: int
    pretrained: str | None
    pretrained_classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class TaoRun:
    """The section `evaluate` or `inference`.

    Attributes:
        checkpoint: What is evaluated.
        data_dir: Videos by class; for inference, a folder of videos.
        batch_size: Clips at once on each GPU.
        protocol: As `i3dzoo evaluate` takes it.
        results_dir: Where results go.
        gpu_ids: The GPUs.
    """

    checkpoint: str | None
    data_dir: Path | None
    batch_size: int
    protocol: str
    results_dir: Path | None
    gpu_ids: tuple[int, ...]


@dataclass(frozen=True)
class TaoExport:
    """The section `export`.

    Attributes:
        checkpoint: What is exported.
        onnx_file: Where to.
        batch_size: Clips of the example input.
        results_dir: Where the file goes if `onnx_file` is not set.
        gpu_id: The GPU.
    """

    checkpoint: str | None
    onnx_file: Path | None
    batch_size: int
    results_dir: Path | None
    gpu_id: int


@dataclass(frozen=True)
class TaoSpec:
    """A spec, translated.

    Attributes:
        path: The file.
        recipe: How to train; of a joint spec, its RGB stream (see `recipe_of`).
            `loop.batch_size` is TAO's batch size, which is per GPU, times the number of GPUs;
            where fewer are present, the loop accumulates to the same batch.
        stream: `rgb`, `flow`, or `joint` for both.
        streams: The streams, RGB first.
        train_dir: `<class>/<video>/{rgb,u,v}/` images, or videos.
        val_dir: Likewise.
        label_map: Name of each class to its index.
        results_dir: Where results go; None is the caller's default.
        resume: Checkpoint of an interrupted run.
        gpu_ids: GPUs on each node.
        num_nodes: Machines.
        evaluate: The section of that name.
        inference: Likewise.
        export: Likewise.
        notes: Remarks: keys without a meaning here, and what is done otherwise than in TAO.
        refused: Values that i3dzoo does not do; `check` raises those that matter to a task.
        needs: Keys that are not set and that a task cannot do without.
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

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes in the order of their indices."""
        return tuple(sorted(self.label_map, key=self.label_map.__getitem__))

    def recipe_of(self, stream: TaoStream) -> Recipe:
        """Return the recipe of one stream: its frames, mean and standard deviation."""
        augment = replace(
            self.recipe.augment, frames=stream.frames, mean=stream.mean, std=stream.std
        )
        return replace(self.recipe, augment=augment)

    def check(self, task: Task) -> None:
        """Make sure that i3dzoo does all that the spec asks for in a task.

        Raises:
            RecipeError: It does not; the message names each key with the reason.
        """
        reasons = [
            f"{refusal.written} {refusal.reason}"
            for refusal in self.refused
            if refusal.concerns(task)
        ]
        reasons += [f"{key} is not set, and {task} needs it" for key in self.needs[task]]
        reasons = list(dict.fromkeys(reasons))  # one older key may stand for several newer ones
        if reasons:
            raise RecipeError(f"{self.path}: {'; '.join(reasons)}")
