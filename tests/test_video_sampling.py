"""Which frames: resampling by time, clips, loops, windows."""

from pathlib import Path

import numpy as np
import pytest

from i3dzoo.errors import VideoError
from i3dzoo.video import VideoInfo, clips, resample, sampling, whole, windows


def video(frames: int, fps: float | None, times: list[float] | None = None) -> VideoInfo:
    """A record of a video, evenly timed unless times are given."""
    stamps = None
    if fps is not None:
        stamps = np.arange(frames) / fps if times is None else np.asarray(times, np.float64)
    return VideoInfo(Path("v.mp4"), "file", "rgb", frames, 48, 64, fps, stamps)


class TestResample:
    def test_thirty_to_twenty_five(self) -> None:
        """Every sixth frame of 30 fps is left out: the one on screen at k / 25 s is taken."""
        samples = resample(video(30, 30), 25)
        expected = [k * 30 // 25 for k in range(25)]
        assert samples.indices.tolist() == expected
        assert samples.duration == pytest.approx(1)
        assert samples.fps == 25
        assert samples.note == "30 frames at 30 fps (1.0 s), resampled to 25 at 25 fps"

    def test_fractional_rate(self) -> None:
        """At 30000/1001 fps too, each sample is the last frame at or before its time."""
        info = video(332, 30000 / 1001)
        samples = resample(info, 25)
        assert len(samples) == 276
        assert info.times is not None
        assert samples.times is not None
        chosen = info.times[samples.indices]
        assert (chosen <= samples.times + 1e-6).all()
        assert (samples.times - chosen < 1001 / 30000).all()

    def test_slow_video_repeats_frames(self) -> None:
        """A 10 fps video keeps its speed at 25 fps by showing frames two or three times."""
        assert resample(video(4, 10), 25).indices.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]

    def test_exact_multiples(self) -> None:
        """From 50 to 25 fps every second frame is taken; rounding drops none."""
        assert resample(video(1000, 50), 25).indices.tolist() == list(range(0, 1000, 2))

    def test_native(self) -> None:
        """Without a rate asked for, all frames are taken."""
        samples = resample(video(30, 30), None)
        assert samples.indices.tolist() == list(range(30))
        assert samples.note == "30 frames at 30 fps (1.0 s), taken as they are"

    @pytest.mark.parametrize("fps", [25.0, 24.975, 24.8, 25.2])
    def test_same_rate_within_one_percent(self, fps: float) -> None:
        """No frame is dropped or repeated for a difference of 1 %."""
        samples = resample(video(500, fps), 25)
        assert samples.indices.tolist() == list(range(500))
        assert samples.note.endswith("taken as they are")

    def test_variable_rate_follows_the_timestamps(self) -> None:
        """Of uneven frames that average 25 fps, the one on screen is taken each time."""
        info = video(5, 25.0, [0.0, 0.01, 0.02, 0.03, 0.16])
        samples = resample(info, 25)
        assert samples.indices.tolist() == [0, 3, 3, 3, 4]
        assert "(uneven), resampled to 5 at 25 fps" in samples.note

    def test_no_rate(self) -> None:
        """Frames of a folder are taken as they are, whatever the rate."""
        samples = resample(video(7, None), 25)
        assert samples.indices.tolist() == list(range(7))
        assert (samples.times, samples.duration, samples.fps) == (None, None, None)
        assert samples.note == "7 frames, without a frame rate: taken as they are"

    def test_one_frame(self) -> None:
        """A video of one frame gives at least one sample."""
        assert resample(video(1, 30), 25).indices.tolist() == [0]

    @pytest.mark.parametrize("fps", [0, -1, 1001, float("nan")])
    def test_absurd_rate(self, fps: float) -> None:
        """A rate outside 0 to 1000 is refused."""
        with pytest.raises(VideoError, match="is no frame rate to sample at; expected 0 to 1000"):
            resample(video(10, 25), fps)


class TestClips:
    def test_centre(self) -> None:
        """One clip is the middle of the video, and knows its times."""
        (clip,) = clips(resample(video(100, 25), 25), 64)
        assert clip.indices.tolist() == list(range(18, 82))
        assert (clip.first, clip.last) == (18, 81)
        assert clip.start == pytest.approx(18 / 25)
        assert clip.end == pytest.approx(82 / 25)
        assert clip.loops == 1

    def test_spread(self) -> None:
        """Several clips reach from the first frame to the last at even steps."""
        found = clips(resample(video(100, 25), 25), 40, 4)
        assert [clip.first for clip in found] == [0, 20, 40, 60]
        assert found[-1].indices[-1] == 99

    def test_no_more_than_differ(self) -> None:
        """A video with room for three starts gives three clips, not ten with copies."""
        assert [clip.first for clip in clips(resample(video(66, 25), 25), 64, 10)] == [0, 1, 2]

    def test_loop(self) -> None:
        """A short video is played again from its first frame until the clip is full."""
        (clip,) = clips(resample(video(3, 25), 25), 8, 5)
        assert clip.indices.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
        assert clip.loops == pytest.approx(8 / 3)
        assert (clip.start, clip.last) == (0, 2)
        assert clip.end == pytest.approx(3 / 25)

    def test_exact_fit(self) -> None:
        """A video as long as a clip is that clip, not looped."""
        (clip,) = clips(resample(video(64, 25), 25), 64, 3)
        assert clip.indices.tolist() == list(range(64))
        assert clip.loops == 1

    def test_indices_are_of_the_source(self) -> None:
        """After resampling a clip holds source frames."""
        (clip,) = clips(resample(video(30, 30), 25), 5)
        assert clip.indices.tolist() == [12, 13, 14, 15, 16]

    @pytest.mark.parametrize(("frames", "count"), [(0, 1), (8, 0)])
    def test_nothing_wanted(self, frames: int, count: int) -> None:
        """No clips, or clips without frames, are refused."""
        with pytest.raises(VideoError, match="expected 1 or more of both"):
            clips(resample(video(30, 30), 25), frames, count)

    def test_whole(self) -> None:
        """The whole video is one clip; only what is too short for the network is looped."""
        assert whole(resample(video(79, 25), 25), 9).indices.tolist() == list(range(79))
        assert whole(resample(video(4, 25), 25), 9).indices.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]


class TestWindows:
    def test_cover_to_the_end(self) -> None:
        """Windows begin every stride, and the last one ends with the video."""
        found = windows(resample(video(200, 25), 25), 64, 56)
        assert [clip.first for clip in found] == [0, 56, 112, 136]
        assert found[-1].last == 199

    def test_one_window(self) -> None:
        """A video of one window's length has one."""
        assert [clip.first for clip in windows(resample(video(64, 25), 25), 64, 56)] == [0]

    def test_too_long(self) -> None:
        """A window longer than the video is refused."""
        with pytest.raises(VideoError, match="windows of 64 frames every 56 do not fit 63 frames"):
            windows(resample(video(63, 25), 25), 64, 56)


def test_no_frame_is_decoded() -> None:
    """All of this works on records of files that do not exist."""
    assert not video(1, 25).path.exists()
    assert sampling.SAME_RATE == 0.01
