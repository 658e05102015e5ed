"""Options of an exported network: its inputs, its outputs and its precision."""

from typing import Final, Literal

from i3dzoo.checkpoints.metadata import Input, Metadata
from i3dzoo.errors import MetadataError, OptionError
from i3dzoo.network.architecture import MIN_FRAMES
from i3dzoo.records import Record

Precision = Literal["fp32", "tf32", "fp16", "bf16"]
Size = tuple[int | None, int | None, int | None]
"""Frames, height and width of a clip; None means any."""

AXES: Final = ("frames", "height", "width")

INPUT: Final = {"rgb": "input_rgb", "flow": "input_of"}
"""NVIDIA TAO's name of the input of each stream. Source: action_recognition/scripts/export.py."""

PIXELS: Final = {"rgb": "frames_rgb", "flow": "frames_of"}
"""Name of the input of each stream if the network takes uint8 frames, which TAO does not have."""

OUTPUT: Final = "fc_pred"
"""NVIDIA TAO's name of the output: logits averaged over time, before softmax."""

BF16_OPSET: Final = 22  # the first opset whose Conv and MaxPool take bfloat16


def main_output(metadata: Metadata) -> str:
    """Return the name of the first output: the logits, or the features if there is no head."""
    return OUTPUT if metadata.num_classes else "features"


class ExportOptions(Record, frozen=True, kw_only=True):
    """Options of an exported network.

    Attributes:
        dynamic: The axes of `AXES` that can have any size. The batch axis always can.
        keep_bn: Keep each BatchNorm as a node instead of folding it into the convolution.
        opset: Version of ONNX's default operator set. TensorRT 8.2 and later take 13.
        precision: Precision of weights and computation; inputs and outputs stay float32. tf32 is a
            float32 graph with weights that are rounded to 10 bits of mantissa.
        features: Add the output `features`, the pooled features [B, 1024].
        steps: Add the output `fc_steps`, the logits of each time step [B, steps, classes], which
            timelines need.
        pixels: Height and width of uint8 frames [B, T, H, W, C] that the graph resizes, crops and
            normalises. None takes float clips [B, C, T, H, W].
        space_to_depth: Use operators with fast GPU kernels where sizes are fixed; see
            `i3dzoo.onnx.space_to_depth`. TensorRT engines are built from such a graph.
    """

    dynamic: tuple[str, ...] = ()
    keep_bn: bool = False
    opset: int = 13
    precision: Precision = "fp32"
    features: bool = False
    steps: bool = False
    pixels: tuple[int, int] | None = None
    space_to_depth: bool = False

    def __post_init__(self) -> None:
        for axis in self.dynamic:
            if axis not in AXES:
                raise OptionError(f"dynamic: expected axes of {', '.join(AXES)}, found {axis!r}")
        if self.opset < 13:
            raise OptionError(f"opset: expected 13 or newer, found {self.opset}")
        if self.precision == "bf16" and self.opset < BF16_OPSET:
            raise OptionError(
                f"opset: bf16 needs {BF16_OPSET} or newer, found {self.opset}; pass --opset "
                f"{BF16_OPSET}, which TensorRT 10 and later take"
            )
        if self.pixels and {"height", "width"} & set(self.dynamic):
            raise OptionError(
                "dynamic: frames of a fixed size are cropped to a fixed size; leave height and "
                "width out of --dynamic, or leave --pixels out"
            )

    def size(self, spec: Input) -> Size:
        """Return frames, height and width of a clip, None where an axis is dynamic."""
        frames, height, width = (
            None if axis in self.dynamic else length
            for axis, length in zip(AXES, (spec.frames, spec.crop, spec.crop), strict=True)
        )
        if frames is not None and frames < MIN_FRAMES:
            raise MetadataError(
                f"input.frames: I3D takes {MIN_FRAMES} or more, found {frames}; pass --frames, or "
                "--dynamic frames"
            )
        return frames, height, width

    def input_shape(
        self, metadata: Metadata, batch: int, size: Size
    ) -> tuple[str, tuple[int, ...]]:
        """Return the name and the shape of a stream's input.

        `size` is taken where axes are dynamic; None takes the checkpoint's.
        """
        spec, channels = metadata.input, len(metadata.input.mean)
        frames, height, width = (
            (wanted or own) if fixed is None else fixed
            for fixed, wanted, own in zip(
                self.size(spec), size, (spec.frames, spec.crop, spec.crop), strict=True
            )
        )
        if self.pixels:
            return PIXELS[metadata.stream], (batch, frames, *self.pixels, channels)
        return INPUT[metadata.stream], (batch, channels, frames, height, width)
