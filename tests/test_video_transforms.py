"""Frames to input: sizes, known answers, and the decoded clip as a whole."""

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from i3dzoo.errors import ShapeError
from i3dzoo.metadata import Input, default_input
from i3dzoo.video import (
    Frames,
    clips,
    load_clips,
    preprocess,
    probe,
    read,
    resample,
    resized_size,
)

from .video_files import numbered, write_video

SMALL = Input(resize=40, crop=32, frames=16)


def noise(*shape: int) -> Frames:
    """Random pixels."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


class TestSizes:
    @pytest.mark.parametrize(
        ("height", "width", "expected"),
        [
            (240, 320, (256, 341)),  # 341.33
            (240, 560, (256, 597)),  # 597.33
            (240, 432, (256, 461)),  # 460.8
            (1920, 1080, (455, 256)),  # 455.1
            (256, 340, (256, 340)),
            (512, 513, (256, 257)),  # 256.5, halves go up
        ],
    )
    def test_short_side(self, height: int, width: int, expected: tuple[int, int]) -> None:
        """The short side becomes 256 and the long side is rounded to the nearest pixel."""
        assert resized_size(height, width, 256) == expected

    def test_extremely_long(self) -> None:
        """The short side is exact whatever the other one is."""
        assert resized_size(1, 3000, 256) == (256, 768_000)


class TestPreprocess:
    def test_values_span_minus_one_to_one(self) -> None:
        """With mean and std of 0.5, 0 becomes -1, 255 becomes 1, 51 becomes -0.6."""
        frames = np.zeros((3, 224, 224, 3), np.uint8)
        frames[1], frames[2] = 255, 51
        output = preprocess(frames, Input(resize=None))
        assert output.dtype == torch.float32
        assert output.shape == (3, 3, 224, 224)
        torch.testing.assert_close(output[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))

    def test_channels_have_their_own_mean(self) -> None:
        """Red, green and blue are normalised each with its own numbers, in this order."""
        frames = np.full((1, 8, 8, 3), 255, np.uint8)
        spec = Input(mean=(0.0, 0.5, 0.25), std=(1.0, 0.25, 0.5), resize=None, crop=8)
        assert preprocess(frames, spec)[:, 0, 0, 0].tolist() == [1.0, 2.0, 1.5]

    def test_hand_computed_resize(self) -> None:
        """2 to 4 pixels: bilinear between pixel centres gives 0, 1/4, 3/4 and all of the step."""
        frames = np.zeros((1, 2, 2, 3), np.uint8)
        frames[:, :, 1] = 200
        spec = Input(mean=(0.0,) * 3, std=(1.0,) * 3, resize=4, crop=4)
        row = preprocess(frames, spec)[0, 0, 2] * 255
        torch.testing.assert_close(row, torch.tensor([0.0, 50.0, 150.0, 200.0]))

    def test_no_antialiasing(self) -> None:
        """Halving takes the mean of the two middle pixels of four, as OpenCV does."""
        frames = np.zeros((1, 16, 16, 3), np.uint8)
        frames[:, :, 5:7] = 100  # the pixels on which the second of four is interpolated
        spec = Input(mean=(0.0,) * 3, std=(1.0,) * 3, resize=4, crop=4)
        row = preprocess(frames, spec)[0, 0, 0] * 255
        torch.testing.assert_close(row, torch.tensor([0.0, 100.0, 0.0, 0.0]))

    @pytest.mark.parametrize("size", [(48, 64), (65, 47), (33, 200), (40, 41)])
    def test_agrees_with_torch(self, size: tuple[int, int]) -> None:
        """Any frame size equals torch's own interpolation and a centre crop by hand."""
        frames = noise(5, *size, 3)
        height, width = resized_size(*size, 40)
        x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
        top, left = (height - 32) // 2, (width - 32) // 2
        x = x[:, :, top : top + 32, left : left + 32] / 127.5 - 1
        torch.testing.assert_close(preprocess(frames, SMALL), x.transpose(0, 1))

    def test_right_size_is_not_resampled(self) -> None:
        """Frames whose short side is right already keep every pixel."""
        frames = noise(2, 40, 50, 3)
        output = (preprocess(frames, SMALL) + 1) * 127.5
        expected = torch.from_numpy(frames[:, 4:36, 9:41]).permute(3, 0, 1, 2)
        torch.testing.assert_close(output.round().to(torch.uint8), expected)

    def test_odd_margin(self) -> None:
        """Of an odd margin the larger half is cut at the bottom and at the right."""
        frames = np.zeros((1, 35, 33, 3), np.uint8)
        frames[0, 1, 0] = 255
        output = preprocess(frames, dataclasses.replace(SMALL, resize=None))
        assert output[0, 0, 0, 0] == 1
        assert (output == 1).sum() == 3

    def test_tensors_and_memory_maps(self, tmp_path: Path) -> None:
        """A tensor, an array and a read-only memory map give the same."""
        frames = noise(4, 48, 64, 3)
        np.save(tmp_path / "a.npy", frames)
        mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
        expected = preprocess(frames, SMALL)
        torch.testing.assert_close(preprocess(torch.from_numpy(frames), SMALL), expected)
        torch.testing.assert_close(preprocess(mapped, SMALL), expected)

    def test_chunks_join(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Frames converted one at a time equal frames converted together."""
        frames = noise(7, 48, 64, 3)
        together = preprocess(frames, SMALL)
        monkeypatch.setattr("i3dzoo.video.transforms._CHUNK_VALUES", 1)
        torch.testing.assert_close(preprocess(frames, SMALL), together, rtol=0, atol=0)

    def test_flow(self) -> None:
        """Two channels go through alike: 0 is -1 and 255 is 1."""
        output = preprocess(noise(3, 240, 320, 2), default_input("flow"))
        assert output.shape == (2, 3, 224, 224)
        assert -1 <= output.min() < output.max() <= 1

    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            (np.zeros((2, 48, 64, 3), np.float32), r"frames are float32 \[2, 48, 64, 3\]"),
            (torch.zeros(2, 48, 64, 3), r"frames are float32 \[2, 48, 64, 3\]"),
            (np.zeros((2, 48, 64, 2), np.uint8), r"expected uint8 \[T, H, W, 3\] with values 0"),
            (np.zeros((2, 3, 48, 64), np.uint8), r"expected uint8 \[T, H, W, 3\]"),
            (np.zeros((48, 64, 3), np.uint8), r"frames are uint8 \[48, 64, 3\]"),
            (np.zeros((0, 48, 64, 3), np.uint8), r"frames are uint8 \[0, 48, 64, 3\]"),
        ],
    )
    def test_wrong_frames(self, frames: Frames, message: str) -> None:
        """Other types, axes or channels are refused with what was found and expected."""
        with pytest.raises(ShapeError, match=message):
            preprocess(frames, SMALL)

    def test_smaller_than_the_crop(self) -> None:
        """Frames that the crop does not fit into are refused with all sizes."""
        spec = dataclasses.replace(SMALL, resize=None)
        with pytest.raises(ShapeError, match="of 64x20 pixels are smaller than the crop of 32"):
            preprocess(noise(1, 20, 64, 3), spec)
        spec = dataclasses.replace(SMALL, resize=20)
        with pytest.raises(ShapeError, match="64x48 pixels, resized to 27x20 are smaller"):
            preprocess(noise(1, 48, 64, 3), spec)


class TestLoadClips:
    def test_equals_reading_everything(self, tmp_path: Path) -> None:
        """Overlapping clips, decoded in one pass, equal those cut from the whole video."""
        info = probe(write_video(tmp_path / "a.mov", numbered(50), fps=30))
        chosen = clips(resample(info, 25), 16, 5)
        everything = read(info).frames
        loaded = list(load_clips(info, chosen, SMALL))
        assert [clip.first for clip, _ in loaded] == [clip.first for clip in chosen]
        for clip, pixels in loaded:
            torch.testing.assert_close(pixels, preprocess(everything[clip.indices], SMALL))

    def test_looped(self, tmp_path: Path) -> None:
        """A clip that is looped repeats its frames in order."""
        info = probe(write_video(tmp_path / "a.mov", numbered(5)))
        ((clip, pixels),) = load_clips(info, clips(resample(info, 25), 16), SMALL)
        assert clip.loops == pytest.approx(3.2)
        torch.testing.assert_close(pixels[:, 5:10], pixels[:, :5])
        torch.testing.assert_close(pixels[:, 15], pixels[:, 0])

    def test_nothing_to_load(self, tmp_path: Path) -> None:
        """No clips, no decoding."""
        info = probe(write_video(tmp_path / "a.mov", numbered(5)))
        assert list(load_clips(info, [], SMALL)) == []

    def test_memory_does_not_grow_with_the_video(self, tmp_path: Path) -> None:
        """Clips of a 640x480 video (276 MB) are made with a few frames in memory."""
        frames = np.broadcast_to(np.full((480, 640, 3), 90, np.uint8), (300, 480, 640, 3))
        info = probe(write_video(tmp_path / "a.mp4", frames, codec="mpeg4", pixels="yuv420p"))
        chosen = clips(resample(info, 25), 16, 12)
        tracemalloc.start()
        try:
            count = sum(1 for _ in load_clips(info, chosen, SMALL))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert count == 12
        assert peak < 8_000_000
