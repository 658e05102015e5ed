"""One optimiser step, on one device or many: precision, reduction, clipping, averaging.

`accelerate` brings devices, mixed precision and gradient reduction. Every clip counts once, however
the batch is divided: the loss is a sum over all processes over the sum of the clips' weights, so
that two processes give the gradients of one with twice the batch.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i3dzoo.errors import DependencyError, RecipeError, TrainingError
from i3dzoo.training.clips import Batch, Clips
from i3dzoo.training.failures import forget_frames
from i3dzoo.training.network import (
    Average,
    Streams,
    parameter_groups,
    prepare,
    recompute_activations,
)
from i3dzoo.training.plan import accumulation, step_seed
from i3dzoo.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Engine", "StepResult", "make_accelerator"]


def make_accelerator(recipe: Recipe, device: str = "auto") -> "Accelerator":
    """Return the accelerator of this process; under torchrun or `accelerate launch`, one of many.

    Args:
        recipe: Of which the precision is taken.
        device: `auto` takes GPUs where there are any, `cpu` does not; on a CPU fp16 is fp32.

    Raises:
        DependencyError: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise DependencyError("training needs accelerate: pip install 'i3dzoo[train]'") from error
    from accelerate.state import AcceleratorState

    cpu = device == "cpu" or not torch.cuda.is_available()
    asked = recipe.loop.precision
    precision = "no" if asked == "fp32" or (cpu and asked == "fp16") else asked
    AcceleratorState._reset_state()  # of an earlier run in this process, of another precision
    # gradients are reduced where they lie, instead of in a copy
    options = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    return Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[options])


@dataclass(frozen=True)
class StepResult:
    """What one step gave, over all processes.

    Attributes:
        loss: Weighted mean over the clips.
        top1: Share of the clips that were classified right, 0..1.
    """

    loss: float
    top1: float


class Engine:
    """Networks, optimiser and accelerator of one run.

    Args:
        recipe: How to train.
        streams: The networks; they are moved to the accelerator's device.
        clips: What is trained on, for the weights of the classes.
        accelerator: From `make_accelerator`.

    Raises:
        RecipeError: The batch cannot be divided among the processes, or these are on CPUs and
            BatchNorm is to be synchronised.
    """

    def __init__(
        self, recipe: Recipe, streams: Streams, clips: Clips, accelerator: "Accelerator"
    ) -> None:
        loop, world = recipe.loop, accelerator.num_processes
        if loop.batch_size % (world * loop.accumulate):
            raise RecipeError(
                f"loop.batch_size is {loop.batch_size}; expected a multiple of {world} processes x "
                f"{loop.accumulate} accumulations"
            )
        self.recipe, self.accelerator = recipe, accelerator
        if recipe.network.batchnorm == "sync" and world > 1:
            if accelerator.device.type == "cpu":
                raise RecipeError(
                    "network.batchnorm is sync, which PyTorch has for GPUs alone; on CPUs, set "
                    "network.batchnorm=frozen, or train"
                )
            streams = nn.SyncBatchNorm.convert_sync_batchnorm(streams)  # type: ignore[no-untyped-call] # torch has no types here
        for network in streams.networks.values():
            network.get_submodule("dropout").p = recipe.network.dropout  # type: ignore[assignment] # a float attribute of a module
        if loop.checkpoint_activations:
            recompute_activations(streams)
        self.streams = streams.to(accelerator.device)
        if loop.channels_last:
            self.streams.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's types lack 3d
        self.average = Average(self.streams, recipe.network.ema) if recipe.network.ema else None
        self.optimizer = accelerator.prepare_optimizer(self._make_optimizer())
        self.class_weights = self._weigh(clips)
        self.network: nn.Module = self.streams
        self._learning: frozenset[str] = frozenset()
        self.begin_epoch(0)

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

    def _weigh(self, clips: Clips) -> Tensor:
        weights = np.ones(len(clips.classes))
        if self.recipe.optim.class_weights == "balanced":
            counts = np.bincount(clips.labels, minlength=len(clips.classes))
            weights = len(clips.labels) / (len(clips.classes) * np.maximum(counts, 1))
        return torch.tensor(weights, dtype=torch.float32, device=self.accelerator.device)

    def begin_epoch(self, epoch: int) -> None:
        """Freeze what the recipe freezes in this epoch, and go into training mode."""
        prepare(self.streams, self.recipe.network, epoch)
        learning = frozenset(n for n, p in self.streams.named_parameters() if p.requires_grad)
        if learning != self._learning:
            # gradients are reduced for the parameters that learn when the network is wrapped
            self._learning = learning
            network = torch.compile(self.streams) if self.recipe.loop.compile else self.streams
            self.network = self.accelerator.prepare_model(network)
        self.network.train()

    def step(self, parts: list[Batch], step: int, factor: float) -> StepResult:
        """Take one optimiser step.

        Args:
            parts: This process's share of the batch.
            step: Number of the step, which dropout is drawn by.
            factor: Of the learning rate.

        Raises:
            TrainingError: The loss is not finite, or the GPU's memory does not suffice.
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
        if self.average is not None:
            self.average.update(self.streams)
        # only now is the device waited for, when all it has to do in this step has been said
        loss, right, count = sums.tolist()
        if not np.isfinite(loss):
            raise TrainingError(
                f"step {step}: the loss is {loss}; train again with a lower rate, such as "
                f"--set optim.lr={optim.lr / 10:g}, or with --set optim.clip_grad_norm=1"
            )
        return StepResult(loss, right / count)

    def _gradients(self, parts: list[Batch], total: Tensor, step: int) -> Tensor:
        """Add up the gradients of all parts; return the sums that `_backward` returns."""
        sums = torch.zeros(3, device=self.accelerator.device)
        try:
            for number, part in enumerate(parts, 1):
                waits = self.accelerator.no_sync(self.network)
                with contextlib.nullcontext() if number == len(parts) else waits:
                    sums += self._backward(part, total)
            return sums
        except torch.OutOfMemoryError as caught:
            error = caught
        # out of the handler and without its frames, which hold what filled the memory
        forget_frames(error)
        raise self._too_large(parts[0], step) from error

    def _loss(self, network: nn.Module, part: Batch, total: Tensor) -> tuple[Tensor, Tensor]:
        """Return a part's share of the loss, and its logits."""
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
        """Add a part's gradients; return its share of the loss, its right clips, its clips."""
        loss, logits = self._loss(self.network, part, total)
        # gradients are averaged over the processes, and ought to be added
        self.accelerator.backward(loss * self.accelerator.num_processes)
        right = (logits.argmax(1) == part.labels).sum()
        return torch.stack([loss.detach(), right.float(), torch.full_like(loss, len(part))])

    def _too_large(self, part: Batch, step: int) -> TrainingError:
        """Say how many clips fit into the memory, and how to train with so many at once."""
        loop, fits = self.recipe.loop, self._largest_that_fits(part)
        parts = accumulation(loop.batch_size, self.accelerator.num_processes, fits)
        advice = (
            f"{fits} do: --set loop.accumulate={parts} takes the same batch of {loop.batch_size} "
            "in parts that fit"
            if parts
            else "not even one does: use smaller crops or fewer frames"
        )
        return TrainingError(
            f"step {step}: {len(part)} clips at once do not fit into the GPU's memory; {advice}, "
            "or use --set loop.checkpoint_activations=true"
        )

    def _largest_that_fits(self, part: Batch) -> int:
        """Try smaller and smaller batches; 0 if not even one clip fits."""
        learning = [each for each in self.streams.parameters() if each.requires_grad]
        count = len(part) // 2
        while count:
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            try:
                # neither the wrapped network nor `backward`, which would wait for other processes
                loss, _ = self._loss(self.streams, part.part(count), self.class_weights.sum())
                torch.autograd.grad(loss, learning)
                break
            except torch.OutOfMemoryError as caught:
                error = caught
            forget_frames(error)
            count //= 2
        return count

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Give the network in eval mode, with the moving average of its weights if there is one.

        It is the streams themselves: wrapped for several processes, the network would wait for
        them in each batch, and they may have fewer batches.
        """
        if self.average is not None:
            self.average.swap(self.streams)
        self.network.eval()
        try:
            with self.accelerator.autocast():
                yield self.streams
        finally:
            if self.average is not None:
                self.average.swap(self.streams)

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs, but for where the run is."""
        scaler = self.accelerator.scaler
        return {
            "streams": self.streams.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "average": self.average.values if self.average is not None else {},
            "rng": torch.get_rng_state(),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        self.streams.load_state_dict(content["streams"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.accelerator.scaler is not None and content["scaler"]:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        if self.average is not None:
            device = self.accelerator.device
            self.average.values = {k: v.to(device) for k, v in content["average"].items()}
        torch.set_rng_state(content["rng"])
