"""Optical flow of a video as a video, against OpenCV on the same frames."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.video_files import write_video

from i3dzoo.errors import VideoError
from i3dzoo.video import Frames, probe, read, resample
from i3dzoo.video.flow import quantise, to_grey
from i3dzoo.video.flow_video import computed_flow
from i3dzoo.video.plan import Resize


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Nine frames of 48x64 pixels that drift to the right."""
    random = np.random.default_rng(0)
    canvas = cv2.resize(random.integers(0, 256, (8, 20, 3), dtype=np.uint8), (160, 48))
    return np.stack([canvas[:, 40 - 2 * k : 104 - 2 * k] for k in range(9)])


@pytest.fixture(scope="module")
def video(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames in a lossless file of 25 fps."""
    return write_video(tmp_path_factory.mktemp("video") / "x.mov", frames)


def fields(frames: Frames) -> Iterator[Frames]:
    """Farnebäck's flow of each pair, with the values of OpenCV's example."""
    for first, second in zip(frames, frames[1:], strict=False):  # noqa: RUF007 - of arrays
        pair = (to_grey(image) for image in (first, second))
        yield quantise(cv2.calcOpticalFlowFarneback(*pair, None, 0.5, 3, 15, 3, 5, 1.2, 0))  # type: ignore[call-overload] # OpenCV's types lack None


def test_flow_is_that_of_pairs(frames: Frames, video: Path) -> None:
    """Any frames can be read, in runs with gaps; the last frame has the flow of the one before."""
    small = np.stack([cv2.resize(frame, (48, 36)) for frame in frames])
    expected = np.stack([*fields(small), list(fields(small))[-1]])
    rule = Resize("short", 36, "opencv")
    info = computed_flow(resample(probe(video), None), rule, "farneback")
    assert (info.channels, info.frames, info.height, info.width) == ("xy", 9, 36, 48)
    assert info.fps == 25
    for wanted in ([*range(9)], [2], [8], [0, 1, 4, 7, 8], [3, 8]):
        actual = read(info, wanted).frames.astype(int)
        # a pixel that OpenCV rounds otherwise moves the flow a little
        assert np.abs(actual - expected[wanted]).mean() < 0.1
        assert actual.std() > 2
    drift = actual[0, 10:26, 12:36, 0].mean()  # 2 of 64 pixels to the right, 1.5 of 48
    assert drift == pytest.approx(127.5 + 1.5 * 255 / 40, abs=1)


def test_frames_that_are_repeated_do_not_move(video: Path) -> None:
    """At twice the frame rate every second pair is one frame twice."""
    info = computed_flow(resample(probe(video), 50), Resize(), "farneback")
    moved = np.abs(read(info).frames[:6].astype(int) - 128).mean((1, 2, 3)) > 0.5
    assert moved.tolist() == [False, True] * 3


def test_one_frame_does_not_move(frames: Frames, tmp_path: Path) -> None:
    """There is no flow between frames of a video of one."""
    one = write_video(tmp_path / "x.mov", frames[:1])
    info = computed_flow(resample(probe(one), None), Resize(), "farneback")
    assert np.unique(read(info).frames).tolist() == [128]


def test_flow_is_kept(video: Path, tmp_path: Path) -> None:
    """All flow is written when one frame is read, and read from there, unless it is of another."""
    samples, keep = resample(probe(video), None), tmp_path / "new" / "x.npy"
    plain = read(computed_flow(samples, Resize(), "farneback")).frames
    info = computed_flow(samples, Resize(), "farneback", keep=keep, video="a")
    assert not keep.exists()
    np.testing.assert_array_equal(read(info, [3]).frames, plain[[3]])
    np.testing.assert_array_equal(np.load(keep), plain)
    written = keep.stat().st_mtime_ns
    np.testing.assert_array_equal(read(info, [8, 1]).frames, plain[[8, 1]])
    assert keep.stat().st_mtime_ns == written
    for other, rule in (("b", Resize()), ("a", Resize("short", 36))):
        info = computed_flow(samples, rule, "farneback", keep=keep, video=other)
        with pytest.raises(VideoError, match=r"of another video, or .* as x\.json there says"):
            read(info, [0])
