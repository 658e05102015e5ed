"""Frames to network input: sizes, known values, and complete clips."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.metadata import Input, default_input
from i3dzoo.errors import InputTypeError, ShapeError
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
from i3dzoo.video.transforms import resize_frames, resize_in_integers

SMALL = Input(resize=40, crop=32, frames=16)
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


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
            (10, 3000, (256, 76_800)),
        ],
    )
    def test_short_side(self, height: int, width: int, expected: tuple[int, int]) -> None:
        """The short side becomes 256 and the long side is rounded to the nearest pixel."""
        assert resized_size(height, width, 256) == expected

    def test_thin_frames_do_not_become_huge(self) -> None:
        """The message has both sizes of a frame whose long side would grow beyond memory."""
        with pytest.raises(ShapeError, match=r"30000x1 pixels become 7,680,000x256 .* crop or pad"):
            resized_size(1, 30_000, 256)


class TestPreprocess:
    def test_values_span_minus_one_to_one(self) -> None:
        """With mean and std of 0.5, 0 becomes -1, 255 becomes 1 and 51 becomes -0.6."""
        frames = np.zeros((3, 224, 224, 3), np.uint8)
        frames[1], frames[2] = 255, 51
        output = preprocess(frames, Input(resize=None))
        assert output.dtype == torch.float32
        assert output.shape == (3, 3, 224, 224)
        torch.testing.assert_close(output[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))

    def test_channels_have_their_own_mean(self) -> None:
        """Red, green and blue have their own mean and std, in this order."""
        frames = np.full((1, 8, 8, 3), 255, np.uint8)
        spec = Input(mean=(0.0, 0.5, 0.25), std=(1.0, 0.25, 0.5), resize=None, crop=8)
        assert preprocess(frames, spec)[:, 0, 0, 0].tolist() == [1.0, 2.0, 1.5]

    def test_hand_computed_resize(self) -> None:
        """From 2 to 4 pixels, bilinear interpolation between centres gives 0, 1/4, 3/4 and 1."""
        frames = np.zeros((1, 2, 2, 3), np.uint8)
        frames[:, :, 1] = 200
        spec = Input(mean=(0.0,) * 3, std=(1.0,) * 3, resize=4, crop=4)
        row = preprocess(frames, spec)[0, 0, 2] * 255
        torch.testing.assert_close(row, torch.tensor([0.0, 50.0, 150.0, 200.0]))

    def test_no_antialiasing(self) -> None:
        """Halving averages the two middle pixels of four, as OpenCV does."""
        frames = np.zeros((1, 16, 16, 3), np.uint8)
        frames[:, :, 5:7] = 100  # the pixels on which the second of four is interpolated
        spec = Input(mean=(0.0,) * 3, std=(1.0,) * 3, resize=4, crop=4)
        row = preprocess(frames, spec)[0, 0, 0] * 255
        torch.testing.assert_close(row, torch.tensor([0.0, 100.0, 0.0, 0.0]))

    @pytest.mark.parametrize("size", [(48, 64), (65, 47), (33, 200), (40, 41)])
    def test_agrees_with_torch(self, size: tuple[int, int]) -> None:
        """Every frame size equals torch's interpolation and a centre crop by hand."""
        frames = noise(5, *size, 3)
        height, width = resized_size(*size, 40)
        x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
        top, left = (height - 32) // 2, (width - 32) // 2
        x = x[:, :, top : top + 32, left : left + 32] / 127.5 - 1
        torch.testing.assert_close(preprocess(frames, SMALL), x.transpose(0, 1))

    @pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
    @pytest.mark.parametrize("sizes", [(65, 47, 40, 33), (9, 7, 30, 31), (8, 40, 8, 13)])
    def test_whole_pixels_of_any_device(self, sizes: tuple[int, ...], device: str) -> None:
        """Where pixels are rounded, other devices give those of a CPU's kernel, to the bit."""
        frames, size = torch.from_numpy(noise(3, *sizes[:2], 3)), (sizes[2], sizes[3])
        resized = resize_in_integers(frames.permute(0, 3, 1, 2).to(device), size)
        assert torch.equal(resized.cpu(), resize_frames(frames, size))

    def test_right_size_is_not_resampled(self) -> None:
        """Frames with the right short side keep every pixel."""
        frames = noise(2, 40, 50, 3)
        output = (preprocess(frames, SMALL) + 1) * 127.5
        expected = torch.from_numpy(frames[:, 4:36, 9:41]).permute(3, 0, 1, 2)
        torch.testing.assert_close(output.round().to(torch.uint8), expected)

    @pytest.mark.parametrize("size", [(45, 80), (80, 45), (32, 32), (20, 90)])
    def test_squash(self, size: tuple[int, int]) -> None:
        """Both sides become the crop, whatever the aspect; `resize` has no effect."""
        frames = noise(2, *size, 3)
        planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        expected = F.interpolate(planes, (32, 32), mode="bilinear", align_corners=False)
        output = preprocess(frames, SMALL.replace(resize_mode="squash"))
        torch.testing.assert_close(output.transpose(0, 1), expected / 127.5 - 1)

    def test_odd_margin(self) -> None:
        """The larger half of an odd margin is at the bottom and at the right."""
        frames = np.zeros((1, 35, 33, 3), np.uint8)
        frames[0, 1, 0] = 255
        output = preprocess(frames, SMALL.replace(resize=None))
        assert output[0, 0, 0, 0] == 1
        assert (output == 1).sum() == 3

    def test_tensors_and_memory_maps(self, tmp_path: Path) -> None:
        """A tensor, an array and a read-only memory map give the same result."""
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
        """Flow has two channels, between -1 and 1."""
        output = preprocess(noise(3, 240, 320, 2), default_input("flow"))
        assert output.shape == (2, 3, 224, 224)
        assert -1 <= output.min() < output.max() <= 1

    @pytest.mark.parametrize(
        ("frames", "error", "message"),
        [
            (
                np.zeros((2, 48, 64, 3), np.float32),
                InputTypeError,
                r"float32 .*frames \* 255",
            ),
            (torch.full((2, 48, 64, 3), 9.0), InputTypeError, r"as_tensor\(frames\)\.round"),
            (torch.full((2, 48, 64, 3), -1.0), InputTypeError, r"\[2, 48, 64, 3\] from -1 to -1"),
            (np.zeros((2, 48, 64, 3), "c8"), InputTypeError, "found complex64"),
            ([np.zeros((48, 64, 3), "u1")], InputTypeError, r"found a builtins\.list; .*stack"),
            (
                np.zeros((2, 48, 64, 2), np.uint8),
                ShapeError,
                r"expected frames as uint8 \[T, H, W, 3\] with values 0",
            ),
            (np.zeros((2, 3, 48, 64), np.uint8), ShapeError, r"permute\(0, 2, 3, 1\)"),
            (np.zeros((3, 2, 48, 64), np.uint8), ShapeError, r"permute\(1, 2, 3, 0\)"),
            (np.zeros((1, 2, 48, 64, 3), np.uint8), ShapeError, "clips one by one"),
            (np.zeros((48, 64, 3), np.uint8), ShapeError, r"found uint8 \[48, 64, 3\]"),
            (np.zeros((0, 48, 64, 3), np.uint8), ShapeError, r"found uint8 \[0, 48, 64, 3\]"),
        ],
    )
    def test_wrong_frames(self, frames: Frames, error: type[Exception], message: str) -> None:
        """Other types, axes or channels are errors that say what to pass."""
        with pytest.raises(error, match=message):
            preprocess(frames, SMALL)

    def test_smaller_than_the_crop(self) -> None:
        """Frames smaller than the crop are an error that names all sizes."""
        spec = SMALL.replace(resize=None)
        with pytest.raises(ShapeError, match="of 64x20 pixels are smaller than the crop of 32"):
            preprocess(noise(1, 20, 64, 3), spec)
        spec = SMALL.replace(resize=20)
        with pytest.raises(ShapeError, match="64x48 pixels, resized to 27x20 are smaller"):
            preprocess(noise(1, 48, 64, 3), spec)


class TestLoadClips:
    def test_equals_reading_everything(self, tmp_path: Path) -> None:
        """Overlapping clips of one pass equal those cut from the whole video."""
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
        """Without clips, nothing is decoded."""
        info = probe(write_video(tmp_path / "a.mov", numbered(5)))
        assert list(load_clips(info, [], SMALL)) == []

    def test_memory_does_not_grow_with_the_video(self, tmp_path: Path) -> None:
        """Clips of a 640x480 video (110 MB) need only a few frames in memory."""
        frames = np.broadcast_to(np.full((480, 640, 3), 90, np.uint8), (120, 480, 640, 3))
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
