"""Evaluate a fine-tuning run, and write the files of its folder."""

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from torch import nn

from i3dzoo import hub
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.metadata import Input, Stream
from i3dzoo.digests import sha256
from i3dzoo.errors import DependencyError, RecipeError, TrainingError
from i3dzoo.evaluation.metrics import evaluate_logits
from i3dzoo.evaluation.prediction_file import PredictionWriter
from i3dzoo.evaluation.predictions import PredictionHeader, VideoPrediction
from i3dzoo.evaluation.protocols import parse_protocol
from i3dzoo.pretrained import build
from i3dzoo.progress import Progress
from i3dzoo.report.run_folder import (
    PREDICTIONS,
    RunRecord,
    RunSource,
    read_run_folder,
    timestamp,
    write_run,
)
from i3dzoo.training.checkpointing import Position
from i3dzoo.training.job import TrainingJob, augmented_input, training_sampling
from i3dzoo.training.recipe import Recipe
from i3dzoo.training.streams import Streams
from i3dzoo.training.train_step import environment, processes_of
from i3dzoo.training.validation import predict_validation
from i3dzoo.video import FrameCache, VideoDataset
from i3dzoo.video.bad_videos import BadVideos
from i3dzoo.video.index_file import read_index
from i3dzoo.video.splits import Role

if TYPE_CHECKING:
    from accelerate import Accelerator


class FinetuneTrainer:
    """Opens the data and the networks of a job, evaluates, and writes the files of the run.

    It is an `i3dzoo.training.loop.Trainer`; `clips` and `streams` are what the loop trains.
    """

    def __init__(
        self,
        job: TrainingJob,
        recipe: Recipe,
        accelerator: "Accelerator",
        *,
        cache: FrameCache | None,
        resumed: bool,
        progress: Progress,
    ) -> None:
        self.job, self.recipe, self.accelerator, self.resumed = job, recipe, accelerator, resumed
        self.processes = processes_of(accelerator)
        self.bad_videos = BadVideos(self.processes, progress)
        self._inputs = self._augmented(training=False)
        self._open_data(cache)
        self.checkpoints = {
            stream: self._with_head(checkpoint, self._inputs[stream])
            for stream, checkpoint in job.checkpoints.items()
        }
        self.streams = self._build_networks()
        self._predictions: list[VideoPrediction] = []
        self._result = "best" if "best" in job.keep else "last"

    def _augmented(self, *, training: bool) -> dict[Stream, Input]:
        augments = self.job.augments
        return {
            stream: augmented_input(
                checkpoint.metadata.input,
                augments.get(stream, self.recipe.augment),
                training=training,
            )
            for stream, checkpoint in self.job.checkpoints.items()
        }

    def _open_data(self, cache: FrameCache | None) -> None:
        job, recipe = self.job, self.recipe
        if job.split is None and job.test_data is None:
            raise RecipeError(
                f"{job.train_data}: without a split, all its videos are used for training; name "
                "other videos for the evaluation with --test-data"
            )
        test_index = read_index(job.test_data or job.train_data)
        split = job.split
        roles: tuple[Role | None, Role | None] = (None, None)
        if split is not None:
            roles = ("train", test_index.held_out(split, training=True))
        self.clips = VideoDataset(
            job.train_data,
            self._augmented(training=True),
            job.split,
            roles[0],
            training_sampling(recipe.augment),
            classes=job.classes,
            clips_per_video=recipe.augment.clips_per_video,
            seed=recipe.loop.seed,
            on_bad_video=job.on_bad_video,
            cache=cache,
        )
        self.test_clips = VideoDataset(
            test_index,
            self._inputs,
            job.split,
            roles[1],
            parse_protocol(recipe.evaluation.protocol),
            classes=self.clips.classes,
            on_bad_video=job.on_bad_video,
            cache=cache,
        )
        if self.clips.targets is not None:
            raise TrainingError(
                f"{job.train_data}: its videos have several classes, and i3dzoo trains networks "
                "for one class a clip; give each video one class"
            )
        if len(self.clips.classes) < 2:
            raise TrainingError(
                f"{job.train_data}: has one class ({self.clips.classes[0]}), which leaves nothing "
                "to learn; add videos of another class, such as a class of all other actions"
            )
        for video in self.clips.unusable:
            self.bad_videos.add(video)

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values, besides the recipe, that must not change when the run is resumed."""
        facts: dict[str, Any] = {
            "split": self.job.split,
            "keep": ",".join(sorted(self.job.keep)),
            "training_videos": len(self.clips.videos),
            "training_videos_digest": self.clips.digest,
            "test_videos": len(self.test_clips.videos),
            "test_videos_digest": self.test_clips.digest,
        }
        for stream, spec in self._inputs.items():
            facts[f"{stream}_model_digest"] = _digest(self.job.checkpoints[stream].tensors)
            facts[f"{stream}_network"] = str(self.job.checkpoints[stream].metadata.variant)
            for key, value in spec.to_dict().items():
                facts[f"{stream}_input_{key}"] = value
        return facts

    def _build_networks(self) -> Streams:
        networks = {str(key): build(value).float() for key, value in self.checkpoints.items()}
        if self.recipe.network.init == "random":
            for network in networks.values():
                for module in network.modules():
                    if isinstance(module, nn.Conv3d | nn.BatchNorm3d):
                        module.reset_parameters()
        return Streams(networks)

    def _with_head(self, checkpoint: Checkpoint, spec: Input) -> Checkpoint:
        labels = self.clips.classes
        head: Literal["fresh"] | None = None if checkpoint.metadata.labels == labels else "fresh"
        changed = change_head(checkpoint, len(labels), labels, head, self.recipe.loop.seed)
        metadata = changed.metadata.replace(input=spec, multi_label=False)
        return replace(changed, metadata=metadata)

    def begin(self) -> None:
        """Write run.json."""
        self._write_run(resumed=self.resumed)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Predict every test video once, over all processes, and return the metrics."""
        predictions = list(
            predict_validation(
                network,
                self.test_clips,
                device=self.accelerator.device,
                batch_size=self.recipe.evaluation.batch_size,
                processes=self.processes,
                workers=self.recipe.loop.workers,
                skipped=self.bad_videos.add,
            )
        )
        # sorted, so that the order does not depend on the number of processes
        self._predictions = sorted(
            self.processes.gather(predictions), key=lambda prediction: prediction.video
        )
        self.bad_videos.gather()
        if not self._predictions:
            raise RecipeError("no test video could be read, so there is nothing to evaluate")
        metrics = evaluate_logits(
            np.stack([prediction.logits for prediction in self._predictions]),
            np.array([prediction.label for prediction in self._predictions]),
        )
        keys = ("loss", "top1", "top5", "mean_class", "videos")
        return {key: getattr(metrics, key) for key in keys}

    def keep(self, name: str, streams: Streams, metrics: Mapping[str, float]) -> None:
        """Write the networks as canonical files, and with the result its predictions."""
        if name == "last" and not self._exists(self._result):
            self._result = "last"  # this run has no best weights
        if name not in (*self.job.keep, self._result):
            return
        for stream in self.checkpoints:
            network = streams.networks.get_submodule(stream)
            checkpoint = self._checkpoint(stream, network, metrics)
            write_checkpoint(self._path(name, stream), checkpoint, force=True)
        if name == self._result and self._predictions:
            path = self.job.folder / PREDICTIONS
            path.unlink(missing_ok=True)
            header = PredictionHeader(
                model=sha256(self._path(name, next(iter(self.checkpoints)))),
                protocol=self.recipe.evaluation.protocol,
                split=str(self.job.split or "none"),
                data=self.test_clips.digest,
            )
            with PredictionWriter(path, header) as writer:
                writer.write_missing(self._predictions)

    def needs_evaluation(self) -> bool:
        """Return whether `last` is the result of the run, and was not evaluated in this process."""
        is_last = self._result == "last" or not self._exists(self._result)
        return self.processes.broadcast(is_last) and not self._predictions

    @property
    def files(self) -> tuple[Path, ...]:
        """The canonical files of the result, RGB before flow."""
        return tuple(self._path(self._result, stream) for stream in self.checkpoints)

    def _exists(self, name: str) -> bool:
        return self._path(name, next(iter(self.checkpoints))).exists()

    def _path(self, name: str, stream: Stream) -> Path:
        suffix = "" if len(self.checkpoints) == 1 else f"_{stream}"
        return self.job.folder / f"{name}{suffix}.safetensors"

    def end_epoch(self, streams: Streams, position: Position) -> None:
        """Pass the weights to the job's `end_epoch`."""
        if self.job.end_epoch is not None:
            checkpoints = {
                stream: self._checkpoint(
                    stream, streams.networks.get_submodule(stream), position.metrics
                )
                for stream in self.checkpoints
            }
            self.job.end_epoch(position, checkpoints)

    def _checkpoint(
        self, stream: Stream, network: nn.Module, metrics: Mapping[str, float]
    ) -> Checkpoint:
        origin = self.checkpoints[stream]
        values = network.state_dict()
        tensors = {key: values[key].detach().cpu().numpy() for key in origin.tensors}
        others = [other for other in self.checkpoints if other != stream]
        step = HistoryStep(
            operation="finetune",
            base_model=_hub_repository(self.job.names[stream]) or origin.metadata.origin,
            dataset=self.job.dataset,
            split=str(self.job.split) if self.job.split else None,
            recipe=self.recipe.title,
            protocol=self.recipe.evaluation.protocol if metrics else None,
            metrics={key: metrics[key] for key in ("top1", "top5") if key in metrics},
            evaluated_with=others[0] if metrics and others else None,
        )
        metadata = origin.metadata.changed(step)
        return replace(origin, tensors=tensors, metadata=metadata)

    def _write_run(self, *, resumed: bool, finished: bool = False) -> None:
        """Write run.json, which the report reads."""
        job, now = self.job, timestamp()
        streams = tuple(self.checkpoints)
        source = RunSource(
            model=" + ".join(job.names.values()),
            dataset=job.dataset,
            split=job.split,
            training_videos=len(self.clips.videos),
            test_videos=len(self.test_clips.videos),
        )
        record = RunRecord(
            command=tuple(job.command or sys.argv),
            recipe=self.recipe.to_dict(),
            labels=self.clips.classes,
            environment=environment(self.accelerator),
            source=source,
            started=now,
            finished=now if finished else None,
            stream=streams[0] if len(streams) == 1 else "joint",
            data=str((job.test_data or job.train_data).absolute()),
            result=self._path(self._result, streams[0]).name,
            augment={
                stream: msgspec.to_builtins(augment)
                for stream, augment in job.augments.items()
                if augment != self.recipe.augment
            },
            unreadable_videos=self.bad_videos.reasons,
        )
        write_run(job.folder, record, resumed=resumed)

    def finish(self) -> None:
        """Mark the run as finished in run.json, and write the report and its pictures."""
        from i3dzoo.report.plots import plot_run
        from i3dzoo.report.report import write_report

        self._write_run(resumed=True, finished=True)
        run = read_run_folder(self.job.folder)
        write_report(run)
        with contextlib.suppress(DependencyError):  # pictures need the extra plot
            plot_run(run, self.job.folder)
        if "last" not in self.job.keep:
            shutil.rmtree(self.job.folder / "checkpoints", ignore_errors=True)


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _hub_repository(name: str) -> str | None:
    """Return the Hub repository that a model argument names, or None."""
    if not hub.is_address(name) or Path(name).exists():
        return None
    return hub.parse(name).repository
