"""Decoding video files: containers, pixel formats, rotation, and damaged files."""

import os
import re
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.video_files import REAL, numbered, write_video

from i3dzoo.errors import MissingFileError, VideoError
from i3dzoo.video import probe, read, stream


class TestFiles:
    def test_every_frame_comes_back_exactly(self, tmp_path: Path) -> None:
        """A lossless file returns its frames, and their number, size, rate and times."""
        frames = numbered(10)
        info = probe(write_video(tmp_path / "a.mov", frames, fps=20))
        assert (info.frames, info.height, info.width, info.fps) == (10, 48, 64, 20.0)
        assert info.times is not None
        np.testing.assert_allclose(info.times, np.arange(10) / 20)
        assert info.duration == pytest.approx(0.5)
        assert not info.truncated
        assert info.warnings == ()
        np.testing.assert_array_equal(read(info).frames, frames)

    def test_frames_in_any_order(self, tmp_path: Path) -> None:
        """Indices may be in any order and repeat; frames and times follow them."""
        frames = numbered(10)
        path = write_video(tmp_path / "a.mov", frames)
        video = read(path, [7, 2, 2, 9])
        np.testing.assert_array_equal(video.frames, frames[[7, 2, 2, 9]])
        assert video.times is not None
        np.testing.assert_allclose(video.times, np.array([7, 2, 2, 9]) / 25)

    def test_stream_yields_each_frame_once_in_order(self, tmp_path: Path) -> None:
        """The generator sorts and drops repetitions, and names the indices that do not exist."""
        info = probe(write_video(tmp_path / "a.mov", numbered(10)))
        assert [index for index, _ in stream(info, [5, 1, 5, 0])] == [0, 1, 5]
        with pytest.raises(VideoError, match=r"no frames 3\.\.10; expected 0\.\.9"):
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
        """Transparent pixels are drawn over white."""
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

    @pytest.mark.parametrize(
        ("pixels", "codec", "container"),
        [
            ("gray", "ffv1", "mkv"),
            ("gray10le", "ffv1", "mkv"),
            ("yuv420p10le", "ffv1", "mkv"),
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
        """A grey ramp comes back from every format, whatever its range, depth and layout."""
        ramp = np.zeros((3, 32, 48, 3), np.uint8)
        ramp[...] = (np.arange(48) * 5)[:, None]
        path = write_video(tmp_path / f"a.{container}", ramp, codec=codec, pixels=pixels)
        difference = np.abs(read(path).frames.astype(int) - ramp)
        assert difference.max() <= 4
        assert difference.mean() < 2

    def test_pixels_that_cannot_be_converted(self, tmp_path: Path) -> None:
        """The message names a pixel format that FFmpeg cannot convert to RGB."""
        path = write_video(tmp_path / "a.nut", numbered(2), codec="rawvideo", pixels="rgb4")
        with pytest.raises(VideoError, match=r"a\.nut: pixel format rgb4 cannot be converted"):
            read(path)

    def test_pixels_that_are_not_square(self, tmp_path: Path) -> None:
        """An anamorphic video is shown at its aspect, and a remark has both sizes."""
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            out = container.add_stream("libx264", rate=25)
            out.height, out.width, out.pix_fmt = 48, 64, "yuv420p"
            out.codec_context.sample_aspect_ratio = Fraction(4, 3)
            frame = av.VideoFrame.from_ndarray(numbered(1)[0], format="rgb24")
            container.mux(out.encode(frame))
            container.mux(out.encode(None))
        info = probe(path)
        assert (info.height, info.width) == (48, 85)
        assert "not square (4:3); frames of 64x48 pixels are shown at 85x48" in info.remarks[0]
        assert info.warnings == ()
        assert read(info).frames.shape == (1, 48, 85, 3)

    @pytest.mark.parametrize(("transfer", "name"), [(16, r"HDR \(PQ\)"), (18, r"HDR \(HLG\)")])
    def test_high_dynamic_range(self, tmp_path: Path, transfer: int, name: str) -> None:
        """A remark says that the colours of an HDR video are not those of the training data."""
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            out = container.add_stream("libx264", rate=25)
            out.height, out.width, out.pix_fmt = 48, 64, "yuv420p"
            out.codec_context.color_trc, out.codec_context.color_primaries = transfer, 9
            frame = av.VideoFrame.from_ndarray(numbered(1)[0], format="rgb24")
            container.mux(out.encode(frame))
            container.mux(out.encode(None))
        (remark,) = probe(path).remarks
        assert re.search(f"{name} colours, which are not converted", remark)

    def test_repeated_frames(self) -> None:
        """A packet of Theora without bytes, also the last one, shows the frame before it again.

        FFmpeg made the file of 10 frames, the last 6 of which are the same.
        """
        info = probe(Path(__file__).with_name("repeats.ogv"))
        assert (info.frames, info.fps, info.notes) == (10, 25.0, ())
        assert info.times is not None
        np.testing.assert_allclose(info.times, np.arange(10) / 25)
        frames = read(info).frames
        assert (frames[4:] == frames[4]).all()
        assert (frames[3] != frames[4]).any()

    def test_a_stream_that_appears_on_the_way(self) -> None:
        """A damaged transport stream of 24 frames declares another stream after its beginning.

        PyAV itself fails at the end of the file, when all packets have been read.
        """
        info = probe(Path(__file__).with_name("late_stream.ts"))
        assert info.frames == 23
        assert read(info).frames.shape == (23, 40, 48, 3)

    def test_memory_does_not_grow_with_the_video(self, tmp_path: Path) -> None:
        """Reading 3 of 300 frames of 640x480 (276 MB) holds little more than those 3."""
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

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            np.random.default_rng(0).bytes(50_000),
            b"a line of text\n" * 1000,
            b"#EXTM3U\n#EXTINF:10,\nother.ts\n#EXT-X-ENDLIST\n",
            b"ffconcat version 1.0\nfile other.mp4\n",
        ],
        ids=["empty", "noise", "text", "playlist", "concat"],
    )
    def test_not_a_video(self, tmp_path: Path, data: bytes) -> None:
        """Empty files, noise, text and playlists are not videos; the message is one line."""
        path = tmp_path / "a.mp4"
        path.write_bytes(data)
        message = r"a\.mp4: is not a video that FFmpeg can read" if data else r"a\.mp4: is empty$"
        with pytest.raises(VideoError, match=message) as caught:
            probe(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("start", "meaning"),
        [
            (b"#EXTM3U\n#EXTINF:10,\nother.ts\n", "it is a playlist, .*ffmpeg -i ADDRESS"),
            (b"\xef\xbb\xbf#EXTM3U\n", "it is a playlist"),
            (b"ffconcat version 1.0\nfile other.mp4\n", "it is a playlist"),
            (b'<?xml version="1.0"?>\n<MPD xmlns=', "it is a playlist"),
            (b"ID3\x04" + bytes(50), r"it is audio \(MP3\), .*pass the video"),
            (b"\xff\xfb\x90\x64" + bytes(50), r"it is audio \(MP3\)"),
            (b"RIFF\x00\x01\x00\x00WAVEfmt ", r"it is audio \(WAV\)"),
            (b"\x89PNG\r\n\x1a\n" + bytes(50), r"it is one image \(PNG\); pass a folder"),
            (b"\xff\xd8\xff\xe0" + bytes(50), r"it is one image \(JPEG\)"),
            (b"PK\x03\x04" + bytes(50), r"it is an archive \(ZIP\); extract it first"),
            (b"\x93NUMPY\x01\x00", r"it is a NumPy array; give its name the suffix \.npy"),
            (b"\n<!DOCTYPE html><html>", "it is a web page.*download the video itself"),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                "it is a pointer of Git LFS; run git lfs pull",
            ),
        ],
    )
    def test_what_it_is_instead(self, tmp_path: Path, start: bytes, meaning: str) -> None:
        """The message says what the file is, and what to do."""
        (tmp_path / "a.mp4").write_bytes(start)
        with pytest.raises(VideoError, match=rf"a\.mp4: is not a video .*: {meaning}") as caught:
            probe(tmp_path / "a.mp4")
        assert "complete" not in str(caught.value)

    def test_sound_only(self, tmp_path: Path) -> None:
        """The message says what a file without a video stream holds."""
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            out = container.add_stream("aac", rate=44100)
            sound = np.zeros((1, 4096), np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            frame.rate = 44100
            container.mux(out.encode(frame))
            container.mux(out.encode(None))
        with pytest.raises(VideoError, match=r"a\.mp4: holds no video stream, only audio$"):
            probe(path)

    def test_unknown_codec(self, tmp_path: Path) -> None:
        """An unknown codec is an error, not a traceback, which a fuzzer once found."""
        path = write_video(tmp_path / "a.mov", numbered(3))
        path.write_bytes(path.read_bytes().replace(b"png ", b"p?g "))
        with pytest.raises(VideoError, match=r"a\.mov: .* codec that FFmpeg does not know"):
            probe(path)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
    def test_no_permission(self, tmp_path: Path) -> None:
        """A file without read permission is an error."""
        path = write_video(tmp_path / "a.mov", numbered(3))
        path.chmod(0)
        with pytest.raises(VideoError, match="Permission denied"):
            probe(path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_pipe(self, tmp_path: Path) -> None:
        """A named pipe is refused instead of waited for."""
        os.mkfifo(tmp_path / "a.mp4")
        with pytest.raises(VideoError, match="expected a regular file"):
            probe(tmp_path / "a.mp4")

    def test_replaced_by_a_shorter_file(self, tmp_path: Path) -> None:
        """A file that changes between probing and reading is an error, not fewer frames."""
        info = probe(write_video(tmp_path / "a.mov", numbered(10)))
        write_video(tmp_path / "a.mov", numbered(4))
        with pytest.raises(VideoError, match="frame 8 is missing; the file has changed"):
            read(info, [0, 8])

    def test_a_lost_packet_of_an_avi(self, tmp_path: Path) -> None:
        """Packets behind damage are read, and the warning says how many were lost where."""
        path = write_video(tmp_path / "a.avi", numbered(20), codec="mjpeg", pixels="yuvj420p")
        data = bytearray(path.read_bytes())
        for number, count in ((10, 1), (12, 2)):
            chunks = [match.start() for match in re.finditer(b"00dc", data[: data.index(b"idx1")])]
            for begin in chunks[number : number + count]:
                data[begin : begin + 20] = b"\xfe" * 20
        path.write_bytes(data)
        info = probe(path)
        assert info.frames == 17
        (warning,) = info.warnings
        assert "3 of 20 frames or packets were left out at 2 places, the first near" in warning
        assert re.search(r"near frame (9|10) \(0\.4 s\)", warning)
        assert not info.truncated
        red = read(info).frames[:, 24, 32, 0].astype(int)
        lost = {10, 13, 14}
        np.testing.assert_allclose(red, [i for i in range(20) if i not in lost], atol=3)


CARTWHEEL = "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"


@pytest.mark.real_data
class TestRealClips:
    @pytest.mark.parametrize("name", REAL)
    def test_decodes(self, test_data: Path, name: str) -> None:
        """Every real clip decodes completely, also where its metadata is not UTF-8 (HMDB51)."""
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
        """Frames are counted at an even rate where B-frames (Xvid) have times out of order."""
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
        """A file cut in half returns the frames that it still has, with a warning."""
        whole = read(test_data / "clips" / name).frames
        data = (test_data / "clips" / name).read_bytes()
        path = tmp_path / Path(name).name
        path.write_bytes(data[: len(data) // 2])
        info = probe(path)
        assert info.truncated
        assert info.warnings == (f"the file is truncated; {info.frames} frames can be decoded",)
        assert least <= info.frames < len(whole)
        kept = read(info).frames[:-1]
        np.testing.assert_array_equal(kept, whole[: len(kept)])

    def test_damage_in_the_middle(self, test_data: Path, tmp_path: Path) -> None:
        """Destroyed frames are left out and counted."""
        data = bytearray((test_data / "clips" / "arm_wrestling.mp4").read_bytes())
        for place in range(200_000, 204_000):
            data[place] ^= 0x5A
        path = tmp_path / "damaged.mp4"
        path.write_bytes(data)
        info = probe(path)
        assert 270 <= info.frames < 280
        assert info.warnings[0].startswith("the file is damaged; ")
        assert len(read(info).frames) == info.frames

    def test_damage_in_the_middle_of_an_avi(self, test_data: Path, tmp_path: Path) -> None:
        """The frames after the damage are those of the whole file, and the loss is counted."""
        whole = test_data / "clips" / "v_SoccerJuggling_g23_c01.avi"
        data = bytearray(whole.read_bytes())
        data[200_000:240_000] = bytes(40_000)
        path = tmp_path / "damaged.avi"
        path.write_bytes(data)
        info = probe(path)
        lost = 240 - info.frames
        assert 15 <= lost <= 30
        assert not info.truncated
        assert (
            f"damaged; {lost} of 240 frames or packets were left out near frame" in info.warnings[0]
        )
        last = read(whole, [239]).frames
        np.testing.assert_array_equal(read(info, [info.frames - 1]).frames, last)

    def test_damage_is_the_same_each_time(self, test_data: Path, tmp_path: Path) -> None:
        """Probing and reading a damaged file always find the same frames."""
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
        """An MP4 without its end has lost its index and cannot be read."""
        data = (test_data / "clips" / "arm_wrestling.mp4").read_bytes()
        (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
        with pytest.raises(VideoError, match="check that the file is complete"):
            probe(tmp_path / "a.mp4")
