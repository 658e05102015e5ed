"""The record of a fine-tuning job, and the clips that its recipe makes of the data."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.metadata import Input, Stream
from i3dzoo.devices import Device
from i3dzoo.training.checkpointing import Position
from i3dzoo.training.recipe import Augment
from i3dzoo.video import TRAIN, Sampling
from i3dzoo.video.dataset import OnBadVideo


@dataclass(frozen=True)
class TrainingJob:
    """The models to fine-tune, the data, and the folder of the run.

    Attributes:
        checkpoints: Initial weights by stream; two streams are trained together, and their logits
            are summed.
        names: How the user named the checkpoints, by stream, for the record.
        test_data: The data to evaluate on; None takes the test videos of `train_data`.
        split: 1, 2 or 3; None takes all videos of both folders, and `test_data` is required.
        classes: Class names in the order of the logits; None takes those of the dataset.
        cache_bytes: Limit of the cache of decoded frames; 0 caches none.
        dataset: Name of the dataset, for the record; as `command`, the command as typed.
        augments: How to make the clips of a stream, if the streams differ; others use the recipe.
        max_clips: Clips that a device takes at once: a larger share of the batch is cut into parts.
            None leaves this to the recipe.
        keep: Which weights to keep: `best`, `last` or both. With `last`, the checkpoint for
            resuming is kept too.
        end_epoch: Called on the main process after each epoch, with the weights of each stream.
    """

    checkpoints: Mapping[Stream, Checkpoint]
    names: Mapping[Stream, str]
    train_data: Path
    test_data: Path | None
    split: int | None
    classes: Sequence[str] | None
    folder: Path
    on_bad_video: OnBadVideo = "error"
    cache_bytes: int = 0
    device: Device = "auto"
    dataset: str = "videos"
    command: Sequence[str] = ()
    augments: Mapping[Stream, Augment] = field(default_factory=dict)
    max_clips: int | None = None
    keep: Collection[str] = ("last", "best")
    end_epoch: Callable[[Position, Mapping[Stream, Checkpoint]], None] | None = None


def augmented_input(spec: Input, augment: Augment, *, training: bool = False) -> Input:
    """Return a checkpoint's input with the values that a recipe replaces.

    With `training`, it is the input of training clips, which may be resized in another way.
    """
    fps = spec.fps
    if augment.fps == "native":
        fps = None
    elif augment.fps != "checkpoint":
        fps = augment.fps
    keys = ("frames", "resize", "crop", "sampling", "mean", "std")
    changed = {key: getattr(augment, key) for key in keys}
    test_mode = None if training else augment.test_resize_mode
    changed["resize_mode"] = test_mode or augment.resize_mode
    changed = {key: value for key, value in changed.items() if value is not None}
    return spec.replace(**changed, fps=fps)


def training_sampling(augment: Augment) -> Sampling:
    """Return which window and crop of a video a training clip is."""
    crop: Literal["random", "centre"] = "random" if augment.train_crop == "random" else "centre"
    return replace(TRAIN, crop=crop, flip=augment.flip)
