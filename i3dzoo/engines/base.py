"""The protocol of engines, and the functions that return one."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.checkpoints.suffixes import suffixes
from i3dzoo.devices import Device, choose_device
from i3dzoo.engines.auto import load_auto, load_named
from i3dzoo.engines.choose import preferred
from i3dzoo.engines.fused import FusedEngine
from i3dzoo.engines.torch import TorchEngine
from i3dzoo.errors import MetadataError, OptionError
from i3dzoo.fetch.find import find, open_checkpoint
from i3dzoo.network.architecture import POOLED
from i3dzoo.onnx.options import Precision
from i3dzoo.pretrained import DeployedI3d, InceptionI3d
from i3dzoo.progress import SILENT, Progress

EngineName = Literal["auto", "torch", "fused", "onnxruntime", "openvino", "tensorrt"]

SUFFIXES: Final[dict[str, Literal["onnxruntime", "tensorrt"]]] = {
    **dict.fromkeys(suffixes("onnx"), "onnxruntime"),
    **dict.fromkeys(suffixes("tensorrt"), "tensorrt"),
}
"""The engine that runs an exported file, by the file's suffix."""


class Engine(Protocol):
    """A network that is ready to run."""

    @property
    def name(self) -> str:
        """Name of the engine, such as `torch`."""

    @property
    def precision(self) -> Precision:
        """Precision of the computation; of an exported file, the one that it was exported in."""

    @property
    def metadata(self) -> Metadata | None:
        """The description of the checkpoint; None if the network was not loaded from one."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 if the network has no head."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the logits, if they are known."""

    @property
    def device(self) -> torch.device:
        """The device that clips are best on; clips on another device are copied."""

    @property
    def has_steps(self) -> bool:
        """Whether `step_logits` returns every step; otherwise it returns their mean as one."""

    @property
    def fixed_frames(self) -> bool:
        """Whether every clip must have `metadata.input.frames` frames."""

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, steps, classes] of float clips [B, C, T, H, W]."""

    def features(self, x: Tensor, endpoint: str = POOLED) -> Tensor:
        """Return the features [B, channels] of float clips [B, C, T, H, W].

        Args:
            x: The clips.
            endpoint: `pooled`, or one of `i3dzoo.network.architecture.ENDPOINTS`, whose activations
                are averaged over time and positions.
        """

    def check_endpoint(self, endpoint: str) -> None:
        """Check that `features` can return an endpoint.

        Raises:
            UnknownNameError: The engine does not return this endpoint.
            MetadataError: The network was exported without features.
        """

    def stream(self, clips: Iterable[Tensor], endpoint: str | None = None) -> Iterator[Tensor]:
        """Run batches of clips in order; an engine may prepare a batch while it runs another.

        Args:
            clips: Float [B, C, T, H, W]; taken as they are needed.
            endpoint: Yield the `features` of this endpoint; None yields `step_logits`.
        """


def as_engine(model: Engine | InceptionI3d | DeployedI3d) -> Engine:
    """Return an engine; a network runs as it is, on its device and in its dtype."""
    if isinstance(model, DeployedI3d):
        return FusedEngine(model)
    return TorchEngine(model) if isinstance(model, InceptionI3d) else model


def load_engine(
    model: str | Path,
    engine: EngineName = "auto",
    device: Device = "auto",
    offline: bool = False,
    precision: Precision | None = None,
    progress: Progress = SILENT,
) -> Engine:
    """Load a network in the engine that runs it.

    Args:
        model: A zoo name, a checkpoint of any layout, an .onnx file or a TensorRT engine.
        engine: `auto` is the engine that an exported file is made for. For a checkpoint it is
            `fused` on NVIDIA GPUs from Ampere on, PyTorch on others, and on a CPU the fastest
            of PyTorch, onnxruntime and OpenVINO, which is measured once and kept in the cache; the
            environment variable `I3DZOO_ENGINE` replaces this choice.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; OpenVINO runs on the CPU.
        offline: Do not touch the network.
        precision: The precision of the computation: `fp32`, `tf32`, `bf16` or `fp16`. None is fp16
            in `fused`, the number format of the checkpoint in PyTorch on a GPU, and float32
            otherwise. TF32 is off unless it is asked for.
        progress: Receives a remark on the choice of `auto`.

    Raises:
        I3DZooError: The model is unknown or damaged, or the engine cannot run it here, or not in
            this precision.
    """
    path = find(model, offline)
    made_for = SUFFIXES.get(path.suffix.lower())
    if made_for is not None:
        exported = _load_exported(path, made_for, engine, device)
        if precision not in (None, exported.precision):
            raise OptionError(
                f"{path}: was exported in {exported.precision}, so it cannot run in {precision}; "
                "leave --precision out, or export the checkpoint again"
            )
        return exported
    name: EngineName = (preferred() or "auto") if engine == "auto" else engine
    if name == "tensorrt":
        raise MetadataError(
            f"{path}: not a TensorRT engine; build one with i3dzoo export {model} "
            "--to tensorrt -o FILE.engine"
        )
    checkpoint = open_checkpoint(path)
    if name == "auto":
        return load_auto(checkpoint, device, precision, progress)
    if name == "fused":
        _check_cuda(name, device)
    return load_named(checkpoint, name, device, precision, progress)


def _check_cuda(name: str, device: Device) -> None:
    if device != "auto" and choose_device(device).type != "cuda":
        raise OptionError(
            f"the engine {name} needs a CUDA device, and the device is {device!r}; use --engine "
            "torch, or leave --device out"
        )


def _load_exported(path: Path, made_for: str, engine: EngineName, device: Device) -> Engine:
    """Load a file of `i3dzoo export`; an .onnx file also runs in OpenVINO."""
    name = made_for if engine == "auto" else engine
    if name == "openvino" and made_for == "onnxruntime":
        from i3dzoo.engines.openvino import OpenVINOEngine

        return OpenVINOEngine.from_file(path, torch.get_num_threads())
    if name != made_for:
        raise MetadataError(f"{path}: this file runs in {made_for}, not in {name}")
    if name == "tensorrt":
        from i3dzoo.engines.tensorrt import TensorRTEngine

        _check_cuda(name, device)
        return TensorRTEngine.from_file(path)
    from i3dzoo.engines.onnxruntime import OnnxEngine

    return OnnxEngine(path, device=device)


def run_batches(engine: Engine, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Run batches of float clips [B, C, T, H, W], which are taken as they are needed.

    Yields:
        The logits [B, classes] of each batch, averaged over time.
    """
    for steps in engine.stream(batches):
        yield steps.mean(1)
