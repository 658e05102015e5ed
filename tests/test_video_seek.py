"""Frames by time and by index, without decoding what lies before."""

from pathlib import Path

import av
import numpy as np
import pytest

from i3dzoo.errors import MissingFileError, VideoError
from i3dzoo.video import _container, probe, read, read_at

from .test_video_decode import REAL
from .video_files import numbered, write_video


def long_video(path: Path, frames: int = 300, every: int = 25) -> Path:
    """H.264 with B-frames and a keyframe every second; red counts the frames in steps of 2."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.options = {"g": str(every), "keyint_min": str(every), "bf": "2", "crf": "1"}
        for index in range(frames):
            image = np.full((32, 32, 3), 40 + index % 100 * 2, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds with twelve keyframes."""
    return long_video(tmp_path_factory.mktemp("long") / "a.mp4")


class TestByIndex:
    def test_skips_to_the_keyframe(self, long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """For the frames 10 and 280..283, not 284 are decoded, but those from a keyframe on."""
        info = probe(long)
        places = [index for index, _ in info.keyframes]
        assert places[0] == 0
        assert len(places) >= 12
        whole = read(long).frames
        decoded = 0
        real = _container._decode_packet

        def counted(*arguments: object) -> list[av.VideoFrame]:
            nonlocal decoded
            frames = real(*arguments)  # type: ignore[arg-type] # handed on
            decoded += len(frames)
            return frames

        monkeypatch.setattr(_container, "_decode_packet", counted)
        wanted = [10, 280, 281, 282, 283]
        np.testing.assert_array_equal(read(info, wanted, threads=1).frames, whole[wanted])
        assert decoded < 40

    def test_every_start(self, long: Path) -> None:
        """From whichever frame one starts, the frames are those of decoding it all."""
        info, whole = probe(long), read(long).frames
        for start in range(0, 290, 7):
            wanted = np.arange(start, start + 10)
            np.testing.assert_array_equal(read(info, wanted).frames, whole[wanted])

    def test_a_wrong_index_is_noticed(self, long: Path) -> None:
        """Keyframes that are not where the record says lead to the start, not to wrong frames."""
        info = probe(long)
        object.__setattr__(
            info, "keyframes", tuple((index, pts + 7) for index, pts in info.keyframes)
        )
        np.testing.assert_array_equal(read(info, [260]).frames, read(long).frames[[260]])

    def test_damaged_files_are_decoded_from_their_start(self, long: Path, tmp_path: Path) -> None:
        """Where frames are left out, counting from a keyframe would not give the same index."""
        data = bytearray(long.read_bytes())
        begin = data.index(b"mdat") + len(data) // 3
        data[begin : begin + 2000] = bytes(2000)
        (tmp_path / "a.mp4").write_bytes(data)
        info = probe(tmp_path / "a.mp4")
        assert info.warnings
        assert info.keyframes == ()


class TestByTime:
    @pytest.mark.parametrize("fps", [25.0, 10.0, None])
    @pytest.mark.parametrize("start", [0.0, 0.5, 6.98, 11.0])
    def test_as_decoding_it_all(self, long: Path, start: float, fps: float | None) -> None:
        """The frames on screen at these times, whichever way one gets there."""
        info, whole = probe(long), read(long).frames
        assert info.times is not None
        found = read_at(long, start, 16, fps)
        if fps is None:
            first = int(np.searchsorted(info.times, start + 1e-6, "right")) - 1
            expected = np.arange(first, min(first + 16, 300))
        else:
            moments = start + np.arange(16) / fps
            moments = moments[moments + 1e-6 < 12.0]
            expected = np.searchsorted(info.times, moments + 1e-6, "right") - 1
        np.testing.assert_array_equal(found.frames, whole[expected])
        np.testing.assert_allclose(found.times, info.times[expected], atol=1e-3)

    def test_little_is_decoded(self, long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clip at 11 s takes the group of frames that it is in, not the 275 before."""
        decoded = 0
        real = _container._decode_packet

        def counted(*arguments: object) -> list[av.VideoFrame]:
            nonlocal decoded
            frames = real(*arguments)  # type: ignore[arg-type] # handed on
            decoded += len(frames)
            return frames

        monkeypatch.setattr(_container, "_decode_packet", counted)
        assert len(read_at(long, 11.0, 8, threads=1).frames) == 8
        assert decoded < 60

    def test_variable_rate(self, tmp_path: Path) -> None:
        """A frame stays on screen until the next one comes."""
        stamps = [0, 40, 80, 500, 540, 1000]
        path = write_video(tmp_path / "a.mkv", numbered(6), 25, stamps, "ffv1", "bgr0")
        found = read_at(path, 0.1, 9, 10)
        assert found.frames[:, 0, 0, 0].tolist() == [2, 2, 2, 2, 3, 4, 4, 4, 4]

    def test_the_end(self, long: Path) -> None:
        """What the video has is given; beyond its end there is nothing."""
        assert len(read_at(long, 11.8, 64).frames) == 5
        with pytest.raises(VideoError, match=r"a\.mp4: ends before 12\.5 s"):
            read_at(long, 12.5)

    def test_nonsense(self, long: Path) -> None:
        """Impossible wishes, and files that are not there, are errors."""
        with pytest.raises(VideoError, match=r"64 frames from -1 s at 25\.0 fps are wanted"):
            read_at(long, -1)
        with pytest.raises(MissingFileError, match="no such file"):
            read_at(long.with_name("gone.mp4"), 0)

    @pytest.mark.real_data
    @pytest.mark.parametrize("name", REAL)
    def test_real_clips(self, test_data: Path, name: str) -> None:
        """Every real clip gives by time what it gives by index."""
        path = test_data / "clips" / name
        info = probe(path)
        assert info.times is not None
        assert info.duration is not None
        for start in (0.3, info.duration / 2, info.duration - 0.5):
            moments = start + np.arange(8) / 25
            expected = np.searchsorted(info.times, moments + 1e-6, "right") - 1
            found = read_at(path, start, 8)
            np.testing.assert_array_equal(found.frames, read(info, expected).frames)
