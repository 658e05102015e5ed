"""What runs a network: PyTorch, onnxruntime or TensorRT, behind one protocol."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from i3dzoo.errors import DeviceError, MetadataError

if TYPE_CHECKING:
    import torch

    from i3dzoo.metadata import Metadata

__all__ = [
    "SUFFIXES",
    "Engine",
    "EngineName",
    "device_of",
    "load_engine",
    "run_batches",
    "run_clips",
]

EngineName = Literal["auto", "torch", "onnxruntime", "tensorrt"]

SUFFIXES: Final[dict[str, Literal["onnxruntime", "tensorrt"]]] = {
    ".onnx": "onnxruntime",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
    ".trt": "tensorrt",
}
"""What runs a file, by the end of its name."""


class Engine(Protocol):
    """A network that is ready to run, whatever runs it; `InceptionI3d` is one.

    An engine whose `has_steps` is false gives the logits of a clip as one step; it makes no
    timelines.
    """

    metadata: "Metadata | None"

    @property
    def num_classes(self) -> int:
        """Classes of the head, 0 where there is none."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the logits, where they are known."""

    def step_logits(self, x: "torch.Tensor") -> "torch.Tensor":
        """Return logits [B, steps, classes] of float clips [B, C, T, H, W]."""

    def features(self, x: "torch.Tensor") -> "torch.Tensor":
        """Return the pooled features [B, 1024] of float clips, averaged over time."""


def load_engine(
    model: str | Path,
    engine: EngineName = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    offline: bool = False,
) -> Engine:
    """Return a network in what runs it.

    Args:
        model: A zoo name, a checkpoint of any layout, an .onnx file or a TensorRT engine.
        engine: `auto` takes what the file is for, and PyTorch for checkpoints. `onnxruntime` runs
            checkpoints as well, by exporting them in memory.
        device: Where PyTorch runs it; the others decide for themselves.
        offline: Do not touch the network.

    Raises:
        I3DZooError: The model is unknown or unsound, or the engine cannot run it here.
    """
    from i3dzoo.loading import find

    path = find(model, offline)
    made_for = SUFFIXES.get(path.suffix.lower())
    chosen = (made_for or "torch") if engine == "auto" else engine
    if made_for is not None and chosen != made_for:
        raise MetadataError(f"{path}: is for {made_for}, and {chosen} was asked for")
    if chosen == "torch":
        return _torch(path, device)
    if chosen == "tensorrt":
        if made_for is None:
            raise MetadataError(
                f"{path}: is no TensorRT engine; make one with i3dzoo export {model} --to tensorrt "
                "-o FILE.engine"
            )
        from i3dzoo.export.tensorrt_engine import TensorRTEngine

        return TensorRTEngine(path)
    from i3dzoo.export.runtime import OnnxEngine

    if made_for is not None:
        return OnnxEngine(path)
    from i3dzoo.checkpoint import read_checkpoint

    return OnnxEngine.from_checkpoint(read_checkpoint(path))


def device_of(engine: Engine) -> "torch.device":
    """Return where an engine wants its clips; all but PyTorch take them from the host."""
    import torch

    parameters = engine.parameters() if isinstance(engine, torch.nn.Module) else iter(())
    return next((each.device for each in parameters), torch.device("cpu"))


def run_clips(
    engine: Engine, clips: Iterable["torch.Tensor"], *, features: bool = False
) -> Iterator["torch.Tensor"]:
    """Run clips one after another, the next being made while one is computed where that is known.

    Args:
        engine: What runs them.
        clips: Float [C, T, H, W]; taken as they are needed.
        features: Yield pooled features instead of logits.

    Yields:
        Of each clip, the logits [steps, classes] or the features [1024].
    """
    for found in _stream(engine, (clip[None] for clip in clips), features):
        yield found[0]


def run_batches(
    engine: Engine, stream: str, batches: Iterable[Mapping[str, "torch.Tensor"]]
) -> Iterator["torch.Tensor"]:
    """Run batches of one stream's clips likewise.

    Args:
        engine: What runs them.
        stream: Which of the clips it takes.
        batches: Clips by stream, float [B, C, T, H, W]; taken as they are needed.

    Yields:
        Of each batch, the logits [B, classes], averaged over time.
    """
    for steps in _stream(engine, (batch[stream] for batch in batches), features=False):
        yield steps.mean(1)


def _stream(
    engine: Engine, batches: Iterator["torch.Tensor"], features: bool
) -> Iterator["torch.Tensor"]:
    import torch

    stream = getattr(engine, "stream", None)
    if stream is not None:
        yield from stream(batches, features)
        return
    run = engine.features if features else engine.step_logits
    weight = next(engine.parameters()) if isinstance(engine, torch.nn.Module) else None
    for batch in batches:
        with torch.inference_mode():
            yield run(batch if weight is None else batch.to(weight.device, weight.dtype))


def _torch(path: Path, device: Literal["auto", "cpu", "cuda"]) -> Engine:
    import torch

    from i3dzoo.loading import load

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise DeviceError("there is no CUDA device that PyTorch can use; try --device cpu")
    # what a convolution gives is in the order of its weights: with channels last, a CPU is up to
    # 1.7 times faster, and our kernels for GPUs take nothing else
    place = "cuda" if there and device != "cpu" else "cpu"
    network = load(path).to(place)
    if place == "cpu":
        network = network.float()  # half precision saves memory there, and no time
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return] # torch's types lack 3d
