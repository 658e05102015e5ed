"""Choosing frames: resampling in time, clips, loops, windows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from i3dzoo.errors import VideoError
from i3dzoo.video import VideoInfo, clips, resample, whole, windows
from i3dzoo.video.sampling import interval_clip


def video(frames: int, fps: float | None, times: list[float] | None = None) -> VideoInfo:
    """Describe a video, with even times unless times are given."""
    stamps = None
    if fps is not None:
        stamps = np.arange(frames) / fps if times is None else np.asarray(times, np.float64)
    return VideoInfo(Path("v.mp4"), "file", "rgb", frames, 48, 64, fps, stamps)


UNEVEN = video(5, 25.0, [0.0, 0.01, 0.02, 0.03, 0.16])


class TestResample:
    @pytest.mark.parametrize(
        ("info", "fps", "expected", "note"),
        [
            (
                video(30, 30),
                25,
                [k * 30 // 25 for k in range(25)],
                "(1.0 s), resampled to 25 at 25",
            ),
            (video(4, 10), 25, [0, 0, 0, 1, 1, 2, 2, 2, 3, 3], "resampled to 10"),  # slow: repeats
            (video(1000, 50), 25, range(0, 1000, 2), "resampled to 500"),  # rounding drops none
            (video(30, 30), None, range(30), "30 frames at 30 fps (1.0 s), taken as they are"),
            (video(500, 25.0), 25, range(500), "taken as they are"),
            (video(500, 24.975), 25, range(500), "taken as they are"),  # within 1 %
            (video(500, 24.8), 25, range(500), "taken as they are"),
            (video(500, 25.2), 25, range(500), "taken as they are"),
            (UNEVEN, 25, [0, 3, 3, 3, 4], "(uneven), resampled to 5 at 25 fps"),
            (video(7, None), 25, range(7), "7 frames, without a frame rate: taken as they are"),
            (video(1, 30), 25, [0], "resampled to 1 "),
        ],
    )
    def test_frames(
        self, info: VideoInfo, fps: float | None, expected: Sequence[int], note: str
    ) -> None:
        """The frame on screen at each sample is taken, and the note says what was done."""
        samples = resample(info, fps)
        assert samples.indices.tolist() == list(expected)
        assert note in samples.note

    def test_duration_and_rate(self) -> None:
        """A resampled video keeps its duration; one without a rate has neither."""
        samples = resample(video(30, 30), 25)
        assert (samples.duration, samples.fps) == (pytest.approx(1), 25)
        samples = resample(video(7, None), 25)
        assert (samples.times, samples.duration, samples.fps) == (None, None, None)

    def test_fractional_rate(self) -> None:
        """Also at 30000/1001 fps, each sample is the last frame at or before its time."""
        info = video(332, 30000 / 1001)
        samples = resample(info, 25)
        assert len(samples) == 276
        assert info.times is not None
        assert samples.times is not None
        chosen = info.times[samples.indices]
        assert (chosen <= samples.times + 1e-6).all()
        assert (samples.times - chosen < 1001 / 30000).all()

    @pytest.mark.parametrize("fps", [0, -1, 1001, float("nan")])
    def test_absurd_rate(self, fps: float) -> None:
        """A rate outside 0 to 1000 is refused."""
        with pytest.raises(VideoError, match="expected a frame rate of 0 to 1000 fps, found"):
            resample(video(10, 25), fps)

    def test_too_many_samples(self) -> None:
        """A tiny frame rate in an index cannot make an endless list of samples."""
        with pytest.raises(VideoError, match="samples at 25 fps; expected at most 5,001"):
            resample(video(10, 1e-6), 25)


class TestClips:
    def test_centre(self) -> None:
        """One clip is the middle of the video, with its times."""
        (clip,) = clips(resample(video(100, 25), 25), 64)
        assert clip.indices.tolist() == list(range(18, 82))
        assert (clip.first, clip.last) == (18, 81)
        assert clip.start == pytest.approx(18 / 25)
        assert clip.end == pytest.approx(82 / 25)
        assert clip.loops == 1

    @pytest.mark.parametrize(
        ("frames", "length", "count", "starts"),
        [
            (100, 40, 4, [0, 20, 40, 60]),
            (66, 64, 10, [0, 1, 2]),  # no more clips than differ
            (64, 64, 3, [0]),
        ],
    )
    def test_spread(self, frames: int, length: int, count: int, starts: list[int]) -> None:
        """Several clips reach from the first to the last frame at even steps, not looped."""
        spread = clips(resample(video(frames, 25), 25), length, count)
        assert [clip.first for clip in spread] == starts
        assert spread[-1].indices.tolist() == list(range(frames - length, frames))
        assert {clip.loops for clip in spread} == {1}

    @pytest.mark.parametrize("count", [5, 63, 64, 65, 1000])
    def test_interval(self, count: int) -> None:
        """Interval sampling takes the frames that NVIDIA TAO's `test_interval_sample` takes."""
        part = count / 64
        expected = [int(part / 2 + part * number) for number in range(64)]
        (clip,) = clips(resample(video(count, 25), 25), 64, 1, "interval")
        assert clip.indices.tolist() == expected
        assert clip.start == pytest.approx(expected[0] / 25)
        assert clip.end == pytest.approx((expected[-1] + 1) / 25)

    def test_several_intervals(self) -> None:
        """Several clips begin at different frames of the first part, no more than there are."""
        samples = resample(video(50, 25), 25)
        spread = clips(samples, 16, 2, "interval")
        assert [clip.indices.tolist() for clip in spread] == [
            list(range(0, 48, 3)),
            list(range(2, 50, 3)),
        ]
        assert len(clips(samples, 16, 9, "interval")) == 3

    def test_random_intervals(self) -> None:
        """A training clip has one frame from each part; a short video has some frames twice."""
        random = np.random.default_rng(0)
        draw = lambda count: int(random.integers(count))  # noqa: E731
        samples = resample(video(50, 25), 25)
        drawn = np.array([interval_clip(samples, 16, draw).indices for _ in range(200)])
        assert (drawn // 3 == np.arange(16)).all()
        assert all(len(set(part)) == 3 for part in drawn.T)
        short = interval_clip(resample(video(5, 25), 25), 16, draw).indices.tolist()
        assert short == sorted(short)
        assert set(short) <= set(range(5))

    def test_loop(self) -> None:
        """A short video is repeated from its first frame until the clip is full."""
        (clip,) = clips(resample(video(3, 25), 25), 8, 5)
        assert clip.indices.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
        assert clip.loops == pytest.approx(8 / 3)
        assert (clip.start, clip.last) == (0, 2)
        assert clip.end == pytest.approx(3 / 25)

    def test_indices_are_of_the_source(self) -> None:
        """After resampling, a clip holds indices of source frames."""
        (clip,) = clips(resample(video(30, 30), 25), 5)
        assert clip.indices.tolist() == [12, 13, 14, 15, 16]

    @pytest.mark.parametrize(("frames", "count"), [(0, 1), (8, 0)])
    def test_nothing_wanted(self, frames: int, count: int) -> None:
        """No clips, or clips without frames, are refused."""
        with pytest.raises(VideoError, match="expected 1 clip and 1 frame or more"):
            clips(resample(video(30, 30), 25), frames, count)

    def test_whole(self) -> None:
        """The whole video is one clip, looped only if it is too short for the network."""
        assert whole(resample(video(79, 25), 25), 9, 224).indices.tolist() == list(range(79))
        short = whole(resample(video(4, 25), 25), 9, 224)
        assert short.indices.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]

    def test_too_long_as_a_whole(self) -> None:
        """A whole video that would not fit into memory is refused, with what to do instead."""
        with pytest.raises(VideoError, match=r"10,000,000 frames; .* at most 2,674: use several"):
            whole(resample(video(10_000_000, 25), 25), 9, 224)


class TestWindows:
    @pytest.mark.parametrize(("frames", "starts"), [(200, [0, 56, 112, 136]), (64, [0])])
    def test_cover_to_the_end(self, frames: int, starts: list[int]) -> None:
        """Windows begin every stride, and the last one ends with the video."""
        covering = windows(resample(video(frames, 25), 25), 64, 56)
        assert [clip.first for clip in covering] == starts
        assert covering[-1].last == frames - 1

    def test_too_long(self) -> None:
        """A window longer than the video is refused."""
        with pytest.raises(VideoError, match=r"windows of 64 frames .* do not fit into 63 frames"):
            windows(resample(video(63, 25), 25), 64, 56)
