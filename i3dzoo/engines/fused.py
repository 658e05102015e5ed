"""Run a network in half precision on NVIDIA GPUs from Ampere on, by i3dzoo's own kernels."""

from collections.abc import Iterable, Iterator
from typing import Final

import torch
from torch import Tensor

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.torch import TorchEngine
from i3dzoo.errors import OptionError
from i3dzoo.network.architecture import POOLED
from i3dzoo.network.fused import can_fuse
from i3dzoo.onnx.options import Precision
from i3dzoo.pretrained import DeployedI3d, build
from i3dzoo.progress import SILENT, Progress

_DTYPES: Final[dict[Precision, torch.dtype]] = {"fp16": torch.float16, "bf16": torch.bfloat16}


class FusedEngine:
    """A network that `InceptionI3d.optimize` returned for a GPU."""

    name = "fused"
    has_steps = True
    fixed_frames = False
    check_endpoint = TorchEngine.check_endpoint

    def __init__(self, network: DeployedI3d, precision: Precision = "fp16") -> None:
        self.network = network
        self.metadata, self.labels = network.metadata, network.labels
        self.num_classes, self.device = network.num_classes, network.device
        self.precision = precision

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        precision: Precision | None = None,
        progress: Progress = SILENT,
    ) -> "FusedEngine":
        """Build the network of a checkpoint in fp16, which is the default, or bf16.

        Args:
            checkpoint: The checkpoint.
            precision: `fp16` or `bf16`; None is `fp16`.
            progress: Receives remarks on what takes long; see `DeployedI3d`.

        Raises:
            OptionError: There is no NVIDIA GPU of compute capability 8.0 or more, or no Triton; or
                the engine does not compute in this precision.
        """
        precision = precision or "fp16"
        if precision not in _DTYPES:
            raise OptionError(
                f"the engine fused computes in fp16 or bf16, not in {precision}; use --engine torch"
            )
        if not torch.cuda.is_available() or not can_fuse(torch.device("cuda")):
            raise OptionError(
                "the engine fused needs Triton and an NVIDIA GPU of compute capability 8.0 or "
                "more, such as an A100 or H100; use --engine torch"
            )
        network = DeployedI3d(build(checkpoint).cuda(), _DTYPES[precision], progress)
        return cls(network, precision)

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, steps, classes] of float clips [B, C, T, H, W]."""
        return self.network.step_logits(x)

    def features(self, x: Tensor, endpoint: str = POOLED) -> Tensor:
        """Return the features [B, channels] of float clips [B, C, T, H, W]."""
        if endpoint == POOLED:
            return self.network.features(x)
        return self.network.endpoints(x, [endpoint])[endpoint].float().mean((2, 3, 4))

    def stream(self, clips: Iterable[Tensor], endpoint: str | None = None) -> Iterator[Tensor]:
        """Yield the `step_logits` of each batch, or its `features`."""
        for batch in clips:
            yield self.step_logits(batch) if endpoint is None else self.features(batch, endpoint)
