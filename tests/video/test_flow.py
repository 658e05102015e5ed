"""Optical flow of known motions, its 8-bit storage, and errors."""

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch

from i3dzoo.checkpoints.metadata import default_input
from i3dzoo.errors import DependencyError, OptionError, ShapeError
from i3dzoo.video import Frames, normalise
from i3dzoo.video.flow import BOUND, FlowMethod, flows, quantise, to_grey
from i3dzoo.video.motions import MOTIONS, render
from i3dzoo.video.tvl1 import tvl1


def translated(
    right: int, down: int, count: int, height: int = 48, width: int = 64
) -> list[Frames]:
    """Cut grey frames from one random texture that moves by whole pixels a frame."""
    margin = count * max(abs(right), abs(down))
    size = height + 2 * margin, width + 2 * margin
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size[1]), np.fft.fftfreq(size[0])))
    noise = np.random.default_rng(11).standard_normal(size)
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-50 * frequency**2)).real
    grey = np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return [grey[margin - i * down :, margin - i * right :][:height, :width] for i in range(count)]


def compute(frames: list[Frames], method: FlowMethod) -> list[npt.NDArray[np.float32]]:
    """Compute flow; skip the test if OpenCV is not installed."""
    if method != "torch":
        pytest.importorskip("cv2")
    return list(flows(frames, method))


class TestKnownMotion:
    @pytest.mark.parametrize("method", ["tvl1", "farneback", "torch"])
    @pytest.mark.parametrize(("right", "down"), [(3, -2), (-1, 0), (0, 4)])
    def test_translation(self, method: FlowMethod, right: int, down: int) -> None:
        """The median flow of a pattern moved by (3, -2) is (3, -2): x right, y down."""
        fields = compute(translated(right, down, 3), method)
        assert len(fields) == 2
        for field in fields:
            assert field.shape == (48, 64, 2)
            assert field.dtype == np.float32
            np.testing.assert_allclose(np.median(field, axis=(0, 1)), (right, down), atol=0.1)
            inside = field[8:-8, 8:-8]
            assert np.abs(inside - (right, down)).mean() < 0.2

    def test_stored_flow_keeps_the_motion(self) -> None:
        """After 8-bit storage and normalisation, (3, -2) is 3/20 and -2/20 to within one level."""
        field = compute(translated(3, -2, 2), "torch")[0]
        stored = torch.from_numpy(quantise(field)).permute(2, 0, 1)[None, :, None]
        scaled = normalise(stored, default_input("flow"))
        assert float(scaled[:, 0].median()) == pytest.approx(3 / BOUND, abs=1 / 127)
        assert float(scaled[:, 1].median()) == pytest.approx(-2 / BOUND, abs=1 / 127)

    def test_generated_classes_move_as_they_are_called(self) -> None:
        """Moving right is flow of 0.05 heights to within 20 %, and turning is down at right."""
        fields = []
        for name in ("right fast", "turning clockwise fast"):
            motion = next(motion for motion in MOTIONS if motion.name == name)
            clip, _ = render(motion, (5,), 2, 60, 80)
            fields += compute([to_grey(frame) for frame in clip], "torch")
        moving, turning = fields
        across, down = np.median(moving, axis=(0, 1))
        assert 0.05 * 60 * 0.8 < across < 0.05 * 60 * 1.2
        assert abs(down) < 0.2
        assert np.median(turning[20:40, 65:75, 1]) > 1
        assert np.median(turning[20:40, 5:15, 1]) < -1

    def test_many_pairs_at_once(self) -> None:
        """A batch gives the same flow as its pairs one by one."""
        frames = np.stack(translated(1, 1, 19, 16, 20))
        together = tvl1(frames[:-1], frames[1:])
        alone = np.concatenate([tvl1(frames[i : i + 1], frames[i + 1 : i + 2]) for i in (0, 17)])
        np.testing.assert_allclose(together[[0, 17]], alone, atol=1e-3)
        assert len(list(flows(list(frames), "torch"))) == 18

    @pytest.mark.gpu
    def test_gpu_agrees(self) -> None:
        """A GPU computes the same flow."""
        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")
        frames = np.stack(translated(3, -2, 4))
        difference = tvl1(frames[:-1], frames[1:], "cuda") - tvl1(frames[:-1], frames[1:])
        assert np.abs(difference).mean() < 0.01


def dequantise(stored: Frames) -> npt.NDArray[np.float64]:
    """Undo `quantise`."""
    return stored * (2 * BOUND / 255) - BOUND


class TestEightBits:
    def test_buckets(self) -> None:
        """-20 and less becomes 0, 20 and more becomes 255, and one step is 40/255 pixels."""
        values = np.array([-25.0, -20.0, -20.0 + 40 / 255, 0.1, 20.0, 99.0])
        assert quantise(values).tolist() == [0, 0, 1, 128, 255, 255]

    def test_round_trip(self) -> None:
        """Levels survive the round trip; values between them change by at most half a step."""
        levels = np.arange(256, dtype=np.uint8)
        np.testing.assert_array_equal(quantise(dequantise(levels)), levels)
        values = np.linspace(-20, 20, 1001)
        assert np.abs(dequantise(quantise(values)) - values).max() <= 20 / 255 + 1e-5

    def test_grey_is_opencvs(self) -> None:
        """All grey values equal those of OpenCV."""
        cv2 = pytest.importorskip("cv2")
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        np.testing.assert_array_equal(to_grey(image), cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


class TestErrors:
    @pytest.mark.parametrize(
        ("second", "message"),
        [
            ((24, 30), r"expected .* uint8 \[24, 32\], found uint8 \[24, 30\]"),
            ((24, 32, 3), r"expected .* uint8 \[H, W\], found uint8 \[24, 32, 3\]"),
        ],
    )
    def test_wrong_frames(self, second: tuple[int, ...], message: str) -> None:
        """Frames of two sizes, and colour frames, are refused with what was found."""
        first = (24, 32) if len(second) == 2 else second
        with pytest.raises(ShapeError, match=message):
            list(flows([np.zeros(first, np.uint8), np.zeros(second, np.uint8)], "torch"))

    def test_no_opencv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without OpenCV the message names the extra and the method that works without it."""
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pytest.raises(DependencyError, match=r"the extra flow: .*\[flow\]'; --flow torch"):
            list(flows([], "tvl1"))

    @pytest.mark.parametrize("device", ["cuda:99", "gpu"])
    def test_no_such_device(self, device: str) -> None:
        """A device that PyTorch cannot use is an error before any frame is read."""
        with pytest.raises(OptionError, match=rf"'{device}'"):
            list(flows([], "torch", device))

    def test_opencv_is_not_imported_for_reading(self) -> None:
        """Decoding and datasets do not import OpenCV."""
        code = (
            "import sys; import i3dzoo.video, i3dzoo.video.prepare; assert 'cv2' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
