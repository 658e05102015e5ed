"""Export a network to another engine or framework."""

import dataclasses
from pathlib import Path
from typing import Final, Literal

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.suffixes import EXPORTS, check_suffix, suffixes
from i3dzoo.devices import Device, choose_device
from i3dzoo.errors import OptionError, OutputError
from i3dzoo.exporters.job import EngineOptions, Export, ExportJob, ParityOptions, Target
from i3dzoo.fetch.find import find, open_checkpoint
from i3dzoo.files import check_output
from i3dzoo.files.exclusive import exclusive
from i3dzoo.onnx.options import BF16_OPSET, ExportOptions, Precision
from i3dzoo.progress import SILENT, Progress
from i3dzoo.records import Record

_GRAPHS: Final = ("onnx", "tensorrt")
_ENGINES: Final = ("tensorrt",)
_COMPARED: Final = ("onnx", "tensorrt", "torchscript", "pt2")
_TARGETS_OF: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("flow", "keep_bn", "opset", "precision"), _GRAPHS),
    **dict.fromkeys(("features", "steps", "pixels"), _GRAPHS),
    "dynamic": (*_GRAPHS, "torchscript"),
    **dict.fromkeys(("clip", "seed", "atol"), _COMPARED),
    **dict.fromkeys(("shapes", "workspace", "timing_cache"), _ENGINES),
    **dict.fromkeys(("compatible", "refittable", "refit"), _ENGINES),
}
"""The targets that an option applies to. Options that are not listed apply to all."""

_WITH_REFIT: Final = {"refit", "flow", "clip", "seed", "atol"}
"""The options that apply to refitting; the others are those of the engine."""


def export(
    model: str | Path | Checkpoint,
    path: str | Path,
    to: Target,
    *,
    flow: str | Path | Checkpoint | None = None,
    frames: int | None = None,
    crop: int | None = None,
    dynamic: tuple[str, ...] = (),
    precision: Precision = "fp32",
    opset: int | None = None,
    keep_bn: bool = False,
    features: bool = False,
    steps: bool = False,
    pixels: tuple[int, int] | None = None,
    clip: Path | None = None,
    seed: int = 0,
    atol: float | None = None,
    shapes: str | None = None,
    workspace: float | None = None,
    timing_cache: Path | None = None,
    compatible: Literal["gpus", "versions", "all"] | None = None,
    refittable: bool = False,
    refit: Path | None = None,
    device: Device = "auto",
    force: bool = False,
    progress: Progress = SILENT,
) -> Export:
    """Export a network. The file is written only after its output was compared with PyTorch's.

    A TensorRT engine that cannot run on this machine is an exception: the graph that it is built
    from is compared instead.

    Examples:
        >>> import i3dzoo
        >>> exported = i3dzoo.export("mine.safetensors", "mine.onnx", "onnx")
        >>> exported.path, exported.parity is not None
        (PosixPath('mine.onnx'), True)

    Args:
        model: A zoo name, a checkpoint of any layout, a Hub repository, or a checkpoint in memory.
        path: The file to write. A TensorRT engine has a sidecar: `path` with `.json` added.
        to: The target: `onnx`, `tensorrt`, `tao`, `torchscript` or `pt2` (torch.export).
        flow: A flow network to fuse with `model`, which is then RGB: logits are added.
        frames: Frames of a clip; None takes the model's.
        crop: Edge of a clip in pixels; None takes the model's.
        dynamic: Axes that can have any size, of `frames`, `height` and `width`.
        precision: `fp32`, `tf32`, `fp16` or `bf16`; inputs and outputs are float32. tf32 is for
            TensorRT: factors of convolutions are rounded to 10 bits of mantissa.
        opset: Version of ONNX's operator set; None is 13, and 22 for bf16.
        keep_bn: Keep BatchNorm as nodes instead of folding it into convolutions.
        features: Add the pooled features as an output.
        steps: Add the logits of each time step as an output.
        pixels: Height and width of uint8 frames that the network takes and preprocesses itself.
        clip: Video to compare on; None compares on seeded noise.
        seed: Seed of the noise.
        atol: Largest difference from PyTorch that passes, in logits; None takes a part of the
            largest logit, `i3dzoo.exporters.parity.TOLERANCE`.
        shapes: TensorRT: `MIN,OPT,MAX`, each a batch size or BxTxHxW; None is 1,1,8.
        workspace: TensorRT: largest memory for building, in GiB; None leaves it to TensorRT.
        timing_cache: TensorRT: file of kernel timings that are kept between builds.
        compatible: TensorRT: build for GPUs from Ampere on (`gpus`), for later versions of the
            library (`versions`), or for `all`; such an engine is slower.
        refittable: TensorRT: allow replacing the weights later.
        refit: TensorRT: a refittable engine; copy it with the weights of `model`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for the comparison with PyTorch. A
            TensorRT engine is built on the GPU of this number.
        force: Replace files that exist.
        progress: Receives the progress of the comparison and of TensorRT's builder.

    Raises:
        OptionError: Options contradict each other, or do not apply to the target; or there is no
            such device.
        OutputError: The file exists or cannot be written.
        FormatError: The export differs from PyTorch by more than is allowed.
        MetadataError: The checkpoints do not fit together, or the options do not fit them.
        DependencyError: An optional package is not installed.
        VideoError: The video cannot be decoded.
    """
    options = ExportOptions(
        dynamic=dynamic,
        precision=precision,
        opset=opset or (BF16_OPSET if precision == "bf16" else 13),
        keep_bn=keep_bn,
        features=features,
        steps=steps,
        pixels=pixels,
    )
    engine = EngineOptions(
        precision=precision,
        shapes=shapes,
        workspace=workspace,
        timing_cache=timing_cache,
        compatible=compatible,
        refittable=refittable,
    )
    parity = ParityOptions(clip=clip, seed=seed, atol=atol)
    used = _changed(options) | _changed(engine) | _changed(parity)
    used |= {name for name, value in (("flow", flow), ("refit", refit)) if value is not None}
    _check_options(to, used, precision)
    path = Path(path)
    _check_outputs(path, to, force)
    choose_device(device)  # which becomes the current GPU
    models = [model] if flow is None else [model, flow]
    with exclusive(path):
        checkpoints = tuple(_read(source, frames, crop) for source in models)
        return _make(
            ExportJob(checkpoints, to, path, options, engine, parity, refit, device, progress)
        )


def _changed(record: Record) -> set[str]:
    """Return the names of the fields that do not have their default values."""
    default = type(record)()
    names = record.__struct_fields__
    return {name for name in names if getattr(record, name) != getattr(default, name)}


def _check_options(to: Target, used: set[str], precision: Precision) -> None:
    """Refuse options that do not apply."""
    for name in (name for name in _TARGETS_OF if name in used):
        targets, flag = _TARGETS_OF[name], f"--{name.replace('_', '-')}"
        if to not in targets:
            raise OptionError(
                f"{flag} does not apply to the target {to}; leave it out, or export to "
                f"{' or '.join(targets)}"
            )
        if "refit" in used and name not in _WITH_REFIT:
            raise OptionError(f"--refit keeps {flag} of the engine; leave {flag} out")
    if precision == "tf32" and to != "tensorrt":
        raise OptionError("--precision tf32 applies to TensorRT engines; export to tensorrt")


def _check_outputs(path: Path, to: Target, force: bool) -> None:
    """Refuse files that cannot be written, and names that do not show the engine of the file."""
    content = "torch" if to == "tao" else to
    own = suffixes(content)
    if to in _GRAPHS and path.suffix.lower() not in own:
        raise OutputError(
            f"{path}: expected a name that ends in {' or '.join(own)}, by which other commands "
            "choose the engine; rename it, or pass another --to"
        )
    fitting = [target for target in EXPORTS if path.suffix.lower() in suffixes(target)]
    check_suffix(path, content, to, fitting)
    check_output(path, force)
    if to == "tensorrt":
        from i3dzoo.engines.tensorrt_sidecar import sidecar_path

        check_output(sidecar_path(path), force)


def _read(model: str | Path | Checkpoint, frames: int | None, crop: int | None) -> Checkpoint:
    """Read a checkpoint, and set the size of its clips."""
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(find(model))
    spec = checkpoint.metadata.input
    frames, crop = frames or spec.frames, crop or spec.crop
    # the field of view stays the same
    resize = spec.resize and max(round(spec.resize * crop / spec.crop), crop)
    spec = spec.replace(frames=frames, crop=crop, resize=resize)
    metadata = checkpoint.metadata.replace(input=spec)
    return dataclasses.replace(checkpoint, metadata=metadata)


def _make(job: ExportJob) -> Export:
    """Make and write the target. Its libraries are slow to import, and some are optional."""
    if job.target == "onnx":
        from i3dzoo.exporters.onnx import export_onnx

        return export_onnx(job)
    if job.target == "tensorrt":
        from i3dzoo.exporters.tensorrt import build, refit

        return build(job) if job.refit is None else refit(job)
    if job.target == "tao":
        from i3dzoo.exporters.tao import export_tao

        return export_tao(job)
    from i3dzoo.exporters.torchscript import export_torch

    return export_torch(job)
