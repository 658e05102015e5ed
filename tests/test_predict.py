"""Predictions: what is averaged, what a timeline says when, and the genuine weights."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from i3dzoo.errors import (
    FormatError,
    I3DZooError,
    MetadataError,
    MissingFileError,
    OutputError,
    ShapeError,
    VideoError,
)
from i3dzoo.loading import load
from i3dzoo.metadata import Input, Metadata, Source
from i3dzoo.model import InceptionI3d
from i3dzoo.plot import plot_timeline
from i3dzoo.predict import Failure, Prediction, predict_video, predict_videos, softmax
from i3dzoo.video import preprocess, read

from .video_files import numbered, write_video

SMALL = Input(resize=40, crop=32, frames=16)


def describe(model: InceptionI3d, labels: tuple[str, ...] | None) -> InceptionI3d:
    """Attach metadata with small clips to a network."""
    model.metadata = Metadata("rgb", model.num_classes, labels, SMALL, Source("canonical", "0"))
    return model.eval()


@pytest.fixture(scope="module")
def network() -> InceptionI3d:
    """The real network with random weights, its head scaled so that clips differ."""
    torch.manual_seed(0)
    model = InceptionI3d(num_classes=6)
    head = model.get_submodule("Logits.Conv3d_0c_1x1.conv")
    with torch.no_grad():
        head.weight.mul_(100)  # type: ignore[operator] # a parameter
    return describe(model, None)


class Brightness(InceptionI3d):
    """A network whose answer is known: `dark` below half brightness, else `bright`."""

    def step_logits(self, x: torch.Tensor) -> torch.Tensor:
        """Judge the 16 frames of each step by their mean."""
        level = x.mean((1, 3, 4))
        starts = range(0, 8 * (-(-x.shape[2] // 8) - 1), 8)
        means = torch.stack([level[:, i : i + 16].mean(1) for i in starts], 1)
        return torch.stack([-5 * means, 5 * means], 2)


@pytest.fixture(scope="module")
def brightness() -> InceptionI3d:
    """The network whose answer is known."""
    return describe(Brightness(num_classes=2), ("dark", "bright"))


@pytest.fixture
def dusk(tmp_path: Path) -> Path:
    """Four seconds of white, then four of black, at 25 fps."""
    frames = np.zeros((200, 48, 64, 3), np.uint8)
    frames[:100] = 255
    return write_video(tmp_path / "dusk.mov", frames)


class TestClips:
    def test_centre_clip(self, network: InceptionI3d, tmp_path: Path) -> None:
        """One clip is the middle of the video, and `forward` on it gives the same logits."""
        path = write_video(tmp_path / "a.mov", numbered(60))
        found = predict_video(network, path)
        with torch.inference_mode():
            expected = network(preprocess(read(path).frames[22:38], SMALL)[None])[0]
        np.testing.assert_allclose(found.logits, expected, rtol=1e-4)
        assert found.clips == ((pytest.approx(22 / 25), pytest.approx(38 / 25)),)
        assert found.notes == (
            "60 frames at 25 fps (2.4 s), taken as they are",
            "the centre clip of 16 frames, 0.9 to 1.5 s",
        )
        assert found.path == path

    def test_logits_of_clips_are_averaged(self, network: InceptionI3d, tmp_path: Path) -> None:
        """Three clips give the mean of their logits, not of their probabilities."""
        path = write_video(tmp_path / "a.mov", numbered(60))
        found = predict_video(network, path, clips=3)
        frames = read(path).frames
        each = torch.stack([preprocess(frames[i : i + 16], SMALL) for i in (0, 22, 44)])
        with torch.inference_mode():
            expected = network(each).mean(0)
        np.testing.assert_allclose(found.logits, expected, rtol=1e-4)
        assert found.notes[-1] == "3 clips of 16 frames spread over the video, logits averaged"

    def test_top(self, network: InceptionI3d, tmp_path: Path) -> None:
        """The best classes come first, probabilities are over all, unnamed classes are numbered."""
        found = predict_video(network, write_video(tmp_path / "a.mov", numbered(20)), top_k=4)
        assert len(found.top) == 4
        assert [s.index for s in found.top] == np.argsort(-found.logits)[:4].tolist()
        assert found.top[0].label == f"class {found.top[0].index}"
        probabilities = softmax(found.logits)
        assert probabilities.sum() == pytest.approx(1)
        for score in found.top:
            assert score.probability == pytest.approx(probabilities[score.index])
            assert score.logit == pytest.approx(found.logits[score.index])

    def test_more_than_all_classes(self, network: InceptionI3d, tmp_path: Path) -> None:
        """Asking for more classes than there are gives all of them."""
        path = write_video(tmp_path / "a.mov", numbered(20))
        assert len(predict_video(network, path, top_k=99).top) == 6

    def test_whole_video(self, network: InceptionI3d, tmp_path: Path) -> None:
        """`whole` makes one clip of all frames."""
        path = write_video(tmp_path / "a.mov", numbered(37))
        found = predict_video(network, path, clips="whole")
        with torch.inference_mode():
            expected = network(preprocess(read(path).frames, SMALL)[None])[0]
        np.testing.assert_allclose(found.logits, expected, rtol=1e-4)
        assert found.notes[-1] == "one clip of all 37 frames"

    def test_whole_video_that_is_too_long(self, network: InceptionI3d, tmp_path: Path) -> None:
        """A video that would not fit at once is refused with what to do instead."""
        np.save(tmp_path / "a.npy", np.zeros((1025, 8, 8, 3), np.uint8))
        with pytest.raises(VideoError, match=r"1024 at most .* use several clips or the timeline"):
            predict_video(network, tmp_path / "a.npy", clips="whole")

    def test_short_video_is_looped_and_says_so(self, network: InceptionI3d, tmp_path: Path) -> None:
        """Five frames fill a clip of 16 by being played 3.2 times."""
        found = predict_video(network, write_video(tmp_path / "a.mov", numbered(5)))
        assert found.notes[-1] == "5 frames looped 3.2x to fill a clip of 16"

    def test_frame_rates(self, network: InceptionI3d, tmp_path: Path) -> None:
        """The model's rate is the default; native and any other can be asked for."""
        path = write_video(tmp_path / "a.mov", numbered(60), fps=30)
        notes = [
            predict_video(network, path, fps=fps).notes[0]  # type: ignore[arg-type] # of a tuple
            for fps in ("model", "native", 10)
        ]
        assert notes == [
            "60 frames at 30 fps (2.0 s), resampled to 50 at 25 fps",
            "60 frames at 30 fps (2.0 s), taken as they are",
            "60 frames at 30 fps (2.0 s), resampled to 20 at 10 fps",
        ]

    def test_progress(self, network: InceptionI3d, tmp_path: Path) -> None:
        """Each run of the network is told."""
        told: list[tuple[int, int]] = []
        path = write_video(tmp_path / "a.mov", numbered(60))
        predict_video(network, path, clips=3, progress=lambda *now: told.append(now))
        assert told == [(1, 3), (2, 3), (3, 3)]


class TestTimeline:
    def test_what_happens_when(self, brightness: InceptionI3d, dusk: Path) -> None:
        """White turns to black after four seconds, and so does the answer."""
        found = predict_video(brightness, dusk, timeline=True)
        assert found.timeline is not None
        bright, dark = found.timeline.segments()
        assert (bright.label, dark.label) == ("bright", "dark")
        assert (bright.start, dark.end) == (0, pytest.approx(8))
        assert bright.end == dark.start == pytest.approx(4, abs=0.33)
        assert bright.probability > 0.9
        assert found.logits == pytest.approx([0, 0], abs=0.5)

    def test_steps_cover_the_video_without_gaps(
        self, network: InceptionI3d, tmp_path: Path
    ) -> None:
        """Steps of 8 frames follow one another to the end; every row sums to one."""
        path = write_video(tmp_path / "a.mov", numbered(83))
        line = predict_video(network, path, timeline=True).timeline
        assert line is not None
        assert line.unit == "s"
        assert line.starts[0] == 0
        assert line.ends[-1] == pytest.approx(83 / 25)
        np.testing.assert_array_equal(line.starts[1:], line.ends[:-1])
        np.testing.assert_allclose(np.diff(line.starts[1:-1]), 8 / 25)
        np.testing.assert_allclose(line.probabilities.sum(1), 1)
        assert line.probabilities.shape == (len(line.starts), 6)

    @pytest.mark.parametrize(("frames", "steps"), [(5, 1), (9, 1), (15, 1), (17, 2)])
    def test_short_videos(
        self, network: InceptionI3d, tmp_path: Path, frames: int, steps: int
    ) -> None:
        """Videos shorter than a clip, and than the network's least, have a timeline too."""
        spec = dataclasses.replace(SMALL, frames=64)
        path = write_video(tmp_path / "a.mov", numbered(frames))
        line = predict_video(network, path, timeline=True, spec=spec).timeline
        assert line is not None
        assert len(line.starts) == steps
        assert line.ends[-1] == pytest.approx(frames / 25)

    def test_frames_without_a_rate(self, brightness: InceptionI3d, tmp_path: Path) -> None:
        """Where there are no seconds, frames are counted."""
        np.save(tmp_path / "a.npy", np.zeros((40, 48, 64, 3), np.uint8))
        found = predict_video(brightness, tmp_path / "a.npy", timeline=True)
        assert found.timeline is not None
        assert (found.timeline.unit, found.timeline.ends[-1]) == ("frame", 40)
        assert found.clips[0] == (None, None)

    def test_strongest(self, brightness: InceptionI3d, dusk: Path) -> None:
        """Classes are ranked by their mean probability over time."""
        line = predict_video(brightness, dusk, timeline=True).timeline
        assert line is not None
        means = np.average(line.probabilities, axis=0, weights=line.ends - line.starts)
        assert line.strongest(2) == np.argsort(-means).tolist()
        assert line.strongest(1) == line.strongest(2)[:1]


class TestErrors:
    def test_one_bad_video_does_not_lose_the_others(
        self, network: InceptionI3d, tmp_path: Path
    ) -> None:
        """Good, missing and broken videos are told apart, in order."""
        good = write_video(tmp_path / "a.mov", numbered(20))
        (tmp_path / "b.mp4").write_bytes(b"no video" * 100)
        paths = [good, tmp_path / "gone.mp4", tmp_path / "b.mp4", good]
        found = list(predict_videos(network, paths))
        assert [type(each) for each in found] == [Prediction, Failure, Failure, Prediction]
        assert isinstance(found[1], Failure)
        assert isinstance(found[1].error, MissingFileError)
        assert isinstance(found[2], Failure)
        assert isinstance(found[2].error, VideoError)
        assert found[2].path == tmp_path / "b.mp4"

    def test_model_without_metadata(self, tmp_path: Path) -> None:
        """A network that was not loaded does not guess its input."""
        model = InceptionI3d(num_classes=2)
        with pytest.raises(MetadataError, match=r"i3dzoo\.load gives one that has"):
            predict_video(model, tmp_path / "a.mov")

    def test_model_without_head(self, tmp_path: Path) -> None:
        """A network without a head names no action."""
        with pytest.raises(MetadataError, match="the model has no head"):
            predict_video(describe(InceptionI3d(num_classes=0), ()), tmp_path / "a.mov")

    def test_broken_weights(self, tmp_path: Path) -> None:
        """Logits that are not finite are an error, not a table of NaN."""
        model = describe(InceptionI3d(num_classes=2), None)
        torch.nn.init.constant_(next(model.parameters()), float("nan"))
        path = write_video(tmp_path / "a.mov", numbered(20))
        with pytest.raises(FormatError, match="logits are not finite: its weights are broken"):
            predict_video(model, path)

    def test_flow_model_given_rgb(self, tmp_path: Path) -> None:
        """A flow network says that it needs flow, and in which form."""
        model = InceptionI3d(num_classes=2, in_channels=2)
        spec = Input("xy", (0.5, 0.5), (0.5, 0.5), resize=40, crop=32, frames=16)
        model.metadata = Metadata("flow", 2, None, spec, Source("canonical", "0"))
        path = write_video(tmp_path / "a.mov", numbered(20))
        with pytest.raises(VideoError, match=r"takes optical flow: give a \.npy array uint8"):
            predict_video(model.eval(), path)
        np.save(tmp_path / "flow.npy", np.full((20, 48, 64, 2), 128, np.uint8))
        assert len(predict_video(model, tmp_path / "flow.npy").top) == 2

    def test_frames_smaller_than_the_crop(self, network: InceptionI3d, tmp_path: Path) -> None:
        """Frames that are not enlarged and too small are refused."""
        path = write_video(tmp_path / "a.mov", numbered(20, 16, 64))
        spec = dataclasses.replace(SMALL, resize=None)
        with pytest.raises(ShapeError, match="of 64x16 pixels are smaller than the crop"):
            predict_video(network, path, spec=spec)


class TestPlot:
    @pytest.mark.parametrize(
        ("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
    )
    def test_picture(
        self, brightness: InceptionI3d, dusk: Path, tmp_path: Path, suffix: str, magic: bytes
    ) -> None:
        """A timeline is drawn in each format; an existing file is replaced only if forced."""
        pytest.importorskip("matplotlib")
        found = predict_video(brightness, dusk, timeline=True)
        path = plot_timeline(found, tmp_path / f"line{suffix}")
        assert path.read_bytes().startswith(magic)
        with pytest.raises(OutputError, match="exists already"):
            plot_timeline(found, path)
        plot_timeline(found, path, force=True)

    def test_hostile_names(self, tmp_path: Path) -> None:
        """Dollar signs, letters no font has and very long labels are drawn, not parsed."""
        pytest.importorskip("matplotlib")
        model = describe(Brightness(num_classes=2), ("$\\frac{", "騎馬 " + "very long " * 30))
        path = write_video(tmp_path / "$x_{$.mov", numbered(40))
        found = predict_video(model, path, timeline=True)
        assert plot_timeline(found, tmp_path / "a.png").stat().st_size > 10_000

    def test_flow_and_no_rate(self, tmp_path: Path) -> None:
        """Flow frames are shown as colour, and the axis counts frames."""
        pytest.importorskip("matplotlib")
        model = Brightness(num_classes=2, in_channels=2)
        spec = Input("xy", (0.5, 0.5), (0.5, 0.5), resize=40, crop=32, frames=16)
        model.metadata = Metadata("flow", 2, None, spec, Source("canonical", "0"))
        np.save(tmp_path / "flow.npy", np.full((30, 48, 64, 2), 128, np.uint8))
        found = predict_video(model.eval(), tmp_path / "flow.npy", timeline=True)
        assert plot_timeline(found, tmp_path / "a.png").exists()

    def test_unknown_format(self, brightness: InceptionI3d, dusk: Path, tmp_path: Path) -> None:
        """A suffix that is no picture's is refused with those that are."""
        found = predict_video(brightness, dusk)
        with pytest.raises(OutputError, match=r"plots are written as \.png, \.pdf, \.svg"):
            plot_timeline(found, tmp_path / "a.doc")
        pytest.importorskip("matplotlib")
        with pytest.raises(I3DZooError, match="was predicted without timeline=True"):
            plot_timeline(found, tmp_path / "a.png")


@pytest.mark.real_data
class TestGenuineWeights:
    def test_published_answer(self, test_data: Path, rgb_scratch: Path) -> None:
        """All 79 frames of DeepMind's sample, unresized: p = 0.9886, norm of the logits 83.2416."""
        model = load(rgb_scratch)
        assert model.metadata is not None
        spec = dataclasses.replace(model.metadata.input, resize=None)
        clip = test_data / "clips" / "v_CricketShot_g04_c01_rgb.gif"
        found = predict_video(model, clip, clips="whole", spec=spec)
        assert found.top[0].label == "playing cricket"
        assert found.top[0].probability == pytest.approx(0.9886, abs=1e-4)
        assert np.linalg.norm(found.logits) == pytest.approx(83.2416, abs=1e-3)
