"""Decoding: every container, folders, arrays, and everything that is wrong with files."""

import os
import struct
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from i3dzoo.errors import MissingFileError, VideoError
from i3dzoo.video import probe, read, stream

from .video_files import numbered, write_video


class TestFiles:
    def test_every_frame_comes_back_exactly(self, tmp_path: Path) -> None:
        """A lossless file gives back its frames, their number, size, rate and times."""
        frames = numbered(10)
        info = probe(write_video(tmp_path / "a.mov", frames, fps=20))
        assert (info.frames, info.height, info.width, info.fps) == (10, 48, 64, 20.0)
        assert info.times is not None
        np.testing.assert_allclose(info.times, np.arange(10) / 20)
        assert info.duration == pytest.approx(0.5)
        assert not info.truncated
        assert info.warnings == ()
        np.testing.assert_array_equal(read(info).frames, frames)

    def test_chosen_frames_in_the_order_asked(self, tmp_path: Path) -> None:
        """Indices may be in any order and repeat; frames and times come as asked."""
        frames = numbered(10)
        path = write_video(tmp_path / "a.mov", frames)
        video = read(path, [7, 2, 2, 9])
        np.testing.assert_array_equal(video.frames, frames[[7, 2, 2, 9]])
        assert video.times is not None
        np.testing.assert_allclose(video.times, np.array([7, 2, 2, 9]) / 25)

    def test_stream_yields_each_frame_once_in_order(self, tmp_path: Path) -> None:
        """The generator sorts and drops repetitions."""
        info = probe(write_video(tmp_path / "a.mov", numbered(10)))
        assert [index for index, _ in stream(info, [5, 1, 5, 0])] == [0, 1, 5]

    def test_index_outside_the_video(self, tmp_path: Path) -> None:
        """A frame that is not there is an error that tells how many there are."""
        info = probe(write_video(tmp_path / "a.mov", numbered(10)))
        with pytest.raises(VideoError, match=r"frames 3\.\.10 are wanted; it has 10"):
            stream(info, [3, 10])

    def test_variable_frame_rate(self, tmp_path: Path) -> None:
        """Times are those of the frames, not multiples of an average."""
        stamps = [0, 40, 80, 500, 540, 1000]
        path = write_video(tmp_path / "a.mkv", numbered(6), 25, stamps, "ffv1", "bgr0")
        info = probe(path)
        assert info.times is not None
        np.testing.assert_allclose(info.times, np.array(stamps) / 1000)
        assert info.fps == pytest.approx(5.0)

    @pytest.mark.parametrize(("quarter", "matrix"), [(3, (0, 1, -1, 0)), (2, (-1, 0, 0, -1))])
    def test_rotation_is_applied(
        self, tmp_path: Path, quarter: int, matrix: tuple[int, int, int, int]
    ) -> None:
        """A phone's display matrix turns frames upright; np.rot90 turns against the clock."""
        frames = numbered(3)
        frames[:, :10, :20] = 255
        path = write_video(tmp_path / "a.mov", frames)
        data = bytearray(path.read_bytes())
        begin = data.index(b"tkhd") + 44  # past the type, 24 bytes of fields, 16 of other ones
        a, b, c, d = (value << 16 for value in matrix)
        data[begin : begin + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
        info = probe(path)
        expected = np.rot90(frames, quarter, axes=(1, 2))
        assert (info.height, info.width) == expected.shape[1:3]
        np.testing.assert_array_equal(read(info).frames, expected)

    def test_transparent_pixels_are_white(self, tmp_path: Path) -> None:
        """Alpha is laid over white."""
        rgba = np.zeros((1, 16, 16, 4), np.uint8)
        rgba[0, :, 8:, 3] = 255
        path = tmp_path / "a.mov"
        with av.open(str(path), "w") as container:
            out = container.add_stream("png", rate=25)
            out.height, out.width, out.pix_fmt = 16, 16, "rgba"
            container.mux(out.encode(av.VideoFrame.from_ndarray(rgba[0], format="rgba")))
            container.mux(out.encode(None))
        frame = read(path).frames[0]
        assert (frame[:, :8] == 255).all()
        assert (frame[:, 8:] == 0).all()

    def test_ten_bit_video(self, tmp_path: Path) -> None:
        """Pixel formats of more than 8 bits become 8-bit RGB."""
        grey = np.full((3, 32, 32, 3), 128, np.uint8)
        path = write_video(tmp_path / "a.mkv", grey, codec="ffv1", pixels="yuv420p10le")
        assert np.abs(read(path).frames.astype(int) - 128).max() <= 2

    @pytest.mark.parametrize(
        ("pixels", "codec", "container"),
        [
            ("gray", "ffv1", "mkv"),
            ("gray10le", "ffv1", "mkv"),
            ("yuv411p", "ffv1", "mkv"),
            ("yuv422p10le", "ffv1", "mkv"),
            ("yuv444p12le", "ffv1", "mkv"),
            ("yuva420p", "ffv1", "mkv"),
            ("rgb48le", "ffv1", "mkv"),
            ("rgba64le", "ffv1", "mkv"),
            ("ya8", "ffv1", "mkv"),
            ("uyvy422", "rawvideo", "nut"),
            ("gbrp", "rawvideo", "nut"),
            ("yuvj420p", "mjpeg", "avi"),  # of the full range
        ],
    )
    def test_odd_pixel_formats(
        self, tmp_path: Path, pixels: str, codec: str, container: str
    ) -> None:
        """A grey ramp comes back from whatever format: range, depth and layout are understood."""
        ramp = np.zeros((3, 32, 48, 3), np.uint8)
        ramp[...] = (np.arange(48) * 5)[:, None]
        path = write_video(tmp_path / f"a.{container}", ramp, codec=codec, pixels=pixels)
        difference = np.abs(read(path).frames.astype(int) - ramp)
        assert difference.max() <= 4
        assert difference.mean() < 2

    def test_pixels_that_cannot_be_converted(self, tmp_path: Path) -> None:
        """A format that FFmpeg cannot turn into RGB is named."""
        path = write_video(tmp_path / "a.nut", numbered(2), codec="rawvideo", pixels="rgb4")
        with pytest.raises(VideoError, match=r"a\.nut: pixels of the format rgb4 cannot be conv"):
            read(path)

    def test_memory_does_not_grow_with_the_video(self, tmp_path: Path) -> None:
        """Of 300 frames of 640x480 (276 MB), reading 3 holds little more than those 3."""
        frames = np.broadcast_to(np.full((480, 640, 3), 90, np.uint8), (300, 480, 640, 3))
        path = write_video(tmp_path / "a.mp4", frames, codec="mpeg4", pixels="yuv420p")
        tracemalloc.start()
        try:
            video = read(path, [10, 150, 290])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert video.info.frames == 300
        assert peak < 8_000_000


class TestBadFiles:
    def test_missing(self, tmp_path: Path) -> None:
        """A missing path is a MissingFileError that names it."""
        with pytest.raises(MissingFileError, match=r"gone\.mp4: no such file or folder$"):
            probe(tmp_path / "gone.mp4")

    def test_empty(self, tmp_path: Path) -> None:
        """A file of no bytes is called empty."""
        path = tmp_path / "a.mp4"
        path.touch()
        with pytest.raises(VideoError, match=r"a\.mp4: is empty$"):
            probe(path)

    @pytest.mark.parametrize(
        "data",
        [
            np.random.default_rng(0).bytes(50_000),
            b"a line of text\n" * 1000,
            b"#EXTM3U\n#EXTINF:10,\nother.ts\n#EXT-X-ENDLIST\n",
            b"ffconcat version 1.0\nfile other.mp4\n",
        ],
        ids=["noise", "text", "playlist", "concat"],
    )
    def test_not_a_video(self, tmp_path: Path, data: bytes) -> None:
        """Noise, text and lists that lead to other files are no videos; the message is a line."""
        path = tmp_path / "a.mp4"
        path.write_bytes(data)
        with pytest.raises(VideoError, match=r"a\.mp4: is no video that FFmpeg can read") as caught:
            probe(path)
        assert "\n" not in str(caught.value)

    def test_sound_only(self, tmp_path: Path) -> None:
        """A file without a video stream says what it holds."""
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            out = container.add_stream("aac", rate=44100)
            sound = np.zeros((1, 4096), np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            frame.rate = 44100
            container.mux(out.encode(frame))
            container.mux(out.encode(None))
        with pytest.raises(VideoError, match=r"a\.mp4: holds no video, only audio$"):
            probe(path)

    def test_unknown_codec(self, tmp_path: Path) -> None:
        """A video whose codec nobody knows says so; a fuzzer found it to end in a traceback."""
        path = write_video(tmp_path / "a.mov", numbered(3))
        path.write_bytes(path.read_bytes().replace(b"png ", b"p?g "))
        with pytest.raises(VideoError, match=r"a\.mov: its video is of a codec that FFmpeg does"):
            probe(path)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
    def test_no_permission(self, tmp_path: Path) -> None:
        """A file that may not be read says so."""
        path = write_video(tmp_path / "a.mov", numbered(3))
        path.chmod(0)
        with pytest.raises(VideoError, match="permission denied"):
            probe(path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_pipe(self, tmp_path: Path) -> None:
        """A named pipe is refused instead of waited for."""
        os.mkfifo(tmp_path / "a.mp4")
        with pytest.raises(VideoError, match="is no regular file"):
            probe(tmp_path / "a.mp4")

    def test_replaced_by_a_shorter_file(self, tmp_path: Path) -> None:
        """A file that changed between probing and reading is an error, not fewer frames."""
        info = probe(write_video(tmp_path / "a.mov", numbered(10)))
        write_video(tmp_path / "a.mov", numbered(4))
        with pytest.raises(VideoError, match="frame 8 is gone; the file changed"):
            read(info, [0, 8])


REAL = {
    "R6llTwEh07w.mp4": (303, 340, 256, 30),
    "RATRACE_wave_f_nm_np1_fr_goo_37.avi": (72, 560, 240, 30),
    "SOX5yA1l24A.mp4": (332, 340, 256, 29.97),
    "SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi": (74, 320, 240, 30),
    "TrumanShow_wave_f_nm_np1_fr_med_26.avi": (48, 432, 240, 30),
    "WUzgd7C1pWA.mp4": (327, 340, 256, 29.97),
    "arm_wrestling.mp4": (280, 340, 256, 28),
    "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi": (83, 320, 240, 30),
    "v_CricketShot_g04_c01_flow.gif": (79, 224, 224, 25),
    "v_CricketShot_g04_c01_rgb.gif": (79, 224, 224, 25),
    "v_SoccerJuggling_g23_c01.avi": (240, 320, 240, 29.97),
    "v_SoccerJuggling_g24_c01.avi": (251, 320, 240, 29.97),
}
CARTWHEEL = "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"


@pytest.mark.real_data
class TestRealClips:
    @pytest.mark.parametrize("name", REAL)
    def test_decodes(self, test_data: Path, name: str) -> None:
        """Every real clip decodes whole, HMDB51's non-UTF-8 metadata and all."""
        frames, width, height, fps = REAL[name]
        info = probe(test_data / "clips" / name)
        assert (info.frames, info.width, info.height) == (frames, width, height)
        assert info.fps == pytest.approx(fps, abs=0.001)
        assert not info.truncated
        assert info.warnings == ()
        last = read(info, [0, frames - 1]).frames
        assert last.shape == (2, height, width, 3)
        assert last.std() > 3

    def test_avi_timestamps_are_replaced_by_counting(self, test_data: Path) -> None:
        """Xvid's B-frames carry times out of order; the frames are evenly spaced all the same."""
        info = probe(test_data / "clips" / CARTWHEEL)
        assert info.times is not None
        np.testing.assert_allclose(info.times, np.arange(83) / 30)

    @pytest.mark.parametrize(
        ("name", "least"),
        [
            (CARTWHEEL, 30),
            ("v_SoccerJuggling_g23_c01.avi", 110),
            ("v_CricketShot_g04_c01_rgb.gif", 30),
        ],
    )
    def test_half_a_file(self, test_data: Path, tmp_path: Path, name: str, least: int) -> None:
        """A file cut in half gives the frames that are there, and a warning."""
        whole = read(test_data / "clips" / name).frames
        data = (test_data / "clips" / name).read_bytes()
        path = tmp_path / Path(name).name
        path.write_bytes(data[: len(data) // 2])
        info = probe(path)
        assert info.truncated
        assert info.warnings == (
            f"the file ends early; the {info.frames} frames that are there are used",
        )
        assert least <= info.frames < len(whole)
        kept = read(info).frames[:-1]
        np.testing.assert_array_equal(kept, whole[: len(kept)])

    def test_damage_in_the_middle(self, test_data: Path, tmp_path: Path) -> None:
        """Frames that damage destroyed are left out and counted."""
        data = bytearray((test_data / "clips" / "arm_wrestling.mp4").read_bytes())
        for place in range(200_000, 204_000):
            data[place] ^= 0x5A
        path = tmp_path / "damaged.mp4"
        path.write_bytes(data)
        info = probe(path)
        assert 270 <= info.frames < 280
        assert info.warnings[0].startswith("the file is damaged; ")
        assert len(read(info).frames) == info.frames

    def test_damage_is_the_same_each_time(self, test_data: Path, tmp_path: Path) -> None:
        """A damaged file has the frames that it was counted to have, however often it is read."""
        whole = (test_data / "clips" / "arm_wrestling.mp4").read_bytes()
        random = np.random.default_rng(0)
        for number in range(6):
            data = bytearray(whole)
            for place in random.integers(10_000, len(data) - 10_000, 50):
                data[place] ^= 0xFF
            path = tmp_path / f"{number}.mp4"
            path.write_bytes(data)
            info = probe(path)
            assert info.warnings
            ends = [0, info.frames - 1]
            np.testing.assert_array_equal(read(info, ends).frames, read(info, ends).frames)
            assert probe(path).frames == info.frames

    def test_mp4_without_its_index(self, test_data: Path, tmp_path: Path) -> None:
        """An MP4 that lost its end lost its index too and cannot be read."""
        data = (test_data / "clips" / "arm_wrestling.mp4").read_bytes()
        (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
        with pytest.raises(VideoError, match="check that the file is whole"):
            probe(tmp_path / "a.mp4")
