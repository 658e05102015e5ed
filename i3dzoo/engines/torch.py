"""Run a network in PyTorch."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

import torch
from torch import Tensor

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.devices import Device, choose_device
from i3dzoo.errors import OptionError, UnknownNameError
from i3dzoo.network.architecture import ENDPOINTS, POOLED
from i3dzoo.onnx.options import Precision
from i3dzoo.pretrained import InceptionI3d, build

DTYPES: Final[dict[Precision, torch.dtype]] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""The number format of weights and activations."""

_ON: Final[dict[str, tuple[Precision, ...]]] = {
    "cpu": ("fp32", "bf16"),
    "cuda": ("fp32", "tf32", "bf16", "fp16"),
    "mps": ("fp32", "bf16", "fp16"),
}


class TorchEngine:
    """A network in PyTorch, in eval mode, on its device and in its dtype.

    Args:
        network: The network.
        tf32: Whether a GPU may round the inputs of float32 convolutions to TF32; None leaves it to
            `torch.backends.cudnn.allow_tf32`.
    """

    name = "torch"
    has_steps = True
    fixed_frames = False

    def __init__(self, network: InceptionI3d, tf32: bool | None = None) -> None:
        self.network = network
        self.metadata = network.metadata
        self.num_classes = network.num_classes
        self.labels = network.labels
        self.device = next(network.parameters()).device
        self.tf32 = tf32

    @property
    def precision(self) -> Precision:
        """The precision of the computation."""
        dtype = next(self.network.parameters()).dtype
        names: dict[torch.dtype, Precision] = {torch.bfloat16: "bf16", torch.float16: "fp16"}
        on_gpu = self.device.type == "cuda"
        tf32 = torch.backends.cudnn.allow_tf32 if self.tf32 is None else self.tf32
        return names.get(dtype, "tf32" if on_gpu and tf32 else "fp32")

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        device: Device = "auto",
        precision: Precision | None = None,
    ) -> "TorchEngine":
        """Build the network of a checkpoint.

        Args:
            checkpoint: The checkpoint.
            device: The name of a device, as in `i3dzoo.devices`.
            precision: None is the number format of the checkpoint on a GPU, without TF32, and
                float32 on a CPU.

        Raises:
            OptionError: There is no such device, or it does not compute in this precision.
        """
        chosen = choose_device(device)
        if precision is None and chosen.type == "cpu":
            precision = "fp32"  # half precision saves memory there, and on most CPUs no time
        if precision is not None:
            check_precision(precision, chosen)
        dtype = None if precision is None else DTYPES[precision]
        network = build(checkpoint).to(chosen, dtype)
        # Channels last is up to 1.7 times faster on a CPU, and i3dzoo.kernels requires it. The
        # output of a convolution takes the memory format of its weights.
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's types lack 3d
        return cls(network, tf32=precision == "tf32")

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the logits, float32 [B, steps, classes], of float clips [B, C, T, H, W]."""
        with self._inference():
            return self.network.step_logits(self._moved(x)).float()

    def features(self, x: Tensor, endpoint: str = POOLED) -> Tensor:
        """Return the features, float32 [B, channels], of float clips [B, C, T, H, W]."""
        with self._inference():
            if endpoint == POOLED:
                return self.network.features(self._moved(x)).float()
            activations = self.network.endpoints(self._moved(x), [endpoint])[endpoint]
            return activations.mean((2, 3, 4), dtype=torch.float32)

    def step_features(self, x: Tensor, endpoint: str = POOLED) -> Tensor:
        """Return the features, float32 [B, steps, channels], before the average over time."""
        with self._inference():
            if endpoint == POOLED:
                return self.network.step_features(self._moved(x)).float()
            activations = self.network.endpoints(self._moved(x), [endpoint])[endpoint]
            return activations.mean((3, 4), dtype=torch.float32).transpose(1, 2)

    def check_endpoint(self, endpoint: str) -> None:
        """Check that there is such an endpoint."""
        check_name(endpoint)

    def stream(self, clips: Iterable[Tensor], endpoint: str | None = None) -> Iterator[Tensor]:
        """Yield the `step_logits` of each batch, or its `features`."""
        for batch in clips:
            yield self.step_logits(batch) if endpoint is None else self.features(batch, endpoint)

    def _moved(self, x: Tensor) -> Tensor:
        weight = next(self.network.parameters())
        return x.to(weight.device, weight.dtype)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        cudnn = torch.backends.cudnn
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if self.tf32 is not None:
                flags = cudnn.flags(
                    cudnn.enabled,
                    benchmark=cudnn.benchmark,
                    deterministic=cudnn.deterministic,
                    allow_tf32=self.tf32,
                )
                stack.enter_context(flags)
            yield


def check_precision(precision: Precision, device: torch.device) -> None:
    """Check that PyTorch computes in a precision on a device."""
    possible = _ON[device.type]
    if precision not in possible:
        raise OptionError(
            f"on the device {device.type}, PyTorch computes in {', '.join(possible[:-1])} or "
            f"{possible[-1]}, not in {precision}"
        )
    if precision == "bf16" and device.type == "cpu" and not has_bf16():
        raise OptionError(
            "this CPU has no instructions for bfloat16 that PyTorch uses (AVX-512 and later), so "
            "bf16 would take many times as long as fp32; leave --precision bf16 out"
        )


def has_bf16() -> bool:
    """Whether PyTorch has kernels for bfloat16 on this CPU."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def check_name(endpoint: str) -> None:
    """Check that there is such an endpoint."""
    if endpoint not in (POOLED, *ENDPOINTS):
        raise UnknownNameError(
            f"there is no endpoint {endpoint!r}; expected {POOLED} or one of {', '.join(ENDPOINTS)}"
        )
