"""What an exported network takes and gives."""

from dataclasses import dataclass
from typing import Final, Literal

from i3dzoo.architecture import MIN_FRAMES
from i3dzoo.errors import MetadataError
from i3dzoo.metadata import Input, Metadata

__all__ = ["AXES", "INPUT", "OUTPUT", "PIXELS", "ExportOptions", "Precision", "Size", "main_output"]

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Size = tuple[int | None, int | None, int | None]
"""Frames, height and width; None is any."""

AXES: Final = ("frames", "height", "width")

INPUT: Final = {"rgb": "input_rgb", "flow": "input_of"}
"""What NVIDIA TAO calls its inputs, by stream. Source: its action_recognition/scripts/export.py."""

PIXELS: Final = {"rgb": "frames_rgb", "flow": "frames_of"}
"""Inputs that take undecorated uint8 frames; TAO has none such."""

OUTPUT: Final = "fc_pred"
"""What NVIDIA TAO calls its output: raw logits, averaged over time."""

BF16_OPSET: Final = 22  # the first whose Conv and MaxPool take bfloat16


def main_output(metadata: Metadata) -> str:
    """Return the name of a network's first output: logits, or features where there is no head."""
    return OUTPUT if metadata.num_classes else "features"


@dataclass(frozen=True)
class ExportOptions:
    """What an exported network takes, gives and computes in.

    Attributes:
        dynamic: Which of `AXES` are left open; the batch always is.
        keep_bn: Keep every BatchNorm as a node of its own instead of folding it.
        opset: Version of ONNX's default operator set; 13 is what TensorRT 8.2 and later take.
        precision: Type of weights and computation; inputs and outputs stay float32.
        features: Give the pooled features [B, 1024] as a second output, `features`.
        steps: Give the logits before they are averaged over time, [B, steps, classes], as
            `fc_steps`, which timelines need.
        pixels: Height and width of uint8 frames [B, T, H, W, C] which the graph resizes, crops
            and normalises itself; None takes float clips [B, C, T, H, W].
        bits: Fraction of the weights that what computes keeps, if that is less than the graph's
            type says: 10 for engines of tf32.
        split: Where sizes are fixed, compute the same by what GPUs have fast kernels for
            (`i3dzoo.export.split`). Engines are built from such a graph.
    """

    dynamic: tuple[str, ...] = ()
    keep_bn: bool = False
    opset: int = 13
    precision: Precision = "fp32"
    features: bool = False
    steps: bool = False
    pixels: tuple[int, int] | None = None
    bits: int | None = None
    split: bool = False

    def __post_init__(self) -> None:
        for axis in self.dynamic:
            if axis not in AXES:
                raise MetadataError(
                    f"no axis is called {axis!r}; expected some of {', '.join(AXES)}"
                )
        if self.opset < 13:
            raise MetadataError(f"opset is {self.opset}; expected 13 or newer")
        if self.precision == "bf16" and self.opset < BF16_OPSET:
            raise MetadataError(
                f"bf16 convolutions came with opset {BF16_OPSET}, and opset is {self.opset}; "
                f"pass --opset {BF16_OPSET}, which TensorRT 10 and later take"
            )
        if self.precision == "int8" and self.keep_bn:
            raise MetadataError(
                "int8 rounds convolutions with BatchNorm folded into them; leave --keep-bn out"
            )
        if self.pixels and {"height", "width"} & set(self.dynamic):
            raise MetadataError(
                "uint8 frames of a fixed size are cropped to a fixed size; leave height and width "
                "out of the dynamic axes"
            )

    def refuse(self, target: str, *names: str) -> None:
        """Refuse what a target would leave out.

        Args:
            target: What is exported to.
            names: Attributes that it does not have.

        Raises:
            MetadataError: One of them is set.
        """
        unwanted = [name for name in names if getattr(self, name)]
        if self.precision != "fp32":
            unwanted.append(f"precision {self.precision}")
        if unwanted:
            raise MetadataError(f"{target} has no {', '.join(unwanted)}; export to onnx for that")

    def size(self, spec: Input) -> Size:
        """Return frames, height and width of a clip, None where any will do."""
        frames, height, width = (
            None if axis in self.dynamic else length
            for axis, length in zip(AXES, (spec.frames, spec.crop, spec.crop), strict=True)
        )
        if frames is not None and frames < MIN_FRAMES:
            raise MetadataError(
                f"input.frames is {frames}; I3D takes {MIN_FRAMES} or more: export with the frames "
                "dynamic"
            )
        return frames, height, width
