"""What the network sees of a video: clips, a resize rule and squares.

A `Plan` is arithmetic on a `VideoInfo`; `i3dzoo.video.pipeline` decodes and runs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import ShapeError
from i3dzoo.limits import MAX_PIXELS
from i3dzoo.video.info import VideoInfo
from i3dzoo.video.sampling import Clip
from i3dzoo.video.transforms import resize_frames, resized_size

Place = Literal["centre", "top_left", "top_right", "bottom_left", "bottom_right", "start", "end"]

ZEROS: Final = -1
"""The index of a frame of zeros, after normalisation."""


@dataclass(frozen=True)
class Crop:
    """A square of a resized frame.

    Attributes:
        place: `centre` (an odd margin leaves one more pixel at the bottom or right), a corner, or
            `start` and `end` of the long side, in the middle of the short one.
        mirrored: Whether the square is mirrored after it was cut out.
    """

    place: Place = "centre"
    mirrored: bool = False

    def corner(self, height: int, width: int, edge: int) -> tuple[int, int]:
        """Return the top left pixel of the square of `edge` pixels in a frame."""
        down, across = height - edge, width - edge
        long_side = "across" if across >= down else "down"
        top = {"top_left": 0, "top_right": 0, "bottom_left": down, "bottom_right": down}
        left = {"top_left": 0, "top_right": across, "bottom_left": 0, "bottom_right": across}
        if self.place in ("start", "end"):
            far = self.place == "end"
            if long_side == "across":
                return down // 2, across * far
            return down * far, across // 2
        return top.get(self.place, down // 2), left.get(self.place, across // 2)

    def __str__(self) -> str:
        return self.place + (" mirrored" if self.mirrored else "")


_TEN: Final[tuple[Place, ...]] = ("top_left", "top_right", "centre", "bottom_left", "bottom_right")
_MIRRORED: Final[tuple[Place, ...]] = (
    "top_right",
    "top_left",
    "centre",
    "bottom_right",
    "bottom_left",
)

CROPS: Final[Mapping[int, tuple[Crop, ...]]] = {
    1: (Crop(),),
    3: (Crop("start"), Crop(), Crop("end")),
    5: (Crop(), *(Crop(place) for place in _TEN if place != "centre")),
    10: (*map(Crop, _TEN), *(Crop(place, mirrored=True) for place in _MIRRORED)),
}
"""The squares by their number.

Three are those of the long side. Five are the centre and the corners, in XD-Violence's order. Ten
are those of the extractor for THUMOS'14, which cuts the same five squares out of the frame and out
of its mirror image, whose top left square is the mirrored top right one.
"""


@dataclass(frozen=True)
class Resize:
    """How frames are resized before squares are cut out.

    Attributes:
        mode: `none`; `short`: the short side becomes `size`; `enlarge`: as `short`, but only frames
            whose short side is less; `exact`: `size` is height and width, whatever the aspect.
        size: Pixels of the short side, or height and width.
        interpolation: Bilinear between pixel centres. `bilinear` keeps fractions of pixel values;
            `opencv` rounds them to whole ones, as cv2.resize does for uint8; `pillow` also averages
            over more pixels where it makes frames smaller (antialiasing), and cuts a fraction off
            the long side, as video_features does; `uint8` rounds after each direction, as
            `resize_frames` does for training.
    """

    mode: Literal["none", "short", "enlarge", "exact"] = "none"
    size: int | tuple[int, int] = 0
    interpolation: Literal["bilinear", "opencv", "pillow", "uint8"] = "bilinear"

    @property
    def antialias(self) -> bool:
        """Whether pixels are averaged where frames become smaller."""
        return self.interpolation == "pillow"

    @property
    def rounded(self) -> bool:
        """Whether resized pixels are rounded to whole values."""
        return self.interpolation != "bilinear"

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of resized frames.

        Raises:
            ShapeError: They would have too many pixels.
        """
        short = min(height, width)
        if isinstance(self.size, tuple):
            return self.size
        if self.mode == "none" or short == self.size:
            return height, width
        if self.mode == "enlarge" and short > self.size:
            return height, width
        if self.interpolation != "pillow":
            return resized_size(height, width, self.size)
        target = self.size * height // short, self.size * width // short
        if target[0] * target[1] > MAX_PIXELS:
            raise ShapeError(f"frames of {width}x{height} pixels become too large; crop them first")
        return target

    def __str__(self) -> str:
        if isinstance(self.size, tuple):
            text = f"{self.size[1]}x{self.size[0]}"
        else:
            text = "none" if self.mode == "none" else f"{self.mode}:{self.size}"
        return text


def resize_of(spec: Input) -> Resize:
    """Return the resize rule of a checkpoint's input."""
    if spec.resize_mode == "squash":
        return Resize("exact", (spec.crop, spec.crop))
    return Resize() if spec.resize is None else Resize("short", spec.resize)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a network takes of a video.

    Attributes:
        info: The video, of RGB or of optical flow.
        clips: The windows: source frames of each; `ZEROS` stands for a frame of zeros.
        spec: Of this input only the channels, their mean and std, and the edge of the crop apply.
        resize: How frames are resized.
        crops: The squares that each clip is cut into.
        negate: Whether the x of mirrored optical flow is negated, as it should be; the extractor
            for THUMOS'14 does not.
    """

    info: VideoInfo
    clips: tuple[Clip, ...]
    spec: Input
    resize: Resize
    crops: tuple[Crop, ...] = CROPS[1]
    negate: bool = True

    def corners(self) -> dict[Crop, tuple[int, int]]:
        """Return the top left pixel of each square in the resized frames.

        Raises:
            ShapeError: The resized frames are smaller than a square.
        """
        held = f"{self.info.path}: frames of {self.info.width}x{self.info.height} pixels"
        try:
            height, width = self.resize.target(self.info.height, self.info.width)
        except ShapeError as error:
            raise ShapeError(f"{self.info.path}: {error}") from error
        if min(height, width) < self.spec.crop:
            resized = "" if self.resize.mode == "none" else f", resized to {width}x{height},"
            raise ShapeError(
                f"{held}{resized} are smaller than the crop of {self.spec.crop}; resize them to "
                f"{self.spec.crop} or more"
            )
        return {crop: crop.corner(height, width, self.spec.crop) for crop in self.crops}

    def resized(self, pixels: Tensor) -> tuple[Tensor, bool]:
        """Resize frames [n, C, H, W]: pixels 0..255, or floats from -1 to 1 if `info.floats`.

        Returns:
            The resized frames, and whether they are floats from -1 to 1.
        """
        if self.info.floats and self.resize.rounded:
            return resize_pixels((pixels + 1) * 127.5, self.resize), False
        return resize_pixels(pixels, self.resize), self.info.floats


def resize_pixels(pixels: Tensor, rule: Resize) -> Tensor:
    """Resize pixels 0..255, uint8 or floats [N, C, H, W], by a rule.

    Returns:
        float32; uint8 if there is nothing to resize, or by `uint8`.
    """
    size = rule.target(*pixels.shape[2:])
    if size == tuple(pixels.shape[2:]):
        return pixels
    if rule.interpolation == "uint8":
        whole = pixels if pixels.dtype == torch.uint8 else pixels.round().to(torch.uint8)
        return resize_frames(whole.permute(0, 2, 3, 1), size)
    if rule.antialias and pixels.dtype == torch.uint8 and not pixels.is_cuda:
        # this kernel rounds between the two directions, as Pillow does
        return F.interpolate(pixels, size, mode="bilinear", antialias=True)
    resized = F.interpolate(
        pixels.float(), size, mode="bilinear", align_corners=False, antialias=rule.antialias
    )
    return resized.round_().clamp_(0, 255) if rule.rounded else resized
