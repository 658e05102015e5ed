"""Train and evaluate by a TAO spec: data, initial weights and GPUs."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.metadata import Metadata, Source, Stream, default_input
from i3dzoo.devices import Device
from i3dzoo.distributed import is_main_process
from i3dzoo.errors import DeviceError, RecipeError
from i3dzoo.evaluation.run import EvaluationConfig
from i3dzoo.fetch.find import find, open_checkpoint
from i3dzoo.progress import SILENT, Progress
from i3dzoo.tao.records import TaoSpec, TaoStream
from i3dzoo.tao.spec import load_tao
from i3dzoo.training.finetune import FinetuneResult, run_job
from i3dzoo.training.job import TrainingJob, augmented_input
from i3dzoo.training.recipe import Recipe, override


def train_spec(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    settings: Iterable[str] = (),
    folder: Path | None = None,
    resume: bool = False,
    device: Device = "auto",
    progress: Progress = SILENT,
    **options: Any,
) -> FinetuneResult:
    """Fine-tune as the section `train` of a spec defines.

    The overrides replace keys of the spec (`model.backbone=i3d`), and the settings keys of the
    recipe (`loop.precision=bf16`); the folder and the options, attributes of the `TrainingJob`.
    """
    spec = load_tao(path, overrides)
    job, recipe, notes = tao_job(spec, settings, folder, device=device, **options)
    gpu_note = choose_gpus(spec.gpu_ids, device)
    with contextlib.ExitStack() as stack:
        wandb_note = log_to_wandb(spec, stack)
        show_notes(spec, (*spec.notes, *notes, gpu_note, wandb_note), progress)
        return run_job(job, recipe, resume=spec.resume or resume, progress=progress)


def log_to_wandb(spec: TaoSpec, stack: contextlib.ExitStack) -> str:
    """Log the run's TensorBoard metrics to Weights & Biases too, if the spec asks for it.

    Return a note if that is not possible, or nothing.
    """
    if spec.wandb is None or not is_main_process():
        return ""
    try:
        import wandb
    except ImportError:
        return "wandb.enable is true, but wandb is not installed: metrics stay in the run's folder"
    if not (wandb.api.api_key or os.environ.get("WANDB_MODE") in ("offline", "disabled")):
        return "wandb.enable is true, but nobody is logged in: run wandb login to log there"
    stack.enter_context(wandb.init(**spec.wandb))
    return ""


def tao_job(
    spec: TaoSpec, settings: Iterable[str] = (), folder: Path | None = None, **options: Any
) -> tuple[TrainingJob, Recipe, tuple[str, ...]]:
    """Return the job that the section `train` of a spec defines, its recipe, and notes.

    The settings replace keys of the recipe; the folder and the options, attributes of the job.
    """
    settings = tuple(settings)
    recipes = {part.stream: override(spec.recipe_of(part), settings) for part in spec.streams}
    recipe = recipes[spec.streams[0].stream]
    notes: list[str] = []
    assert spec.train_dir is not None  # noqa: S101 - load_tao has checked it
    job = TrainingJob(
        checkpoints={
            part.stream: _initial_checkpoint(spec, part, recipe.loop.seed, notes)
            for part in spec.streams
        },
        names={part.stream: part.pretrained or "random weights" for part in spec.streams},
        train_data=spec.train_dir,
        test_data=spec.val_dir or spec.train_dir,
        split=None,
        classes=spec.labels,
        folder=folder or spec.results_dir or Path("runs") / spec.path.stem,
        augments={stream: stream_recipe.augment for stream, stream_recipe in recipes.items()},
        max_clips=recipe.loop.batch_size // (len(spec.gpu_ids) * spec.num_nodes) or 1,
        dataset=spec.train_dir.name,
        **options,
    )
    return job, recipe, tuple(notes)


def _initial_checkpoint(spec: TaoSpec, part: TaoStream, seed: int, notes: list[str]) -> Checkpoint:
    """Return the initial weights of a stream, and add to the notes on them."""
    if part.pretrained is None:
        notes.append(
            f"no pretrained {part.stream} model is set: training starts from random weights"
        )
        return _random(part.stream, spec.labels, seed)
    checkpoint = open_checkpoint(find(part.pretrained))
    metadata, where = checkpoint.metadata, f"{spec.path}: {part.pretrained}"
    _check_stream(where, metadata, part)
    if part.pretrained_classes not in (None, 0, metadata.num_classes):  # 0 is any number
        notes.append(
            f"pretrained_num_classes is {part.pretrained_classes}, but {part.pretrained} has "
            f"{metadata.num_classes} classes, which are used"
        )
    if metadata.num_classes == len(spec.labels):
        if metadata.labels is None:
            # as in TAO, a head with as many classes as the label map is the head of the label map
            return dataclasses.replace(checkpoint, metadata=metadata.replace(labels=spec.labels))
        if metadata.labels != spec.labels:
            notes.append(
                f"{part.pretrained} has as many classes as the label map, but other ones or in "
                "another order: a fresh head replaces its head"
            )
    return checkpoint


def _check_stream(where: str, metadata: Metadata, part: TaoStream) -> None:
    if metadata.stream != part.stream:
        raise RecipeError(
            f"{where}: expected a {part.stream} model, found a {metadata.stream} model"
        )


def _random(stream: Stream, labels: tuple[str, ...], seed: int) -> Checkpoint:
    from i3dzoo.pretrained import InceptionI3d

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InceptionI3d(len(labels), 3 if stream == "rgb" else 2)
    tensors = {
        name: tensor.detach().numpy()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    history = (HistoryStep(operation="initialise", seed=seed),)
    source = Source("random", "0" * 64)
    return Checkpoint(
        tensors,
        Metadata(stream, len(labels), labels, default_input(stream), source, history=history),
    )


def tao_metadata(spec: TaoSpec, model: str | None, metadata: Metadata) -> Metadata:
    """Return the metadata of a checkpoint with the input and the classes of a spec."""
    if len(spec.streams) > 1:
        raise RecipeError(
            f"{spec.path}: the spec has two streams; evaluate the checkpoint of each stream, and "
            "then their predictions together: i3dzoo evaluate RGB.jsonl FLOW.jsonl"
        )
    (part,) = spec.streams
    where = f"{spec.path}: {model}"
    _check_stream(where, metadata, part)
    if spec.labels and len(spec.labels) != metadata.num_classes:
        raise RecipeError(
            f"{where}: expected {len(spec.labels)} classes as in the label map, found "
            f"{metadata.num_classes}"
        )
    augment = spec.recipe_of(part).augment
    return metadata.replace(
        labels=spec.labels or metadata.labels,
        input=augmented_input(metadata.input, augment),
    )


def evaluation_config(
    path: str | Path,
    overrides: Iterable[str] = (),
    *,
    output: Path | None = None,
    device: Device = "auto",
    progress: Progress = SILENT,
    **options: Any,
) -> tuple[str, EvaluationConfig]:
    """Return the model and the evaluation that the section `evaluate` of a spec defines.

    The output folder and the options replace attributes of the `EvaluationConfig`.
    """
    spec = load_tao(path, overrides, task="evaluate")
    run = spec.evaluate
    gpu_note = choose_gpus(run.gpu_ids, device)
    show_notes(spec, (*spec.notes, gpu_note), progress)
    assert run.checkpoint is not None  # noqa: S101 - load_tao has checked it
    config = EvaluationConfig(
        run.data_dir,
        split=None,
        protocol=run.protocol,
        output=output or run.results_dir or Path("predictions"),
        batch_size=run.batch_size,
        device=device,
        describe=partial(tao_metadata, spec, run.checkpoint),
        **options,
    )
    return run.checkpoint, config


def show_notes(spec: TaoSpec, notes: Iterable[str], progress: Progress) -> None:
    """Show notes on the main process, each with the name of the spec."""
    for note in filter(None, notes):
        if is_main_process():
            progress.message(f"{spec.path.name}: {note}")


def choose_gpus(ids: tuple[int, ...], device: Device) -> str:
    """Restrict this process to the GPUs that a spec lists, before it uses any.

    A device that is not `auto` or `cuda` has priority.

    Of several processes on one machine, each uses one of these GPUs. Return a note, or nothing.
    """
    if device not in ("auto", "cuda"):
        return ""
    count, processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not count:
        return ""
    present = [number for number in ids if number < count]
    listed = ", ".join(map(str, ids))
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        return f"gpu_ids is {listed}, but CUDA_VISIBLE_DEVICES is set and has priority"
    if not present:
        raise DeviceError(
            f"gpu_ids is {listed}, but there are {count} GPUs, 0 to {count - 1}; list some of those"
        )
    if processes > len(present):
        return f"gpu_ids is {listed}, but {processes} processes were started; each uses its own GPU"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, present))
    return ""
