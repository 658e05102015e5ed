"""Two checkpoints side by side: tensor by tensor, and endpoint by endpoint on the same clip."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from i3dzoo.architecture import ENDPOINTS, MIN_FRAMES
from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import ShapeError

if TYPE_CHECKING:
    import torch

    from i3dzoo.model import InceptionI3d

__all__ = [
    "OutputDifference",
    "TensorDifference",
    "compare_outputs",
    "compare_tensors",
    "seeded_clip",
    "tally",
    "video_clip",
]

Status = Literal["same", "within", "differs", "shape", "only here", "only there"]

SEEDED_FRAMES = 16
"""Frames of a seeded clip: enough for three steps of the logits, and a second or so on a CPU."""


@dataclass(frozen=True)
class TensorDifference:
    """One tensor of two checkpoints.

    Attributes:
        name: Its canonical name.
        status: `same` to the last bit of the wider format, `within` the tolerance, `differs`, of
            another `shape`, or `only here` or `only there`.
        here: Its shape and number format in the first checkpoint; empty where it is not there.
        there: Those in the second.
        largest: Largest absolute difference; None where the two cannot be subtracted.
    """

    name: str
    status: Status
    here: str
    there: str
    largest: float | None

    @property
    def agrees(self) -> bool:
        """Whether it is the same, or within the tolerance."""
        return self.status in ("same", "within")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


@dataclass(frozen=True)
class OutputDifference:
    """One output of two networks on the same clip.

    Attributes:
        name: An endpoint, or `logits`, or `features` where there is no head.
        largest: Largest absolute difference; None where one has more classes than the other.
        scale: Largest absolute value of the first network's output.
    """

    name: str
    largest: float | None
    scale: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


def compare_tensors(
    here: Checkpoint, there: Checkpoint, atol: float = 0.0
) -> tuple[TensorDifference, ...]:
    """Compare two checkpoints tensor by tensor, whatever layouts they came from.

    Values are compared, not formats: a float32 1.0 and a float16 1.0 are the same.

    Args:
        here: The first.
        there: The second.
        atol: Absolute differences up to this one are `within`.

    Returns:
        One record for each tensor, in the order of the first; what only the second has comes last.
    """
    names = dict.fromkeys((*here.tensors, *there.tensors))
    return tuple(_compare(name, here, there, atol) for name in names)


def tally(differences: tuple[TensorDifference, ...]) -> dict[str, int]:
    """Return how many tensors have each status, leaving out those that none has."""
    return dict(Counter(difference.status for difference in differences))


def seeded_clip(checkpoint: Checkpoint, seed: int = 0) -> "torch.Tensor":
    """Return noise for a checkpoint: float32 [1, C, 16, crop, crop], uniform in [-1, 1)."""
    import torch

    spec = checkpoint.metadata.input
    shape = (1, len(spec.mean), SEEDED_FRAMES, spec.crop, spec.crop)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def video_clip(checkpoint: Checkpoint, path: Path) -> "torch.Tensor":
    """Return the middle of a video as a checkpoint's metadata wants it: float32 [1, C, T, H, W].

    Raises:
        VideoError: It cannot be decoded, or is of the other stream.
    """
    from i3dzoo.video import clips, load_clips, probe, resample

    spec = checkpoint.metadata.input
    info = probe(path, spec.channels)
    chosen = clips(resample(info, spec.fps), max(spec.frames, MIN_FRAMES), 1)
    ((_, pixels),) = load_clips(info, chosen, spec)
    return pixels[None]


def compare_outputs(
    here: Checkpoint, there: Checkpoint, clip: "torch.Tensor"
) -> tuple[OutputDifference, ...]:
    """Run both networks on one clip, in float32, and compare what comes out of each block.

    Args:
        here: The first.
        there: The second.
        clip: Float [1, C, T, H, W], T >= 9, as both are fed it.

    Returns:
        One record for each convolution and block in the order of computation; the logits are last.

    Raises:
        ShapeError: The two are of different streams.
    """
    if here.metadata.stream != there.metadata.stream:
        raise ShapeError(
            f"one network takes {here.metadata.stream}, the other {there.metadata.stream}; no clip "
            "fits both: change one with i3dzoo convert --in-channels"
        )
    first, second = _run(here, clip), _run(there, clip)
    names = [*(name for name in ENDPOINTS if name in first), *(set(first) - set(ENDPOINTS))]
    return tuple(_output(name, first[name], second.get(name)) for name in names)


def _compare(name: str, here: Checkpoint, there: Checkpoint, atol: float) -> TensorDifference:
    one, other = here.tensors.get(name), there.tensors.get(name)
    left, right = _kind(one), _kind(other)
    if one is None or other is None:
        status: Status = "only there" if one is None else "only here"
        return TensorDifference(name, status, left, right, None)
    if one.shape != other.shape:
        return TensorDifference(name, "shape", left, right, None)
    # in float64 the difference of two float32 values is exact unless their exponents are far apart
    largest = float(np.abs(one.astype("f8") - other.astype("f8")).max(initial=0.0))
    agreed: Status = "within" if largest <= atol else "differs"
    return TensorDifference(name, agreed if largest else "same", left, right, largest)


def _kind(array: Array | None) -> str:
    return "" if array is None else f"{list(array.shape)} {array.dtype.name}"


def _run(checkpoint: Checkpoint, clip: "torch.Tensor") -> "dict[str, torch.Tensor]":
    """Return the outputs of a network by name."""
    import torch

    from i3dzoo.loading import build

    model: InceptionI3d = build(checkpoint).float()
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: object, _inputs: object, output: torch.Tensor) -> None:
            found[name] = output

        return hook

    modules = dict(model.named_children())
    for name in ENDPOINTS:
        if name in modules:
            modules[name].register_forward_hook(keep(name))
    with torch.inference_mode():
        output = model(clip)
    found["logits" if model.num_classes else "features"] = output
    return found


def _output(name: str, one: "torch.Tensor", other: "torch.Tensor | None") -> OutputDifference:
    scale = float(one.abs().max())
    if other is None or one.shape != other.shape:
        return OutputDifference(name, None, scale)
    return OutputDifference(name, float((one - other).abs().max()), scale)
