"""Resize, crop and normalise frames, as the `Input` record of a checkpoint says."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import InputTypeError, ShapeError
from i3dzoo.limits import MAX_PIXELS
from i3dzoo.video.info import Frames

_CHUNK_VALUES = 1 << 23  # float32 values of full-size frames held at once: 32 MiB
_LARGE_VALUES = 1 << 25  # values of a frame above which its planes are resized one by one


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the height and width in pixels after resizing the short side to `short_side`.

    The long side becomes long * short_side / short, rounded to the nearest pixel, halves up.

    Raises:
        ShapeError: A frame of this shape would have too many pixels.
    """
    short = min(height, width)

    def scaled(side: int) -> int:
        return (2 * side * short_side + short) // (2 * short)

    if scaled(height) * scaled(width) > MAX_PIXELS:
        raise ShapeError(
            f"frames of {width}x{height} pixels become {scaled(width):,}x{scaled(height):,} where "
            f"the short side is {short_side}; expected at most {MAX_PIXELS:,} pixels: crop or pad "
            "them first"
        )
    return scaled(height), scaled(width)


def frame_size(height: int, width: int, spec: Input) -> tuple[int, int]:
    """Return the height and width in pixels to which an input resizes frames, before the crop."""
    if spec.resize_mode == "squash":
        return spec.crop, spec.crop
    if spec.resize is None or min(height, width) == spec.resize:
        return height, width
    return resized_size(height, width, spec.resize)


def resize_frames(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize uint8 [T, H, W, C] to uint8 [T, C, height, width] like `preprocess`, but rounded.

    Pixels are rounded after each direction, and are the same on every device.
    """
    planes = frames.permute(0, 3, 1, 2)
    if size == tuple(frames.shape[1:3]):
        return planes
    if frames.device.type != "cpu":
        return resize_in_integers(planes, size)
    # For uint8 in this memory order, PyTorch has a kernel 6 times as fast as for float32.
    return F.interpolate(planes, size, mode="bilinear", align_corners=False)


def resize_in_integers(planes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize uint8 [T, C, H, W] to [T, C, height, width] as PyTorch does for uint8 on a CPU.

    Rows are resized before columns, with weights of 16 bits
    (aten/src/ATen/native/cpu/UpSampleKernelAVXAntialias.h). On a GPU, PyTorch rounds otherwise.
    """
    for axis, length in ((3, size[1]), (2, size[0])):
        if planes.shape[axis] != length:
            bits, taps = _taps(planes.shape[axis], length, planes.device)
            shape = (-1,) if axis == 3 else (-1, 1)
            first, second = (
                planes.index_select(axis, index).int().mul_(weights.view(shape))
                for index, weights in taps
            )
            total = first.add_(second).add_(1 << (bits - 1))
            planes = (total >> bits).clamp_(0, 255).to(torch.uint8)
    return planes


@lru_cache(maxsize=64)
def _taps(
    held: int, length: int, device: torch.device
) -> tuple[int, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return the bits of the weights, and the two pixels of each resized one with their weights."""
    places = (torch.arange(length, dtype=torch.float64) + 0.5) * (held / length) - 0.5
    places = places.clamp_(0, held - 1)
    first = places.long()
    share = places - first
    largest = max(float(share.max()), float((1 - share).max()))
    bits = next(bits for bits in range(22) if int(0.5 + largest * (2 << bits)) >= 1 << 15)
    taps = ((first, 1 - share), ((first + 1).clamp_(max=held - 1), share))
    return bits, [
        (index.to(device), (0.5 + weights * (1 << bits)).int().to(device))
        for index, weights in taps
    ]


def resize_frame(frame: Frames, size: tuple[int, int]) -> Frames:
    """Resize one frame uint8 [H, W, C] to [height, width, C], as `resize_frames` does."""
    resized = resize_frames(torch.from_numpy(frame)[None], size)
    array: Frames = resized[0].permute(1, 2, 0).contiguous().numpy()
    return array


def preprocess(frames: npt.NDArray[np.uint8] | torch.Tensor, spec: Input) -> torch.Tensor:
    """Resize, crop and normalise frames.

    The short side is resized to `spec.resize` by bilinear interpolation between pixel centres
    without antialiasing (`align_corners=False`), as OpenCV and TensorFlow 2 do in the published
    pipelines. The result is not rounded to whole pixel values. Frames that have this size already,
    and all frames if `resize` is None, are not resized; with the mode `squash`, both sides are
    resized to `spec.crop`. Then the centre `spec.crop` square is cut
    out (an odd margin leaves one more pixel at the bottom or right), the channels are put into the
    order of the input, and p becomes `(p / 255 - mean) / std`. Full-size frames are converted a few
    at a time, so the array can be memory-mapped and of any length.

    Args:
        frames: uint8 [T, H, W, C], 0..255; RGB for C = 3, (x, y) flow for C = 2.
        spec: Input of the network.

    Returns:
        float32 [C, T, crop, crop], on the device of `frames`.

    Raises:
        InputTypeError: The frames are not an array or a tensor of uint8.
        ShapeError: The frames have another shape, or are smaller than the crop.
    """
    height, width = _check(frames, spec)
    count, depth, edge = len(frames), len(spec.mean), spec.crop
    device = frames.device if isinstance(frames, torch.Tensor) else torch.device("cpu")
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=device).view(-1, 1, 1)
    std = torch.tensor(spec.std, dtype=torch.float32, device=device).view(-1, 1, 1)
    output = torch.empty((depth, count, edge, edge), dtype=torch.float32, device=device)
    largest = max(height * width, frames.shape[1] * frames.shape[2])
    step = max(_CHUNK_VALUES // (largest * depth), 1)
    for begin in range(0, count, step):
        chunk = frames[begin : begin + step]
        if not isinstance(chunk, torch.Tensor):
            # A copy, since PyTorch warns of read-only memory such as a memory map.
            chunk = torch.from_numpy(np.array(chunk))
        values = _in_order(chunk.permute(0, 3, 1, 2), spec)
        values = _resize_and_crop(values, (height, width), edge)
        output[:, begin : begin + step] = ((values / 255 - mean) / std).transpose(0, 1)
    return output


def _resize_and_crop(values: torch.Tensor, size: tuple[int, int], edge: int) -> torch.Tensor:
    """Resize [T, C, H, W] and cut out the centre square, as float32."""
    height, width = size
    top, left = (height - edge) // 2, (width - edge) // 2
    resized = size != tuple(values.shape[2:])
    # The float32 planes of a very large frame are made one by one.
    large = values[0].numel() > _LARGE_VALUES or height * width > _LARGE_VALUES
    parts = []
    for part in torch.split(values, 1, dim=1) if large else (values,):
        if resized:
            part = F.interpolate(part.float(), size, mode="bilinear", align_corners=False)
        parts.append(part[:, :, top : top + edge, left : left + edge].float())
    return torch.cat(parts, dim=1) if large else parts[0]


def normalise(clips: torch.Tensor, spec: Input, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return `(p / 255 - mean) / std` of pixels p, in the input's order of channels.

    Args:
        clips: uint8 [N, C, T, H, W], RGB or (x, y) flow; the result is on their device.
        spec: Input of the network: mean and std are 0.5 for [-1, 1], or ImageNet's.
        dtype: Type of the result.

    Raises:
        ShapeError: The clips are of another type, or have another number of channels.
    """
    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[1] != len(spec.mean):
        raise ShapeError(
            f"expected clips as torch.uint8 [N, {len(spec.mean)}, T, H, W], "
            f"found {clips.dtype} {list(clips.shape)}"
        )
    # One multiplication and one addition in place make the fewest copies.
    std = torch.tensor(spec.std, dtype=torch.float32, device=clips.device)
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=clips.device)
    scale, shift = (1 / (255 * std)).view(-1, 1, 1, 1), (-mean / std).view(-1, 1, 1, 1)
    return _in_order(clips, spec).to(torch.float32).mul_(scale).add_(shift).to(dtype)


def _in_order(pixels: torch.Tensor, spec: Input) -> torch.Tensor:
    """Return decoded pixels [N, C, ...] with the channels in the order of the input."""
    return pixels.flip(1) if spec.channels == "bgr" else pixels


def _check(frames: Any, spec: Input) -> tuple[int, int]:
    """Check type and shape, and return the height and width after resizing."""
    depth = len(spec.mean)
    expected = f"expected frames as uint8 [T, H, W, {depth}] with values 0..255"
    if not isinstance(frames, np.ndarray | torch.Tensor):
        found = f"{type(frames).__module__}.{type(frames).__qualname__}"
        raise InputTypeError(f"{expected}, found a {found}; pass numpy.stack(frames)")
    kind, shape = str(frames.dtype).removeprefix("torch."), list(frames.shape)
    if kind != "uint8":
        raise InputTypeError(f"{expected}, found {kind} {shape}{_type_remedy(frames, kind)}")
    if len(shape) != 4 or shape[3] != depth or 0 in shape:
        raise ShapeError(f"{expected}, found {kind} {shape}{_shape_remedy(shape, depth)}")
    return _target_size(shape[1], shape[2], spec)


def _target_size(held_height: int, held_width: int, spec: Input) -> tuple[int, int]:
    """Return the height and width after resizing, which must hold the crop."""
    height, width = frame_size(held_height, held_width, spec)
    if min(height, width) < spec.crop:
        resized = "" if spec.resize is None else f", resized to {width}x{height}"
        raise ShapeError(
            f"frames of {held_width}x{held_height} pixels{resized} are smaller than the crop of "
            f"{spec.crop}; set input.resize to {spec.crop} or more"
        )
    return height, width


def _type_remedy(frames: Any, kind: str) -> str:
    """Return how to make uint8 of frames in 0..1 or 0..255."""
    if 0 in frames.shape or not kind.startswith(("float", "bfloat", "int", "uint")):
        return ""
    low, high = float(frames.min()), float(frames.max())
    if not 0 <= low <= high <= 255:
        return f" from {low:.4g} to {high:.4g}"
    scale = " * 255" if high <= 1 else ""
    return f": convert them with torch.as_tensor(frames{scale}).round().to(torch.uint8)"


def _shape_remedy(shape: list[int], depth: int) -> str:
    """Return what to do if the axes are those of a common layout."""
    if len(shape) == 5:
        return "; pass the clips one by one, and torch.stack the results"
    if len(shape) == 4 and shape[1] == depth:
        return "; it looks like [T, C, H, W], so pass torch.as_tensor(frames).permute(0, 2, 3, 1)"
    if len(shape) == 4 and shape[0] == depth:
        return "; it looks like [C, T, H, W], so pass torch.as_tensor(frames).permute(1, 2, 3, 0)"
    return ""
