"""One optimiser step, on one device or several.

`accelerate` provides devices, mixed precision and the reduction of gradients. Every clip counts
once, however the batch is divided: the loss is the sum over the clips of all processes, divided by
the sum of the clips' weights. Two processes therefore compute the gradients of one process with
the whole batch.
"""

import contextlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i3dzoo.devices import Device, choose_device
from i3dzoo.distributed import ProcessGroup
from i3dzoo.engines.failures import clear_frames
from i3dzoo.errors import DependencyError, RecipeError, TrainingError
from i3dzoo.training.recipe import Recipe
from i3dzoo.training.schedule import accumulation, step_seed
from i3dzoo.training.step_graph import StepGraph
from i3dzoo.training.streams import (
    ModelEma,
    Streams,
    apply_freeze,
    parameter_groups,
    recompute_activations,
)
from i3dzoo.version import __version__
from i3dzoo.video import Batch
from i3dzoo.video.loader import SampleSource

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(recipe: Recipe, device: Device = "auto") -> "Accelerator":
    """Return the accelerator of this process, which joins those of the launcher, if there is one.

    The device `auto` uses GPUs if there are any. On a CPU, fp16 becomes fp32.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise DependencyError("training needs accelerate: pip install 'i3dzoo[train]'") from error
    from accelerate.state import AcceleratorState

    cpu = choose_device(device).type == "cpu"
    precision: str = recipe.loop.precision
    if precision == "fp32" or (cpu and precision == "fp16"):
        precision = "no"
    ProcessGroup.join(device)
    AcceleratorState._reset_state()  # an earlier run in this process may have another precision
    # reduces gradients in place instead of in a copy
    options = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    return Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[options])


def processes_of(accelerator: "Accelerator") -> ProcessGroup:
    """Return the processes that an accelerator has joined."""
    return ProcessGroup(accelerator.process_index, accelerator.num_processes)


def environment(accelerator: "Accelerator") -> dict[str, str]:
    """Return the versions and devices that a run depends on."""
    from accelerate import __version__ as accelerate_version

    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    versions = {
        "i3dzoo": __version__,
        "pytorch": str(torch.__version__),
        "accelerate": accelerate_version,
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": f"{accelerator.num_processes} x {name}",
    }
    if device.type == "cuda":
        versions["cuda"] = str(torch.version.cuda)
        versions["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call] # torch has no types here
    return versions


@dataclass(frozen=True)
class StepResult:
    """The result of one step, over all processes: the loss in nats, and top-1 accuracy in 0..1."""

    loss: float
    top1: float


class TrainStep:
    """Takes optimiser steps: the networks, the optimiser and the accelerator of one run.

    The networks are moved to the accelerator's device; the clips weigh the classes.
    """

    def __init__(
        self, recipe: Recipe, streams: Streams, clips: SampleSource, accelerator: "Accelerator"
    ) -> None:
        loop, world_size = recipe.loop, accelerator.num_processes
        if loop.batch_size % (world_size * loop.accumulate):
            raise RecipeError(
                f"loop.batch_size is {loop.batch_size}; expected a multiple of {world_size} "
                f"processes x {loop.accumulate} accumulations"
            )
        self.recipe, self.accelerator = recipe, accelerator
        if recipe.network.batchnorm == "sync" and world_size > 1:
            if accelerator.device.type == "cpu":
                raise RecipeError(
                    "network.batchnorm is sync, which PyTorch supports only on GPUs; on CPUs, set "
                    "network.batchnorm to frozen or train"
                )
            streams = nn.SyncBatchNorm.convert_sync_batchnorm(streams)  # type: ignore[no-untyped-call] # torch has no types here
        for network in streams.networks.values():
            network.get_submodule("dropout").p = recipe.network.dropout  # type: ignore[assignment] # a float attribute of a module
        if loop.checkpoint_activations:
            recompute_activations(streams)
        self.streams = streams.to(accelerator.device)
        if loop.channels_last:
            self.streams.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's types lack 3d
        self.ema = ModelEma(self.streams, recipe.network.ema) if recipe.network.ema else None
        self.optimizer = accelerator.prepare_optimizer(self._make_optimizer())
        self.class_weights = self._class_weights(clips)
        self.network: nn.Module = self.streams
        self._graph = self._make_graph()
        self._trainable: frozenset[str] = frozenset()
        self.begin_epoch(0)

    def _make_graph(self) -> StepGraph | None:
        """Return a CUDA graph of the gradients where launching kernels takes longer than running.

        That is in half precision. Several processes add up gradients meanwhile, and activations
        that are computed again restore random states, which a graph cannot do.
        """
        loop, accelerator = self.recipe.loop, self.accelerator
        half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision)
        is_plain = not (loop.compile or loop.checkpoint_activations)
        is_alone = accelerator.device.type == "cuda" and accelerator.num_processes == 1
        if half is None or not (is_plain and is_alone):
            return None
        return StepGraph(self._backward, self.streams.parameters(), half)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        optim = self.recipe.optim
        groups = parameter_groups(self.streams, optim)
        if optim.kind == "adamw":
            return torch.optim.AdamW(groups, weight_decay=optim.weight_decay)
        return torch.optim.SGD(
            groups,
            momentum=optim.momentum,
            nesterov=optim.nesterov,
            weight_decay=optim.weight_decay,
        )

    def _class_weights(self, clips: SampleSource) -> Tensor:
        weights = np.ones(len(clips.classes))
        if self.recipe.optim.class_weights == "balanced":
            counts = np.bincount(clips.labels, minlength=len(clips.classes))
            weights = len(clips.labels) / (len(clips.classes) * np.maximum(counts, 1))
        return torch.tensor(weights, dtype=torch.float32, device=self.accelerator.device)

    def begin_epoch(self, epoch: int) -> None:
        """Freeze the modules that the recipe freezes in this epoch, and set training mode."""
        if self._graph is not None:
            self._graph.release()
        apply_freeze(self.streams, self.recipe.network, epoch)
        trainable = frozenset(n for n, p in self.streams.named_parameters() if p.requires_grad)
        if trainable != self._trainable:
            # a wrapped network reduces the gradients that were trainable when it was wrapped
            self._trainable = trainable
            network = torch.compile(self.streams) if self.recipe.loop.compile else self.streams
            self.network = self.accelerator.prepare_model(network)
        self.network.train()

    def __call__(self, parts: list[Batch], step: int, factor: float) -> StepResult:
        """Take one optimiser step on this process's share of the batch.

        The number of the step seeds dropout; `factor` multiplies the learning rate. A TrainingError
        says that the loss is not finite, or that the GPU's memory is too small.
        """
        accelerator, optim = self.accelerator, self.recipe.optim
        torch.manual_seed(step_seed(self.recipe.loop.seed, step, accelerator.process_index))
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr * factor * group["scale"]
        weight = torch.stack([self.class_weights[part.labels].sum() for part in parts]).sum()
        total = accelerator.reduce(weight, "sum")
        sums = accelerator.reduce(self._gradients(parts, total, step), "sum")
        if optim.clip_grad_norm is not None:
            accelerator.clip_grad_norm_(self.network.parameters(), optim.clip_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.streams)
        # waits for the device, so only after all its work of this step has been queued
        loss, correct, count = sums.tolist()
        if not np.isfinite(loss):
            raise TrainingError(
                f"step {step}: the loss is {loss}; train again with a lower learning rate, such as "
                f"--set optim.lr={optim.lr / 10:g}, or with --set optim.clip_grad_norm=1"
            )
        return StepResult(loss, correct / count)

    def _gradients(self, parts: list[Batch], total: Tensor, step: int) -> Tensor:
        """Accumulate the gradients of all parts; return the sums of what `_backward` returns."""
        sums = torch.zeros(3, device=self.accelerator.device)
        try:
            for number, part in enumerate(parts, 1):
                no_sync = self.accelerator.no_sync(self.network)
                with contextlib.nullcontext() if number == len(parts) else no_sync:
                    sums += (self._graph or self._backward)(part, total)
            return sums
        except torch.OutOfMemoryError as caught:
            error = caught
        # outside of the handler and without its frames, which hold what filled the memory
        clear_frames(error)
        raise self._out_of_memory(parts[0], step) from error

    def _loss(self, network: nn.Module, part: Batch, total: Tensor) -> tuple[Tensor, Tensor]:
        """Return a part's share of the loss, and its logits [B, classes]."""
        with self.accelerator.autocast():
            logits = network(part.clips).float()
        summed = F.cross_entropy(
            logits,
            part.labels,
            weight=self.class_weights,
            label_smoothing=self.recipe.optim.label_smoothing,
            reduction="sum",
        )
        return summed / total, logits.detach()

    def _backward(self, part: Batch, total: Tensor) -> Tensor:
        """Add a part's gradients; return its share of the loss, correct clips and all clips."""
        loss, logits = self._loss(self.network, part, total)
        # the processes' gradients are averaged, but they must be summed
        self.accelerator.backward(loss * self.accelerator.num_processes)
        correct = (logits.argmax(1) == part.labels).sum()
        return torch.stack([loss.detach(), correct.float(), torch.full_like(loss, len(part))])

    def _out_of_memory(self, part: Batch, step: int) -> TrainingError:
        """Return an error that says how many clips fit, and how to train with them."""
        loop, fitting = self.recipe.loop, self._largest_that_fits(part)
        parts = accumulation(loop.batch_size, self.accelerator.num_processes, fitting)
        advice = (
            f"{fitting} fit: --set loop.accumulate={parts} trains on the same batch of "
            f"{loop.batch_size} in parts of that size"
            if parts
            else "not even one fits: use smaller crops or fewer frames"
        )
        return TrainingError(
            f"step {step}: {len(part)} clips at once do not fit into the GPU's memory; {advice}, "
            "or use --set loop.checkpoint_activations=true"
        )

    def _largest_that_fits(self, part: Batch) -> int:
        """Try smaller and smaller batches; return 0 if not even one clip fits."""
        trainable = [value for value in self.streams.parameters() if value.requires_grad]
        count = len(part) // 2
        while count:
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            try:
                # not the wrapped network, and not `backward`: both wait for the other processes
                loss, _ = self._loss(self.streams, part.first(count), self.class_weights.sum())
                torch.autograd.grad(loss, trainable)
                break
            except torch.OutOfMemoryError as caught:
                error = caught
            clear_frames(error)
            count //= 2
        return count

    @contextlib.contextmanager
    def evaluation_network(self) -> Iterator[nn.Module]:
        """Yield the network in eval mode, with the moving average of its weights if there is one.

        It is not wrapped for several processes: a wrapped network waits for the others in each
        batch, and they may have fewer batches.
        """
        if self._graph is not None:
            self._graph.release()
        if self.ema is not None:
            self.ema.swap(self.streams)
        self.network.eval()
        try:
            with self.accelerator.autocast():
                yield self.streams
        finally:
            if self.ema is not None:
                self.ema.swap(self.streams)

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs, except for the position."""
        scaler = self.accelerator.scaler
        return {
            "streams": self.streams.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "ema": self.ema.values if self.ema is not None else {},
            "rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.streams.load_state_dict(state["streams"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            device = self.accelerator.device
            self.ema.values = {k: v.to(device) for k, v in state["ema"].items()}
        torch.set_rng_state(state["rng"])
