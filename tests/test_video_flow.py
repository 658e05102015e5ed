"""Optical flow: known motion, 8 bits, and what is missing."""

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch

from i3dzoo.errors import DependencyError, DeviceError, ShapeError
from i3dzoo.metadata import default_input
from i3dzoo.video import Frames, normalise
from i3dzoo.video.flow import BOUND, Engine, dequantise, flows, quantise, to_grey
from i3dzoo.video.motions import MOTIONS, render
from i3dzoo.video.tvl1 import tvl1

ENGINES = [
    pytest.param("tvl1", id="tvl1"),
    pytest.param("farneback", id="farneback"),
    pytest.param("torch", id="torch"),
]


def translated(
    right: int, down: int, count: int, height: int = 48, width: int = 64
) -> list[Frames]:
    """Grey frames cut from one random texture so that it moves by whole pixels a frame."""
    margin = count * max(abs(right), abs(down))
    size = height + 2 * margin, width + 2 * margin
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size[1]), np.fft.fftfreq(size[0])))
    noise = np.random.default_rng(11).standard_normal(size)
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-50 * frequency**2)).real
    grey = np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return [grey[margin - i * down :, margin - i * right :][:height, :width] for i in range(count)]


def compute(frames: list[Frames], engine: Engine) -> list[npt.NDArray[np.float32]]:
    """Compute flow, skipping where OpenCV is not installed."""
    if engine != "torch":
        pytest.importorskip("cv2")
    return list(flows(frames, engine))


class TestKnownMotion:
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize(("right", "down"), [(3, -2), (-1, 0), (0, 4)])
    def test_translation(self, engine: Engine, right: int, down: int) -> None:
        """A pattern moved by (3, -2) pixels a frame has flow of that median: x right, y down."""
        found = compute(translated(right, down, 3), engine)
        assert len(found) == 2
        for field in found:
            assert field.shape == (48, 64, 2)
            assert field.dtype == np.float32
            np.testing.assert_allclose(np.median(field, axis=(0, 1)), (right, down), atol=0.1)
            inside = field[8:-8, 8:-8]
            assert np.abs(inside - (right, down)).mean() < 0.2

    def test_stored_flow_keeps_the_motion(self) -> None:
        """In 8 bits and through a network's scaling, (3, -2) is 3/20 and -2/20 to a level."""
        field = compute(translated(3, -2, 2), "torch")[0]
        stored = torch.from_numpy(quantise(field)).permute(2, 0, 1)[None, :, None]
        scaled = normalise(stored, default_input("flow"))
        assert float(scaled[:, 0].median()) == pytest.approx(3 / BOUND, abs=1 / 127)
        assert float(scaled[:, 1].median()) == pytest.approx(-2 / BOUND, abs=1 / 127)

    def test_generated_classes_move_as_they_are_called(self) -> None:
        """A generated clip that moves right has flow to the right, of 0.05 heights within 15 %."""
        motion = next(motion for motion in MOTIONS if motion.name == "right fast")
        clip, _ = render(motion, (5,), 2, 60, 80)
        field = compute([to_grey(frame) for frame in clip], "torch")[0]
        across, down = np.median(field, axis=(0, 1))
        assert 0.05 * 60 * 0.8 < across < 0.05 * 60 * 1.2
        assert abs(down) < 0.2

    def test_rotation(self) -> None:
        """Around the centre, clockwise flow is down on the right and up on the left."""
        motion = next(motion for motion in MOTIONS if motion.name == "turning clockwise fast")
        clip, _ = render(motion, (5,), 2, 60, 80)
        field = compute([to_grey(frame) for frame in clip], "torch")[0]
        assert np.median(field[20:40, 65:75, 1]) > 1
        assert np.median(field[20:40, 5:15, 1]) < -1

    def test_many_pairs_at_once(self) -> None:
        """A batch gives what its pairs give alone, whatever their number."""
        frames = np.stack(translated(1, 1, 19, 16, 20))
        together = tvl1(frames[:-1], frames[1:])
        alone = np.concatenate([tvl1(frames[i : i + 1], frames[i + 1 : i + 2]) for i in (0, 17)])
        np.testing.assert_allclose(together[[0, 17]], alone, atol=1e-3)
        assert len(list(flows(list(frames), "torch"))) == 18

    @pytest.mark.gpu
    def test_gpu_agrees(self) -> None:
        """On a GPU the same flow comes out."""
        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")
        frames = np.stack(translated(3, -2, 4))
        difference = tvl1(frames[:-1], frames[1:], "cuda") - tvl1(frames[:-1], frames[1:])
        assert np.abs(difference).mean() < 0.01


class TestEightBits:
    def test_buckets(self) -> None:
        """-20 and below is 0, 20 and above is 255; a step is 40/255 pixels."""
        values = np.array([-25.0, -20.0, -20.0 + 40 / 255, 0.1, 20.0, 99.0])
        assert quantise(values).tolist() == [0, 0, 1, 128, 255, 255]

    def test_round_trip(self) -> None:
        """Every bucket comes back, and what is between is off by half a step at most."""
        every = np.arange(256, dtype=np.uint8)
        np.testing.assert_array_equal(quantise(dequantise(every)), every)
        values = np.linspace(-20, 20, 1001)
        assert np.abs(dequantise(quantise(values)) - values).max() <= 20 / 255 + 1e-5

    def test_negation_is_exact(self) -> None:
        """255 - p stands for minus what p stands for."""
        every = np.arange(256, dtype=np.uint8)
        np.testing.assert_allclose(dequantise(255 - every), -dequantise(every), atol=1e-5)

    def test_grey_is_opencvs(self) -> None:
        """Grey values are those of OpenCV, all of them."""
        cv2 = pytest.importorskip("cv2")
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        np.testing.assert_array_equal(to_grey(image), cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


class TestErrors:
    def test_sizes_differ(self) -> None:
        """Frames of two sizes are refused with both."""
        frames = [np.zeros((24, 32), np.uint8), np.zeros((24, 30), np.uint8)]
        with pytest.raises(ShapeError, match=r"is uint8 \[24, 30\]; expected uint8 \[24, 32\]"):
            list(flows(frames, "torch"))

    def test_colour(self) -> None:
        """Flow is of grey frames."""
        with pytest.raises(ShapeError, match=r"\[24, 32, 3\]; expected uint8 \[H, W\]"):
            list(flows([np.zeros((24, 32, 3), np.uint8)] * 2, "torch"))

    def test_no_opencv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without OpenCV the message names the extra and the engine that needs none."""
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pytest.raises(DependencyError, match=r"the extra flow: .*\[flow\]'; --flow torch"):
            list(flows([], "tvl1"))

    def test_no_such_device(self) -> None:
        """A device that PyTorch cannot use is named before any frame is looked at."""
        with pytest.raises(DeviceError, match=r"on 'cuda:99': .*; --device cpu can always be used"):
            list(flows([], "torch", "cuda:99"))
        with pytest.raises(DeviceError, match=r"on 'gpu'"):
            list(flows([], "torch", "gpu"))

    def test_opencv_is_not_imported_for_reading(self) -> None:
        """Decoding and data sets work without OpenCV: nothing of it is imported."""
        code = (
            "import sys; import i3dzoo.video, i3dzoo.video.prepare; assert 'cv2' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
