"""Run `fused` until its kernels fail, and PyTorch from then on."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from i3dzoo.engines.fused import FusedEngine
from i3dzoo.engines.torch import TorchEngine
from i3dzoo.errors import I3DZooError
from i3dzoo.network.architecture import POOLED
from i3dzoo.onnx.options import Precision

T = TypeVar("T")
_Engine = FusedEngine | TorchEngine


class FallbackEngine:
    """The engine `fused`, and PyTorch once the kernels do not compile or do not run.

    Kernels are compiled for the first clips of a shape, so a failure shows only then. Wrong input
    and too little memory are not such a failure: PyTorch would fail in the same way.

    Args:
        load_fused: Loads the network in `fused`.
        load_torch: Loads the network in PyTorch.
        remark: Receives the sentence that says why PyTorch took over.
    """

    has_steps = True
    fixed_frames = False
    check_endpoint = TorchEngine.check_endpoint

    def __init__(
        self,
        load_fused: Callable[[], _Engine],
        load_torch: Callable[[], TorchEngine],
        remark: Callable[[str], None],
    ) -> None:
        self._load_torch: Callable[[], TorchEngine] | None = load_torch
        self._remark = remark
        self._engine: _Engine
        try:
            self._engine = load_fused()
        except Exception as error:  # Triton, CUDA and compilers fail in many ways
            self._engine = self._replacement(error)
        self.metadata, self.labels = self._engine.metadata, self._engine.labels
        self.num_classes, self.device = self._engine.num_classes, self._engine.device

    @property
    def name(self) -> str:
        """Name of the engine that runs now."""
        return self._engine.name

    @property
    def precision(self) -> Precision:
        """Precision of the engine that runs now."""
        return self._engine.precision

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, steps, classes] of float clips [B, C, T, H, W]."""
        return self._call(lambda engine: engine.step_logits(x))

    def features(self, x: Tensor, endpoint: str = POOLED) -> Tensor:
        """Return the features [B, channels] of float clips [B, C, T, H, W]."""
        return self._call(lambda engine: engine.features(x, endpoint))

    def stream(self, clips: Iterable[Tensor], endpoint: str | None = None) -> Iterator[Tensor]:
        """Yield the `step_logits` of each batch, or its `features`."""
        for batch in clips:
            yield self.step_logits(batch) if endpoint is None else self.features(batch, endpoint)

    def _call(self, run: Callable[[_Engine], T]) -> T:
        try:
            return run(self._engine)
        except Exception as error:  # Triton, CUDA and compilers fail in many ways
            self._engine = self._replacement(error)
        return run(self._engine)

    def _replacement(self, error: Exception) -> TorchEngine:
        """Load PyTorch and say why; raise the error if PyTorch would not help, or runs already."""
        load = self._load_torch
        if load is None or isinstance(error, I3DZooError | torch.OutOfMemoryError):
            raise error
        self._load_torch = None
        first_line = str(error).strip().partition("\n")[0][:200]
        self._remark(
            f"the engine fused failed ({type(error).__name__}: {first_line}); PyTorch runs the "
            "network from here on"
        )
        return load()
