"""Plans of pixels: resizing against OpenCV and Pillow, and squares against NumPy."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import ShapeError
from i3dzoo.video import Frames, load_clips, probe, resample, windows
from i3dzoo.video.pipeline import load_plan
from i3dzoo.video.plan import CROPS, ZEROS, Crop, Plan, Resize, resize_of, resize_pixels


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Twelve frames of noise."""
    return np.random.default_rng(0).integers(0, 256, (12, 40, 57, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def video(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames as an array."""
    path = tmp_path_factory.mktemp("array") / "x.npy"
    np.save(path, frames)
    return path


@pytest.mark.parametrize("size", [(20, 28), (36, 51), (80, 114), (57, 57)])
def test_resizing_is_that_of_opencv_and_pillow(frames: Frames, size: tuple[int, int]) -> None:
    """Pixels differ by at most 1 from cv2.resize and from Pillow's BILINEAR, most not at all."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    by_opencv = np.stack([cv2.resize(frame, size[::-1]) for frame in frames])
    by_pillow = np.stack(
        [
            np.array(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR))
            for frame in frames
        ]
    )
    for name, expected, most in (("opencv", by_opencv, 0.14), ("pillow", by_pillow, 0.06)):
        actual = resize_pixels(pixels, Resize("exact", size, name))  # type: ignore[arg-type] # one of the names
        difference = np.abs(actual.permute(0, 2, 3, 1).numpy() - expected.astype(float))
        assert difference.max() <= 1, name
        assert difference.mean() < most, name
    floats = resize_pixels(pixels, Resize("exact", size)).permute(0, 2, 3, 1).numpy()
    exact = np.stack([cv2.resize(frame.astype("f4"), size[::-1]) for frame in frames])
    np.testing.assert_allclose(floats, exact, atol=1e-2)


def test_long_side() -> None:
    """The long side is rounded, or cut by Pillow's rule, and only small frames are enlarged."""
    assert Resize("short", 256).target(240, 427) == (256, 455)  # 455.47
    assert Resize("short", 256).target(427, 240) == (455, 256)
    assert Resize("short", 256).target(240, 428) == (256, 457)  # 456.53
    assert Resize("short", 256, "pillow").target(240, 428) == (256, 456)
    assert Resize("enlarge", 226).target(240, 320) == (240, 320)
    assert Resize("enlarge", 226).target(113, 200) == (226, 400)
    assert Resize("exact", (256, 340)).target(1, 2) == (256, 340)
    assert Resize().target(7, 9) == (7, 9)


@pytest.mark.parametrize("number", [1, 3, 5, 10])
def test_squares(frames: Frames, video: Path, number: int) -> None:
    """Squares are slices of the frames; those of the mirror image are slices of it."""
    info, spec = probe(video), Input(crop=32, resize=None)
    clips = tuple(windows(resample(info, None), 9, 3))
    plan = Plan(info, clips, spec, Resize(), CROPS[number])
    flipped = frames[:, :, ::-1]
    top, middle, bottom = slice(0, 32), slice(4, 36), slice(8, 40)
    left, centre, right = slice(0, 32), slice(12, 44), slice(25, 57)
    five = [(top, left), (top, right), (middle, centre), (bottom, left), (bottom, right)]
    ten = [frames[:, y, x] for y, x in five]
    ten += [flipped[:, y, slice(12 + 1, 44 + 1) if x is centre else x] for y, x in five]
    expected = {
        1: [frames[:, middle, centre]],
        3: [frames[:, middle, x] for x in (left, centre, right)],
        5: [frames[:, y, x] for y, x in (five[2], *five[:2], *five[3:])],
        10: ten,  # an odd margin: the mirrored middle is the middle's mirror image
    }[number]
    for clip, loaded in zip(clips, load_plan(plan), strict=True):
        squares = np.stack(expected)[:, clip.indices].transpose(0, 4, 1, 2, 3)
        np.testing.assert_allclose(loaded.numpy(), squares / 127.5 - 1, atol=1e-6)


def test_zeros_and_repetitions(frames: Frames, video: Path) -> None:
    """Frames of zeros are zeros after normalisation; frames may be repeated, in any order."""
    info, spec = probe(video), Input(crop=40, resize=None, mean=(0.1, 0.2, 0.3), channels="bgr")
    clip = dataclasses.replace(windows(resample(info, None), 9, 9)[0])
    order = np.array([ZEROS, 3, 3, 11, 0, ZEROS])
    plan = Plan(info, (dataclasses.replace(clip, indices=order),) * 2, spec, resize_of(spec))
    for loaded in load_plan(plan):
        assert not loaded[0, :, [0, 5]].any()
        values = (frames[order[1:5], :, 8:48, ::-1] / 255 - (0.1, 0.2, 0.3)) / 0.5
        np.testing.assert_allclose(
            loaded[0, :, 1:5].numpy().transpose(1, 2, 3, 0), values, atol=1e-5
        )


def test_mirrored_flow(tmp_path: Path) -> None:
    """Mirrored motion goes the other way; the extractor for THUMOS'14 leaves it."""
    flow = np.random.default_rng(1).integers(0, 256, (9, 32, 32, 2), dtype=np.uint8)
    np.save(tmp_path / "x.npy", flow)
    info = probe(tmp_path / "x.npy", "xy")
    spec = Input("xy", (0.5, 0.5), (0.5, 0.5), None, 32, 9)
    clips = tuple(windows(resample(info, None), 9, 9))
    plan = Plan(info, clips, spec, Resize(), (Crop(mirrored=True),))
    values = (flow[:, :, ::-1] / 127.5 - 1).transpose(3, 0, 1, 2)
    (kept,) = load_plan(dataclasses.replace(plan, negate=False))
    np.testing.assert_allclose(kept[0].numpy(), values, atol=1e-6)
    values[0] *= -1
    (negated,) = load_plan(plan)
    np.testing.assert_allclose(negated[0].numpy(), values, atol=1e-6)


def test_same_as_the_other_loader(video: Path) -> None:
    """The centre is what `load_clips` gives, which predict uses."""
    info, spec = probe(video), Input(crop=32, resize=36)
    clips = tuple(windows(resample(info, None), 9, 2))
    plan = Plan(info, clips, spec, resize_of(spec))
    for (_, other), own in zip(load_clips(info, clips, spec), load_plan(plan), strict=True):
        torch.testing.assert_close(own[0], other)
    large = Plan(info, clips, Input(), Resize())
    with pytest.raises(
        ShapeError, match=r"frames of 57x40 pixels are smaller than the crop of 224"
    ):
        next(load_plan(large))
