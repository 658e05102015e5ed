"""Forward and backward of a training step as one CUDA graph.

A step launches some 800 kernels, which takes Python longer than it takes a GPU to run them on 16
clips. A graph launches them at once. It computes the same values to the bit.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from i3dzoo.video import Batch

Backward = Callable[[Batch, Tensor], Tensor]
"""Adds the gradients of a batch to the parameters, given the sum of all weights; returns sums."""

_EAGER = 3  # batches of a shape that compile and load all kernels before it is captured


class StepGraph:
    """Calls a function that computes gradients, and replays it once batches keep their shape.

    Memory of a graph serves nothing else, so call `release` before other work for the GPU.

    Args:
        backward: The function; it must not wait for the GPU.
        parameters: The parameters that get gradients. They have none when a step begins; the parts
            of a batch add theirs.
        dtype: Type of the clips in the graph, which autocast would give them.
    """

    def __init__(
        self, backward: Backward, parameters: Iterable[nn.Parameter], dtype: torch.dtype
    ) -> None:
        self._backward, self._parameters, self._dtype = backward, list(parameters), dtype
        self._is_possible = True
        self.release()

    def release(self) -> None:
        """Free the memory of the graph; later steps begin without one."""
        self._key: Hashable = None
        self._count = 0
        self._captured: _Captured | None = None

    def __call__(self, batch: Batch, total: Tensor) -> Tensor:
        """Compute the gradients of a batch."""
        key = tuple((name, clip.shape, clip.stride()) for name, clip in batch.clips.items())
        if key != self._key:
            self.release()
            self._key = key
        self._count += 1
        is_first_part = all(parameter.grad is None for parameter in self._parameters)
        is_warm = self._is_possible and self._count > _EAGER
        if self._captured is None and is_warm and is_first_part:
            self._captured = self._capture(batch, total)
        if self._captured is None:
            return self._backward(batch, total)
        return self._captured.replay(batch, total)

    def _capture(self, batch: Batch, total: Tensor) -> "_Captured | None":
        """Capture the function; None if that fails, as in too little memory for a second copy."""
        stream = torch.cuda.current_stream()
        try:
            return _Captured(self._backward, self._parameters, batch, total, self._dtype)
        except RuntimeError:
            torch.cuda.set_stream(stream)  # which a capture that failed does not restore
            self._is_possible = False
            for parameter in self._parameters:
                parameter.grad = None
            return None


class _Captured:
    """A graph, its inputs and its results."""

    def __init__(
        self,
        backward: Backward,
        parameters: list[nn.Parameter],
        batch: Batch,
        total: Tensor,
        dtype: torch.dtype,
    ) -> None:
        clips = {name: torch.empty_like(clip, dtype=dtype) for name, clip in batch.clips.items()}
        self.batch = replace(batch, clips=clips, labels=torch.empty_like(batch.labels))
        self.total = torch.empty_like(total)
        self._set(batch, total)  # labels are indices, also while they are captured
        self.graph = torch.cuda.CUDAGraph()
        # threads that load data go on calling CUDA
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.sums = backward(self.batch, self.total)
        self.parameters = [value for value in parameters if value.grad is not None]
        self.gradients = [value.grad for value in self.parameters if value.grad is not None]
        for value in self.parameters:
            value.grad = None  # nothing was computed yet
        self.earlier: list[Tensor] = []  # gradients of the parts before

    def _set(self, batch: Batch, total: Tensor) -> None:
        for name, clip in batch.clips.items():
            self.batch.clips[name].copy_(clip, non_blocking=True)
        self.batch.labels.copy_(batch.labels, non_blocking=True)
        self.total.copy_(total)

    def replay(self, batch: Batch, total: Tensor) -> Tensor:
        """Add the gradients of another batch."""
        self._set(batch, total)
        added = [value.grad for value in self.parameters if value.grad is not None]
        if added:  # the graph writes to these tensors
            self.earlier = self.earlier or [torch.empty_like(value) for value in self.gradients]
            torch._foreach_copy_(self.earlier, added)
        self.graph.replay()
        if added:
            torch._foreach_add_(self.gradients, self.earlier)
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.sums
