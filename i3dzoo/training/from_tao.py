"""From a TAO spec to a task: what it trains on, what it begins with, and on which GPUs."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from i3dzoo.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.errors import DeviceError, RecipeError
from i3dzoo.loading import find
from i3dzoo.metadata import Metadata, Source, Stream, default_input
from i3dzoo.training.data import augmented_input
from i3dzoo.training.finetune import Task
from i3dzoo.training.recipe import Recipe, override
from i3dzoo.training.tao_records import TaoSpec, TaoStream

__all__ = ["choose_gpus", "tao_metadata", "tao_task"]


def tao_task(
    spec: TaoSpec, settings: Iterable[str] = (), folder: Path | None = None, **more: Any
) -> tuple[Task, Recipe, tuple[str, ...]]:
    """Make a task of a spec.

    Args:
        spec: Checked for the task `train`.
        settings: Of the recipe, as `override` takes them; they go before the spec.
        folder: Where the run is kept; None takes the spec's.
        more: Further attributes of the task.

    Returns:
        The task, its recipe, and remarks on what it begins with.

    Raises:
        RecipeError: A pretrained model is not what the spec says of it.
        I3DZooError: A pretrained model is unknown, cannot be fetched, or is unsound.
    """
    settings = tuple(settings)
    recipes = {part.stream: override(spec.recipe_of(part), settings) for part in spec.streams}
    recipe = recipes[spec.streams[0].stream]
    begun = [_begin(spec, part, recipe.loop.seed) for part in spec.streams]
    assert spec.train_dir is not None  # noqa: S101 - load_tao has checked it
    task = Task(
        checkpoints={part.stream: one for part, (one, _) in zip(spec.streams, begun, strict=True)},
        names={part.stream: part.pretrained or "random weights" for part in spec.streams},
        train_data=spec.train_dir,
        test_data=spec.val_dir or spec.train_dir,
        split=None,
        classes=spec.labels,
        folder=folder or spec.results_dir or Path("runs") / spec.path.stem,
        augments={stream: each.augment for stream, each in recipes.items()},
        at_once=recipe.loop.batch_size // (len(spec.gpu_ids) * spec.num_nodes) or 1,
        dataset=spec.train_dir.name,
        **more,
    )
    return task, recipe, tuple(remark for _, remark in begun if remark)


def _begin(spec: TaoSpec, part: TaoStream, seed: int) -> tuple[Checkpoint, str]:
    """Return what a stream begins with, and a remark if there is one."""
    if part.pretrained is None:
        return _random(part.stream, spec.labels, seed), (
            f"no pretrained {part.stream} model is named: training begins with random weights"
        )
    checkpoint = read_checkpoint(find(part.pretrained))
    found, where = checkpoint.metadata, f"{spec.path}: {part.pretrained}"
    if found.stream != part.stream:
        raise RecipeError(f"{where} is a {found.stream} model; expected {part.stream}")
    if part.pretrained_classes not in (None, found.num_classes):
        raise RecipeError(
            f"{where} has {found.num_classes} classes; the spec says "
            f"{part.pretrained_classes}: correct its pretrained_num_classes"
        )
    if found.num_classes != len(spec.labels):
        return checkpoint, ""
    if found.labels is None:
        # as in TAO: a head of so many classes is that of the label map, and goes on learning
        metadata = dataclasses.replace(found, labels=spec.labels)
        return dataclasses.replace(checkpoint, metadata=metadata), ""
    if found.labels != spec.labels:
        return checkpoint, (
            f"{part.pretrained} has as many classes as the label map, but others or in another "
            "order: its head is replaced by a fresh one"
        )
    return checkpoint, ""


def _random(stream: Stream, labels: tuple[str, ...], seed: int) -> Checkpoint:
    from i3dzoo.model import InceptionI3d

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InceptionI3d(len(labels), 3 if stream == "rgb" else 2)
    tensors = {
        name: tensor.detach().numpy()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    history = (f"random weights, seed {seed}",)
    source = Source("random", "0" * 64)
    return Checkpoint(
        tensors,
        Metadata(stream, len(labels), labels, default_input(stream), source, history=history),
    )


def tao_metadata(spec: TaoSpec, metadata: Metadata) -> Metadata:
    """Return a checkpoint's description with the input and the classes that a spec gives it.

    Raises:
        RecipeError: The spec is of two streams or of the other one, or has another number of
            classes.
    """
    if len(spec.streams) > 1:
        raise RecipeError(
            f"{spec.path}: is of two streams; evaluate a checkpoint of each, and their predictions "
            "together: i3dzoo evaluate RGB.jsonl FLOW.jsonl"
        )
    (part,) = spec.streams
    where = f"{spec.path}: {spec.evaluate.checkpoint}"
    if metadata.stream != part.stream:
        raise RecipeError(f"{where} is a {metadata.stream} model; expected {part.stream}")
    if spec.labels and len(spec.labels) != metadata.num_classes:
        raise RecipeError(
            f"{where} has {metadata.num_classes} classes; the label map has {len(spec.labels)}"
        )
    augment = spec.recipe_of(part).augment
    return dataclasses.replace(
        metadata,
        labels=spec.labels or metadata.labels,
        input=augmented_input(metadata.input, augment),
    )


def choose_gpus(ids: tuple[int, ...]) -> str:
    """Let this process see the GPUs that a spec lists, before it uses any.

    Each process of one machine takes one of them, by its place among them.

    Returns:
        A remark, or nothing.

    Raises:
        DeviceError: None of them is there, and others are.
    """
    count, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not count:
        return ""
    present = [number for number in ids if number < count]
    listed = ", ".join(map(str, ids))
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        return f"gpu_ids is {listed}: CUDA_VISIBLE_DEVICES is set and goes before it"
    if not present:
        raise DeviceError(
            f"gpu_ids is {listed}, and there are {count} GPUs, 0 to {count - 1}; list those"
        )
    if here > len(present):
        return f"gpu_ids is {listed}: {here} processes were started, each takes a GPU of its own"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, present))
    return ""
