"""Load a checkpoint in the engine that suits this machine best."""

from functools import partial

import torch
from torch import Tensor

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.devices import Device, choose_device
from i3dzoo.engines import measured
from i3dzoo.engines.choose import (
    OnCpu,
    OnGpu,
    choose_on_gpu,
    cpu_candidates,
    current_gpu,
    engines_here,
    is_installed,
)
from i3dzoo.engines.exported import ExportedEngine
from i3dzoo.engines.fallback import FallbackEngine
from i3dzoo.engines.fused import FusedEngine
from i3dzoo.engines.measured import Measured, Setting
from i3dzoo.engines.torch import TorchEngine
from i3dzoo.onnx.options import Precision
from i3dzoo.progress import SILENT, Progress

Named = OnCpu | OnGpu
Loaded = TorchEngine | FusedEngine | ExportedEngine


def load_auto(
    checkpoint: Checkpoint, device: Device, precision: Precision | None, progress: Progress
) -> Loaded | FallbackEngine:
    """Load a checkpoint in `fused` or PyTorch on a GPU, and in the fastest engine on a CPU.

    Args:
        checkpoint: The checkpoint.
        device: The name of a device, as in `i3dzoo.devices`.
        precision: None is fp16 in `fused`, and as `TorchEngine.from_checkpoint` says in PyTorch.
        progress: Receives a remark: what was taken, and why.
    """
    chosen = choose_device(device)
    if chosen.type == "cuda":
        return _load_on_gpu(checkpoint, device, precision, progress)
    if chosen.type == "cpu" and precision in (None, "fp32", "bf16"):
        return _load_on_cpu(checkpoint, precision or "fp32", progress)
    return TorchEngine.from_checkpoint(checkpoint, device, precision)


def load_named(
    checkpoint: Checkpoint,
    name: Named,
    device: Device,
    precision: Precision | None,
    progress: Progress = SILENT,
) -> Loaded:
    """Load a checkpoint in an engine; those for CPUs take as many threads as PyTorch has."""
    if name == "torch":
        return TorchEngine.from_checkpoint(checkpoint, device, precision)
    if name == "fused":
        return FusedEngine.from_checkpoint(checkpoint, precision, progress)
    threads = torch.get_num_threads()
    if name == "openvino":
        from i3dzoo.engines.openvino import OpenVINOEngine

        return OpenVINOEngine.from_checkpoint(checkpoint, threads, precision or "fp32")
    from i3dzoo.engines.onnxruntime import OnnxEngine

    return OnnxEngine.from_checkpoint(checkpoint, threads, device, precision or "fp32")


def _load_on_gpu(
    checkpoint: Checkpoint, device: Device, precision: Precision | None, progress: Progress
) -> TorchEngine | FallbackEngine:
    name, remark = choose_on_gpu(current_gpu(), is_installed("triton"), precision)
    if remark:
        progress.message(remark)

    def load_torch() -> TorchEngine:
        return TorchEngine.from_checkpoint(checkpoint, device, precision)

    if name == "torch":
        return load_torch()
    if precision is None:
        progress.message("engine fused in fp16; --precision fp32 is exact, and slower")
    return FallbackEngine(
        lambda: FusedEngine.from_checkpoint(checkpoint, precision, progress),
        load_torch,
        progress.message,
    )


def _load_on_cpu(checkpoint: Checkpoint, precision: Precision, progress: Progress) -> Loaded:
    candidates = cpu_candidates(engines_here(precision), precision)
    if len(candidates) < 2:
        name = candidates[0] if candidates else "torch"  # which says what is missing
        return load_named(checkpoint, name, "cpu", precision)
    setting = _setting(checkpoint, candidates, precision)
    known = measured.kept(setting)
    if known is not None:
        progress.message(f"engine {known.fastest}, the fastest when it was measured: {known}")
        return load_named(checkpoint, known.fastest, "cpu", precision)
    progress.message(f"measuring once which engine is the fastest: {', '.join(candidates)}")
    clip = _clip(checkpoint)
    engines = _load_working(checkpoint, candidates, precision, clip, progress)
    runs = {name: partial(_run, engine, clip) for name, engine in engines.items()}
    result = Measured(setting=setting, seconds=measured.measure(runs))
    size = "x".join(map(str, clip.shape[2:]))
    kept = "" if measured.keep(result) else "; the cache cannot be written, so it is not kept"
    progress.message(f"engine {result.fastest}, the fastest for {size}: {result}{kept}")
    return engines[result.fastest]


def _load_working(
    checkpoint: Checkpoint,
    candidates: tuple[OnCpu, ...],
    precision: Precision,
    clip: Tensor,
    progress: Progress,
) -> dict[OnCpu, Loaded]:
    """Return the engines that run the clip; one must."""
    engines: dict[OnCpu, Loaded] = {}
    for name in candidates:
        try:
            engine = load_named(checkpoint, name, "cpu", precision)
            _run(engine, clip)
        except Exception as error:  # a library fails in many ways, and the others must still run
            if name == candidates[-1] and not engines:
                raise
            reason = str(error).strip().partition("\n")[0]
            progress.message(f"engine {name} is skipped: {reason}")
            continue
        engines[name] = engine
    return engines


def _setting(
    checkpoint: Checkpoint, candidates: tuple[OnCpu, ...], precision: Precision
) -> Setting:
    metadata = checkpoint.metadata
    spec = metadata.input
    return Setting(
        cpu=measured.cpu_name(),
        threads=torch.get_num_threads(),
        shape=(len(spec.mean), spec.frames, spec.crop, spec.crop),
        padding=metadata.variant.padding,
        pooling=metadata.variant.pooling,
        precision=precision,
        engines=candidates,
        versions=measured.versions(),
    )


def _clip(checkpoint: Checkpoint) -> Tensor:
    """Return a clip of noise [1, C, T, H, W]: one of the model's, but as short as it can be."""
    spec, frames = checkpoint.metadata.input, checkpoint.metadata.variant.min_frames
    shape = (1, len(spec.mean), frames, spec.crop, spec.crop)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _run(engine: Loaded, clip: Tensor) -> Tensor:
    return engine.step_logits(clip) if engine.num_classes else engine.features(clip)
