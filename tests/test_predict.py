"""Predictions: averages, timelines, errors, and the genuine weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.progress import RecordedProgress
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.metadata import Input, Metadata, Source
from i3dzoo.errors import (
    FormatError,
    I3DZooError,
    MetadataError,
    OutputError,
    ShapeError,
    VideoError,
)
from i3dzoo.network.architecture import Variant
from i3dzoo.predict import Prediction, predict_video, predict_videos, softmax
from i3dzoo.pretrained import InceptionI3d
from i3dzoo.report.plots import plot_timeline
from i3dzoo.video import BadVideo, preprocess, read

GLOBAL = Variant(pooling="global")
SMALL = Input(resize=40, crop=32, frames=16)


FLOW = Input("xy", (0.5, 0.5), (0.5, 0.5), resize=40, crop=32, frames=16)

Video = Callable[..., Path]


@pytest.fixture
def video(tmp_path: Path) -> Video:
    """Writes a video of so many frames."""
    return lambda frames, **options: write_video(tmp_path / "a.mov", numbered(frames), **options)


def flow(model: InceptionI3d, tmp_path: Path) -> tuple[InceptionI3d, Path]:
    """Make a network of two channels a flow network; return it and a flow video."""
    model.metadata = Metadata("flow", 2, None, FLOW, Source("canonical", "0"))
    np.save(tmp_path / "flow.npy", np.full((30, 48, 64, 2), 128, np.uint8))
    return model.eval(), tmp_path / "flow.npy"


def describe(model: InceptionI3d, labels: tuple[str, ...] | None) -> InceptionI3d:
    """Attach metadata with small clips to a network, and return it in eval mode."""
    model.metadata = Metadata("rgb", model.num_classes, labels, SMALL, Source("canonical", "0"))
    return model.eval()


@pytest.fixture(scope="module")
def network() -> InceptionI3d:
    """A network with random weights, and a head that is scaled so that clips differ."""
    torch.manual_seed(0)
    model = InceptionI3d(num_classes=6)
    head = model.get_submodule("Logits.Conv3d_0c_1x1.conv")
    with torch.no_grad():
        head.weight.mul_(100)  # type: ignore[operator] # a parameter
    return describe(model, None)


class Brightness(InceptionI3d):
    """A network with a known answer: `dark` below half brightness, else `bright`."""

    def step_logits(self, x: torch.Tensor) -> torch.Tensor:
        """Judge the 16 frames of each step by their mean."""
        level = x.mean((1, 3, 4))
        starts = range(0, 8 * (-(-x.shape[2] // 8) - 1), 8)
        means = torch.stack([level[:, i : i + 16].mean(1) for i in starts], 1)
        return torch.stack([-5 * means, 5 * means], 2)


@pytest.fixture(scope="module")
def brightness() -> InceptionI3d:
    """The network with a known answer."""
    return describe(Brightness(num_classes=2), ("dark", "bright"))


@pytest.fixture
def dusk(tmp_path: Path) -> Path:
    """Four seconds of white, then four of black, at 25 fps."""
    frames = np.zeros((200, 48, 64, 3), np.uint8)
    frames[:100] = 255
    return write_video(tmp_path / "dusk.mov", frames)


class TestClips:
    def test_centre_clip(self, network: InceptionI3d, video: Video) -> None:
        """One clip is the middle of the video, and `forward` on it gives the same logits."""
        path = video(60)
        prediction = predict_video(network, path)
        with torch.inference_mode():
            expected = network(preprocess(read(path).frames[22:38], SMALL)[None])[0]
        np.testing.assert_allclose(prediction.logits, expected, rtol=1e-4)
        assert prediction.clips == ((pytest.approx(22 / 25), pytest.approx(38 / 25)),)
        assert prediction.notes == (
            "60 frames at 25 fps (2.4 s), taken as they are",
            "the centre clip of 16 frames, 0.9 to 1.5 s",
        )
        assert prediction.path == path

    def test_logits_of_clips_are_averaged(self, network: InceptionI3d, video: Video) -> None:
        """Three clips give the mean of their logits, not of their probabilities."""
        path = video(60)
        prediction = predict_video(network, path, clips=3)
        frames = read(path).frames
        clips = torch.stack([preprocess(frames[i : i + 16], SMALL) for i in (0, 22, 44)])
        with torch.inference_mode():
            expected = network(clips).mean(0)
        np.testing.assert_allclose(prediction.logits, expected, rtol=1e-4)
        assert prediction.notes[-1] == "3 clips of 16 frames spread over the video, logits averaged"

    def test_top(self, network: InceptionI3d, video: Video) -> None:
        """The best classes come first, probabilities are over all, unnamed classes are numbered."""
        path = video(20)
        assert len(predict_video(network, path, top_k=99).top) == 6
        prediction = predict_video(network, path, top_k=4)
        assert len(prediction.top) == 4
        assert [s.index for s in prediction.top] == np.argsort(-prediction.logits)[:4].tolist()
        assert prediction.top[0].label == f"class {prediction.top[0].index}"
        probabilities = softmax(prediction.logits)
        assert probabilities.sum() == pytest.approx(1)
        for score in prediction.top:
            assert score.probability == pytest.approx(probabilities[score.index])
            assert score.logit == pytest.approx(prediction.logits[score.index])

    def test_whole_video(self, network: InceptionI3d, video: Video) -> None:
        """`whole` makes one clip of all frames."""
        path = video(37)
        prediction = predict_video(network, path, clips="whole")
        with torch.inference_mode():
            expected = network(preprocess(read(path).frames, SMALL)[None])[0]
        np.testing.assert_allclose(prediction.logits, expected, rtol=1e-4)
        assert prediction.notes[-1] == "one clip of all 37 frames"

    def test_whole_video_that_is_too_long(self, network: InceptionI3d, tmp_path: Path) -> None:
        """A video that is too long for one clip is refused, with a remedy."""
        np.save(tmp_path / "a.npy", np.zeros((1025, 8, 8, 3), np.uint8))
        with pytest.raises(VideoError, match="at most 1024: use several clips or the timeline"):
            predict_video(network, tmp_path / "a.npy", clips="whole")

    def test_short_video_is_looped(self, network: InceptionI3d, video: Video) -> None:
        """Five frames are played 3.2 times to fill a clip of 16."""
        prediction = predict_video(network, video(5))
        assert prediction.notes[-1] == "5 frames looped 3.2x to fill a clip of 16"

    def test_frame_rates(self, network: InceptionI3d, video: Video) -> None:
        """The model's rate is the default; the native rate and any other can be chosen."""
        path, rates = video(60, fps=30), cast("list[Any]", ["model", "native", 10])
        notes = [predict_video(network, path, fps=rate).notes[0] for rate in rates]
        assert notes == [
            "60 frames at 30 fps (2.0 s), resampled to 50 at 25 fps",
            "60 frames at 30 fps (2.0 s), taken as they are",
            "60 frames at 30 fps (2.0 s), resampled to 20 at 10 fps",
        ]

    def test_progress(self, network: InceptionI3d, video: Video) -> None:
        """The clips of one video are shown, or else the videos."""
        path = video(60)
        shown = RecordedProgress()
        predict_video(network, path, clips=3, progress=shown)
        assert shown.events == [("clips of a.mov", 3), 1, 2, 3]
        shown = RecordedProgress()
        list(predict_videos(network, [path, path], clips=3, progress=shown))
        assert shown.events == [("videos", 2), 1, 2]


class TestTimeline:
    def test_what_happens_when(self, brightness: InceptionI3d, dusk: Path) -> None:
        """The class changes when white turns to black; classes are ranked by their mean."""
        prediction = predict_video(brightness, dusk, timeline=True)
        assert prediction.timeline is not None
        bright, dark = prediction.timeline.segments()
        assert (bright.label, dark.label) == ("bright", "dark")
        assert (bright.start, dark.end) == (0, pytest.approx(8))
        assert bright.end == dark.start == pytest.approx(4, abs=0.33)
        assert bright.probability > 0.9
        assert prediction.logits == pytest.approx([0, 0], abs=0.5)
        line = prediction.timeline
        means = np.average(line.probabilities, axis=0, weights=line.ends - line.starts)
        assert line.strongest(2) == np.argsort(-means).tolist()
        assert line.strongest(1) == line.strongest(2)[:1]

    def test_steps_cover_the_video_without_gaps(self, network: InceptionI3d, video: Video) -> None:
        """Steps of 8 frames follow one another to the end; every row sums to one."""
        line = predict_video(network, video(83), timeline=True).timeline
        assert line is not None
        assert line.unit == "s"
        assert line.starts[0] == 0
        assert line.ends[-1] == pytest.approx(83 / 25)
        np.testing.assert_array_equal(line.starts[1:], line.ends[:-1])
        np.testing.assert_allclose(np.diff(line.starts[1:-1]), 8 / 25)
        np.testing.assert_allclose(line.probabilities.sum(1), 1)
        assert line.probabilities.shape == (len(line.starts), 6)

    def test_steps_of_global_pooling(self, video: Video) -> None:
        """A step of a network with global pooling is of its own 8 frames."""
        model = describe(InceptionI3d(num_classes=2, variant=GLOBAL), None)
        assert model.metadata is not None
        model.metadata = model.metadata.replace(variant=GLOBAL)
        line = predict_video(model, video(80), timeline=True).timeline
        assert line is not None
        np.testing.assert_allclose(line.starts, np.arange(10) * 8 / 25)
        assert line.ends[-1] == pytest.approx(80 / 25)

    @pytest.mark.parametrize(("frames", "steps"), [(5, 1), (9, 1), (15, 1), (17, 2)])
    def test_short_videos(
        self, network: InceptionI3d, video: Video, frames: int, steps: int
    ) -> None:
        """Videos shorter than a clip, and shorter than the network's minimum, have a timeline."""
        spec = SMALL.replace(frames=64)
        line = predict_video(network, video(frames), timeline=True, spec=spec).timeline
        assert line is not None
        assert len(line.starts) == steps
        assert line.ends[-1] == pytest.approx(frames / 25)

    def test_frames_without_a_rate(self, brightness: InceptionI3d, tmp_path: Path) -> None:
        """Without a frame rate, the unit is frames."""
        np.save(tmp_path / "a.npy", np.zeros((40, 48, 64, 3), np.uint8))
        prediction = predict_video(brightness, tmp_path / "a.npy", timeline=True)
        assert prediction.timeline is not None
        assert (prediction.timeline.unit, prediction.timeline.ends[-1]) == ("frame", 40)
        assert prediction.clips[0] == (None, None)


class TestErrors:
    def test_one_bad_video_does_not_lose_the_others(
        self, network: InceptionI3d, video: Video, tmp_path: Path
    ) -> None:
        """Every video has a result in order: a prediction, or the reason why there is none."""
        good = video(20)
        (tmp_path / "b.mp4").write_bytes(b"no video" * 100)
        paths = [good, tmp_path / "gone.mp4", tmp_path / "b.mp4", good]
        results = list(predict_videos(network, paths))
        assert [type(result) for result in results] == [Prediction, BadVideo, BadVideo, Prediction]
        for path, result in zip(paths[1:3], results[1:3], strict=True):
            assert isinstance(result, BadVideo)
            assert result.file == str(path)
            assert str(path) in result.reason

    def test_model_without_metadata(self, tmp_path: Path) -> None:
        """The input of a network without metadata is unknown."""
        model = InceptionI3d(num_classes=2)
        with pytest.raises(MetadataError, match=r"i3dzoo\.load gives one that has"):
            predict_video(model, tmp_path / "a.mov")

    def test_model_without_head(self, tmp_path: Path) -> None:
        """A network without a head cannot predict."""
        with pytest.raises(MetadataError, match="the model has no head"):
            predict_video(describe(InceptionI3d(num_classes=0), ()), tmp_path / "a.mov")

    def test_broken_weights(self, video: Video) -> None:
        """Logits that are not finite are an error."""
        model = describe(InceptionI3d(num_classes=2), None)
        torch.nn.init.constant_(next(model.parameters()), float("nan"))
        with pytest.raises(FormatError, match="logits are not finite"):
            predict_video(model, video(20))

    def test_flow_model_given_rgb(self, video: Video, tmp_path: Path) -> None:
        """A flow network refuses RGB videos, and the message names the formats of flow."""
        model, path = flow(InceptionI3d(num_classes=2, in_channels=2), tmp_path)
        with pytest.raises(
            VideoError, match=r"takes optical flow; expected a \.npy or \.npz array"
        ):
            predict_video(model, video(20))
        assert len(predict_video(model, path).top) == 2

    def test_frames_smaller_than_the_crop(self, network: InceptionI3d, tmp_path: Path) -> None:
        """Frames smaller than the crop are refused if they are not resized."""
        path = write_video(tmp_path / "a.mov", numbered(20, 16, 64))
        spec = SMALL.replace(resize=None)
        with pytest.raises(ShapeError, match="64x16 pixels"):
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
        prediction = predict_video(brightness, dusk, timeline=True)
        path = plot_timeline(prediction, tmp_path / f"line{suffix}")
        assert path.read_bytes().startswith(magic)
        with pytest.raises(OutputError, match="exists already"):
            plot_timeline(prediction, path)
        plot_timeline(prediction, path, force=True)

    def test_hostile_names(self, tmp_path: Path) -> None:
        """Dollar signs, letters that the font lacks and very long labels are drawn as text."""
        pytest.importorskip("matplotlib")
        model = describe(Brightness(num_classes=2), ("$\\frac{", "騎馬 " + "very long " * 30))
        path = write_video(tmp_path / "$x_{$.mov", numbered(40))
        prediction = predict_video(model, path, timeline=True)
        assert plot_timeline(prediction, tmp_path / "a.png").stat().st_size > 10_000

    def test_flow_and_no_rate(self, tmp_path: Path) -> None:
        """Flow frames are shown as colour, and the axis counts frames."""
        pytest.importorskip("matplotlib")
        model, path = flow(Brightness(num_classes=2, in_channels=2), tmp_path)
        prediction = predict_video(model, path, timeline=True)
        assert plot_timeline(prediction, tmp_path / "a.png").exists()

    def test_unknown_format(self, brightness: InceptionI3d, dusk: Path, tmp_path: Path) -> None:
        """An unknown suffix is refused, and the message lists the known ones."""
        prediction = predict_video(brightness, dusk)
        with pytest.raises(OutputError, match=r"\.png, \.pdf, \.svg"):
            plot_timeline(prediction, tmp_path / "a.doc")
        pytest.importorskip("matplotlib")
        with pytest.raises(I3DZooError, match="was predicted without timeline=True"):
            plot_timeline(prediction, tmp_path / "a.png")


@pytest.mark.parametrize("multi_label", [True, False])
def test_sigmoid_scores(network: InceptionI3d, tmp_path: Path, multi_label: bool) -> None:
    """Multi-label classes, and a single one, have scores of their own, and a note says so."""
    model = network
    if not multi_label:
        torch.manual_seed(0)
        model = describe(InceptionI3d(num_classes=1), None)
    assert model.metadata is not None
    metadata = model.metadata
    model.metadata = metadata.replace(multi_label=multi_label)
    np.save(tmp_path / "a.npy", np.full((40, 48, 64, 3), 200, np.uint8))
    prediction = predict_video(model, tmp_path / "a.npy", timeline=True)
    model.metadata = metadata
    assert prediction.scores == "sigmoid"
    assert "sigmoid" in prediction.notes[-1]
    expected = torch.sigmoid(torch.from_numpy(prediction.logits)).numpy()
    for score in prediction.top:
        assert score.probability == pytest.approx(expected[score.index])
    assert prediction.top[0].probability < 1
    assert prediction.timeline is not None
    assert prediction.timeline.probabilities.max() < 1
    sums = prediction.timeline.probabilities.sum(axis=1)
    assert abs(sums - 1).max() > 1e-3
