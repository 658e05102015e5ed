"""From checkpoints, a dataset and a recipe to a run: everything around the loop."""

import contextlib
import platform
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from i3dzoo import hub
from i3dzoo._files import make_folder
from i3dzoo.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checksums import sha256
from i3dzoo.errors import DependencyError, RecipeError
from i3dzoo.evaluate import one_by_one, parse_protocol, predict_videos
from i3dzoo.head import change_head
from i3dzoo.loading import build
from i3dzoo.metadata import Stream
from i3dzoo.training.bad_videos import BadVideos
from i3dzoo.training.data import (
    OnBadVideo,
    VideoClips,
    augmented_input,
    open_streams,
    training_sampling,
)
from i3dzoo.training.engine import make_accelerator
from i3dzoo.training.identity import facts_of
from i3dzoo.training.loop import Result, Run, train
from i3dzoo.training.metrics import evaluate_logits
from i3dzoo.training.network import Streams, frozen_prefixes
from i3dzoo.training.plan import accumulation
from i3dzoo.training.predictions import Prediction, PredictionWriter
from i3dzoo.training.predictions import Run as PredictionRun
from i3dzoo.training.processes import gathered, shared
from i3dzoo.training.recipe import Augment, Recipe
from i3dzoo.training.run_files import PREDICTIONS
from i3dzoo.training.run_record import environment, where_to_begin, write_run
from i3dzoo.training.state import sweep
from i3dzoo.video import BadVideo, FrameCache

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Task", "finetune"]


@dataclass(frozen=True)
class Task:
    """What to fine-tune, and on what.

    Attributes:
        checkpoints: By stream; two are trained together, their logits summed.
        names: What the user called them, for the record.
        train_data: A prepared dataset, or a folder in TAO's layout.
        test_data: Likewise; None takes the test videos of `train_data`.
        split: 1, 2 or 3; None where the folders hold one role each, and `test_data` is needed.
        classes: Names of the classes in the order of the logits; None takes the dataset's.
        folder: Where the run is kept.
        on_bad_video: `error` or `skip`.
        cache_bytes: Most bytes of decoded frames to keep; 0 keeps none.
        device: `auto` or `cpu`.
        dataset: What the data is called, for the record.
        command: As typed, for the record.
        augments: How clips of a stream are made, where streams differ; else the recipe's.
        at_once: Most clips that a device takes at once: a larger share of the batch is cut into
            parts. None leaves that to the recipe.
        keep: What is kept at the end: `best` and `last`, canonical files; with `last` also the
            checkpoint that resuming needs.
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
    device: str = "auto"
    dataset: str = "hmdb51"
    command: Sequence[str] = ()
    augments: Mapping[Stream, Augment] = field(default_factory=dict)
    at_once: int | None = None
    keep: Collection[str] = ("last", "best")


def finetune(
    task: Task,
    recipe: Recipe,
    *,
    resume: bool | Path = False,
    watch: Callable[[Mapping[str, Any]], None] = lambda _: None,
    tell: Callable[[BadVideo], None] = lambda _: None,
    remark: Callable[[str], None] = lambda _: None,
) -> Result:
    """Fine-tune: train, evaluate, and leave canonical files that say how they were made.

    Args:
        task: What, and on what.
        recipe: How.
        resume: Go on with the run in `task.folder`, from its newest checkpoint, or from this one.
        watch: Called after each step and evaluation with what was journalled.
        tell: Called once with each video that cannot be read, where those are skipped.
        remark: Called on the main process with what is done otherwise than asked for.

    Raises:
        I3DZooError: The data, the recipe or the folder does not do, or training cannot go on.
    """
    accelerator = make_accelerator(recipe, task.device)
    main = accelerator.is_main_process
    remarks: list[str] = []
    checkpoint = where_to_begin(task.folder, resume, remarks) if main else None
    recipe = _fitted(task, recipe, accelerator, remarks)
    for text in remarks if main else []:
        remark(text)
    torch.backends.cudnn.benchmark = recipe.loop.cudnn_benchmark
    torch.backends.cudnn.deterministic = recipe.loop.cudnn_deterministic
    torch.manual_seed(recipe.loop.seed)
    job = _Job(task, recipe, accelerator, _frame_cache(task.cache_bytes, accelerator), tell)
    if main:
        make_folder(task.folder)
        if resume:
            sweep(task.folder)
    accelerator.wait_for_everyone()
    run = job.run(watch, resumed=checkpoint is not None)
    result = train(run, accelerator, shared(checkpoint, accelerator))
    if main:
        job.finish()
    return result


def _fitted(task: Task, recipe: Recipe, accelerator: "Accelerator", remarks: list[str]) -> Recipe:
    """Return the recipe for the devices that there are: the batch stays as it is."""
    frozen_prefixes(recipe.network.freeze)  # which raises before anything is begun
    loop, world = recipe.loop, accelerator.num_processes
    if loop.precision == "fp16" and accelerator.device.type == "cpu":
        remarks.append("loop.precision is fp16, which needs a GPU: fp32 on this CPU")
        loop = replace(loop, precision="fp32")
    if task.at_once and loop.accumulate == 1 and loop.batch_size > task.at_once * world:
        parts = accumulation(loop.batch_size, world, task.at_once) or 1
        remarks.append(
            f"the batch of {loop.batch_size} is meant for {loop.batch_size // task.at_once} GPUs "
            f"with {task.at_once} clips each; it stays the same, in {parts} parts on "
            f"{'one device' if world == 1 else f'each of {world} devices'}"
        )
        loop = replace(loop, accumulate=parts)
    return replace(recipe, loop=loop)


class _Job:
    """The parts of a run that know files: datasets, checkpoints, predictions."""

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        accelerator: "Accelerator",
        cache: FrameCache | None,
        tell: Callable[[BadVideo], None],
    ) -> None:
        self.task, self.recipe, self.accelerator = task, recipe, accelerator
        self.bad = BadVideos(accelerator, tell)
        augment = recipe.augment
        specs = {
            stream: augmented_input(
                checkpoint.metadata.input, task.augments.get(stream, recipe.augment)
            )
            for stream, checkpoint in task.checkpoints.items()
        }
        common: dict[str, Any] = {"on_bad_video": task.on_bad_video, "cache": cache}
        split = task.split
        if split is None and task.test_data is None:
            raise RecipeError(
                f"{task.train_data}: without a split all its videos are trained on; name others "
                "to evaluate, with --test-data"
            )
        train_role, test_role = ("train", "test") if split is not None else (None, None)
        training = open_streams(
            task.train_data,
            specs,
            split,
            train_role,  # type: ignore[arg-type] # one of the two roles
            training_sampling(augment),
            seed=recipe.loop.seed,
            **common,
        )
        self.testing = open_streams(
            task.test_data or task.train_data,
            specs,
            split,
            test_role,  # type: ignore[arg-type] # likewise
            parse_protocol(recipe.evaluation.protocol),
            **common,
        )
        for one in next(iter(training.values())).unusable:
            self.bad.meet(one)
        self.clips = VideoClips(training, task.classes, augment.clips_per_video)
        self.test_clips = VideoClips(self.testing, self.clips.classes)
        self.checkpoints = {
            stream: self._with_head(checkpoint, specs[stream])
            for stream, checkpoint in task.checkpoints.items()
        }
        self.streams = self._networks()
        self.predictions: list[Prediction] = []
        self.result = "best" if "best" in task.keep else "last"

    def run(self, watch: Callable[[Mapping[str, Any]], None], *, resumed: bool) -> Run:
        """Return what the loop is given."""
        return Run(
            self.recipe,
            self.streams,
            self.clips,
            self.evaluate,
            self.keep,
            self.task.folder,
            watch,
            self.bad,
            facts_of(self.task, self.clips, self.test_clips),
            partial(self.describe, resumed=resumed),
            self.unmeasured,
        )

    def _networks(self) -> Streams:
        networks = {str(stream): build(found).float() for stream, found in self.checkpoints.items()}
        if self.recipe.network.init == "random":
            for network in networks.values():
                for module in network.modules():
                    if isinstance(module, nn.Conv3d | nn.BatchNorm3d):
                        module.reset_parameters()
        return Streams(networks)

    def _with_head(self, checkpoint: Checkpoint, spec: Any) -> Checkpoint:
        labels = self.clips.classes
        head = None if checkpoint.metadata.labels == labels else "fresh"
        changed = change_head(
            checkpoint,
            len(labels),
            labels,
            head,  # type: ignore[arg-type] # a literal, or None to keep what fits
            self.recipe.loop.seed,
        )
        return replace(changed, metadata=replace(changed.metadata, input=spec))

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Predict every test video once, over all processes, and measure."""
        accelerator = self.accelerator
        own = list(
            predict_videos(
                one_by_one(network),
                self.testing,
                labels=self.test_clips.labels,
                device=accelerator.device,
                batch_size=self.recipe.evaluation.batch_size,
                rank=accelerator.process_index,
                world=accelerator.num_processes,
                workers=self.recipe.loop.workers,
                skipped=self.bad.meet,
            )
        )
        # in one order, whatever the number of processes
        self.predictions = sorted(gathered(own, accelerator), key=lambda one: one.video)
        self.bad.gather()
        if not self.predictions:
            raise RecipeError("no test video could be used, so there is nothing to go by")
        logits = torch.stack([torch.from_numpy(one.logits) for one in self.predictions]).numpy()
        labels = torch.tensor([one.label for one in self.predictions]).numpy()
        found = evaluate_logits(logits, labels)
        return {
            "loss": found.loss,
            "top1": found.top1,
            "top5": found.top5,
            "mean_class": found.mean_class,
            "videos": found.videos,
        }

    def keep(self, name: str, streams: Streams, metrics: dict[str, float]) -> None:
        """Write the networks as canonical files, and the predictions of the best beside them."""
        if name == "last" and not self._exists(self.result):
            self.result = "last"  # no evaluation of this run was a best one
        if name not in (*self.task.keep, self.result):
            return
        for stream, network in streams.networks.items():
            self._write(name, stream, network, metrics)
        if name == self.result and self.predictions:
            path = self.task.folder / PREDICTIONS
            path.unlink(missing_ok=True)
            digest = sha256(self._path(name, next(iter(streams.networks))))
            split = str(self.task.split or "none")
            protocol, data = self.recipe.evaluation.protocol, self.test_clips.digest
            asked = PredictionRun(digest, protocol, split, data)
            with PredictionWriter(path, asked) as writer:
                for prediction in self.predictions:
                    writer.write(prediction)

    def unmeasured(self) -> bool:
        """Say whether what is kept at the end is the result, and has not been evaluated here."""
        last = self.result == "last" or not self._exists(self.result)
        return shared(last, self.accelerator) and not self.predictions

    def _exists(self, name: str) -> bool:
        return self._path(name, next(iter(self.checkpoints))).exists()

    def _path(self, name: str, stream: str) -> Path:
        alone = len(self.checkpoints) == 1
        return self.task.folder / (
            f"{name}.safetensors" if alone else f"{name}_{stream}.safetensors"
        )

    def _write(self, name: str, stream: str, network: nn.Module, metrics: dict[str, float]) -> None:
        origin = next(found for key, found in self.checkpoints.items() if key == stream)
        values = network.state_dict()
        tensors = {key: values[key].detach().cpu().numpy() for key in origin.tensors}
        accuracy = f", top-1 {metrics['top1']:.4f}" if metrics else ""
        others = [other for other in self.checkpoints if other != stream]
        if accuracy and others:
            accuracy += f" together with {others[0]}"
        split = f" split {self.task.split}" if self.task.split else ""
        entry = (
            f"fine-tuned{_from_hub(self.task.names, stream)} on {self.task.dataset}{split} "
            f"by '{self.recipe.title}'{accuracy} ({self.recipe.evaluation.protocol})"
        )
        old, base = origin.metadata, origin.metadata.zoo or origin.metadata.base
        metadata = replace(old, zoo=None, base=base, history=(*old.history, entry))
        checkpoint = replace(origin, tensors=tensors, metadata=metadata)
        write_checkpoint(self._path(name, stream), checkpoint, force=True)

    def describe(self, *, resumed: bool, finished: bool = False) -> None:
        """Write run.json, which the report is made of."""
        task = self.task
        first = next(iter(self.checkpoints))
        document: dict[str, Any] = {
            "command": list(task.command or sys.argv),
            "recipe": self.recipe.to_dict(),
            "labels": list(self.clips.classes),
            "environment": environment(self.accelerator),
            "source": {
                "model": " + ".join(task.names.values()),
                "dataset": task.dataset,
                "split": task.split,
                "training videos": len(self.clips.videos),
                "test videos": len(self.test_clips.videos),
            },
            "stream": first if len(self.checkpoints) == 1 else "joint",
            "data": str((task.test_data or task.train_data).absolute()),
            "result": self._path(self.result, first).name,
        }
        for stream, augment in task.augments.items():
            if augment != self.recipe.augment:
                document[f"augment of {stream}"] = asdict(augment)
        if self.bad.found:
            document["videos that cannot be read"] = self.bad.found
        write_run(task.folder, document, resumed=resumed, finished=finished)

    def finish(self) -> None:
        """Write the report and its pictures, and say in run.json that the run is finished."""
        from i3dzoo.training.report import read_folder, write_report
        from i3dzoo.training.report_plots import plot_run

        self.describe(resumed=True, finished=True)
        found = read_folder(self.task.folder)
        write_report(found)
        with contextlib.suppress(DependencyError):  # pictures need the extra plot
            plot_run(found, self.task.folder)
        if "last" not in self.task.keep:
            shutil.rmtree(self.task.folder / "checkpoints", ignore_errors=True)


def _frame_cache(limit: int, accelerator: "Accelerator") -> FrameCache | None:
    """Return the one cache of this machine's processes."""
    if not limit:
        return None
    own = FrameCache(limit) if accelerator.is_local_main_process else None
    made = [] if own is None else [(platform.node(), str(own.folder))]
    folders: dict[str, str] = dict(gathered(made, accelerator))
    return own or FrameCache.of(folders[platform.node()], limit)


def _from_hub(names: Mapping[Stream, str], stream: str) -> str:
    """Return the repository that a stream began with, for the base model of its card."""
    name = next(name for key, name in names.items() if key == stream)
    if not hub.is_address(name) or Path(name).exists():
        return ""
    return f" from {hub.parse(name).repository}"
