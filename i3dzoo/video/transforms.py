"""Frames to network input, as a checkpoint's own `Input` record says."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from i3dzoo.errors import ShapeError
from i3dzoo.metadata import Input
from i3dzoo.video.decode import stream
from i3dzoo.video.records import Frames, VideoInfo
from i3dzoo.video.sampling import Clip

__all__ = ["load_clips", "preprocess", "resize_frame", "resize_frames", "resized_size"]

_CHUNK_VALUES = 1 << 23  # float32 values of full-size frames held at once: 32 MiB


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the height and width in pixels that bring the short side to `short_side`.

    The long side is long * short_side / short, rounded to the nearest pixel, halves up.
    """
    short = min(height, width)

    def scaled(side: int) -> int:
        return (2 * side * short_side + short) // (2 * short)

    return scaled(height), scaled(width)


def resize_frames(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize uint8 [T, H, W, C] to uint8 [T, C, height, width], as `preprocess` does but rounded.

    Values differ from those of `preprocess` by rounding only: 1 of 255 at most.
    """
    planes = frames.permute(0, 3, 1, 2)
    if size == tuple(frames.shape[1:3]):
        return planes
    # Of uint8 in this order of memory PyTorch has a kernel 6 times as fast as that of float32.
    return F.interpolate(planes, size, mode="bilinear", align_corners=False)


def resize_frame(frame: Frames, size: tuple[int, int]) -> Frames:
    """Resize one frame uint8 [H, W, C] to [height, width, C], as `resize_frames` does."""
    resized = resize_frames(torch.from_numpy(frame)[None], size)
    array: Frames = resized[0].permute(1, 2, 0).contiguous().numpy()
    return array


def preprocess(frames: npt.NDArray[np.uint8] | torch.Tensor, spec: Input) -> torch.Tensor:
    """Resize, crop and normalise frames.

    The short side becomes `spec.resize` by bilinear interpolation between pixel centres without
    antialiasing (`align_corners=False`), which is what OpenCV and TensorFlow 2 do in the published
    pipelines; the result is not rounded to whole pixel values. Frames that have this size already,
    and all frames when `resize` is None, are left as they are. Then the centre `spec.crop` square
    is cut out (an odd margin leaves one pixel more at the bottom or right), and p becomes
    `(p / 255 - mean) / std`. Full-size frames are converted a few at a time, so a memory-mapped
    array of any length can be given.

    Args:
        frames: uint8 [T, H, W, C], 0..255; RGB for C = 3, (x, y) flow for C = 2.
        spec: What the network takes.

    Returns:
        float32 [C, T, crop, crop], on the device of `frames`.

    Raises:
        ShapeError: The frames are of another type or shape, or smaller than the crop.
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
            # A copy: PyTorch warns of memory that it may not write to, such as a memory map's.
            chunk = torch.from_numpy(np.array(chunk))
        values = chunk.permute(0, 3, 1, 2)
        if (height, width) != tuple(frames.shape[1:3]):
            values = F.interpolate(
                values.float(), (height, width), mode="bilinear", align_corners=False
            )
        top, left = (height - edge) // 2, (width - edge) // 2
        values = values[:, :, top : top + edge, left : left + edge].float()
        output[:, begin : begin + step] = ((values / 255 - mean) / std).transpose(0, 1)
    return output


def load_clips(
    info: VideoInfo, clips: Sequence[Clip], spec: Input
) -> Iterator[tuple[Clip, torch.Tensor]]:
    """Decode a video once and yield its clips, ready for the network.

    Frames are resized and cropped as they are decoded. What is held is one full-size frame and the
    cropped frames of one clip, however long the video is and however much its clips overlap.

    Args:
        info: The video.
        clips: Its clips, by rising first frame.
        spec: What the network takes.

    Yields:
        Each clip and its input, float32 [C, T, crop, crop].

    Raises:
        VideoError: The video changed since it was probed.
        ShapeError: Its frames are smaller than the crop.
    """
    if not clips:
        return
    frames = stream(info, np.concatenate([clip.indices for clip in clips]))
    held: dict[int, torch.Tensor] = {}
    for clip in clips:
        lowest, highest = int(clip.indices.min()), int(clip.indices.max())
        held = {index: frame for index, frame in held.items() if index >= lowest}
        while highest not in held:
            index, frame = next(frames)
            if index >= lowest:
                held[index] = preprocess(frame[None], spec)
        yield clip, torch.cat([held[index] for index in clip.indices.tolist()], dim=1)


def _check(frames: npt.NDArray[np.uint8] | torch.Tensor, spec: Input) -> tuple[int, int]:
    """Check type and shape, and return height and width after resizing."""
    depth = len(spec.mean)
    kind = str(frames.dtype).removeprefix("torch.")
    shape = list(frames.shape)
    if kind != "uint8" or len(shape) != 4 or shape[3] != depth or 0 in shape:
        raise ShapeError(
            f"frames are {kind} {shape}; expected uint8 [T, H, W, {depth}] with values 0..255"
        )
    height, width = shape[1:3]
    if spec.resize is not None and min(height, width) != spec.resize:
        height, width = resized_size(height, width, spec.resize)
    if min(height, width) < spec.crop:
        resized = "" if spec.resize is None else f", resized to {width}x{height}"
        raise ShapeError(
            f"frames of {shape[2]}x{shape[1]} pixels{resized} are smaller than the crop of "
            f"{spec.crop}; set input.resize to {spec.crop} or more"
        )
    return height, width
