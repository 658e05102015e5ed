"""Folders of images and NumPy arrays."""

import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.video_files import numbered, write_video

from i3dzoo.errors import VideoError
from i3dzoo.video import Frames, probe, read


def write_image(path: Path, image: Frames) -> Path:
    """Write a PNG: RGB, or grey if the array has two axes."""
    pixels = "rgb24" if image.ndim == 3 else "gray"
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt = pixels
    encoder.time_base = Fraction(1, 25)
    packets = encoder.encode(av.VideoFrame.from_ndarray(image, format=pixels))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(bytes(packet) for packet in [*packets, *encoder.encode(None)]))
    return path


class TestFolders:
    def test_natural_order(self, tmp_path: Path) -> None:
        """Image 2 comes before image 10, and hidden files are ignored."""
        for number in (10, 2, 1):
            write_image(tmp_path / f"f{number}.png", numbered(11)[number])
        (tmp_path / "._f3.png").write_bytes(b"junk of an archiver")
        video = read(tmp_path)
        np.testing.assert_array_equal(video.frames, numbered(11)[[1, 2, 10]])
        assert video.info.fps is None
        assert video.times is None

    def test_tao_layout(self, tmp_path: Path) -> None:
        """rgb/ holds RGB; u/ and v/ are two channels, horizontal flow first."""
        for number in range(3):
            write_image(tmp_path / "rgb" / f"{number}.png", numbered(3)[number])
            write_image(tmp_path / "u" / f"{number}.png", np.full((8, 12), 100, np.uint8))
            write_image(tmp_path / "v" / f"{number}.png", np.full((8, 12), 200, np.uint8))
        assert read(tmp_path).frames.shape == (3, 48, 64, 3)
        flow = read(tmp_path, channels="xy").frames
        assert flow.shape == (3, 8, 12, 2)
        assert flow[0, 0, 0].tolist() == [100, 200]

    def test_u_and_v_must_match(self, tmp_path: Path) -> None:
        """u/ and v/ with different images are an error with both counts."""
        write_image(tmp_path / "u" / "0.png", np.zeros((8, 8), np.uint8))
        (tmp_path / "v").mkdir()
        with pytest.raises(VideoError, match="u/ holds 1 images and v/ 0"):
            probe(tmp_path, "xy")

    def test_wrong_stream(self, tmp_path: Path) -> None:
        """RGB instead of flow, and the reverse, are errors that say what is expected."""
        write_image(tmp_path / "rgb" / "0.png", numbered(1)[0])
        with pytest.raises(VideoError, match=r"holds no optical flow.*\[T, H, W, 2\]"):
            probe(tmp_path, "xy")
        write_image(tmp_path / "flow" / "u" / "0.png", np.zeros((8, 8), np.uint8))
        with pytest.raises(VideoError, match=r"holds optical flow .*the model takes RGB"):
            probe(tmp_path / "flow")

    def test_no_images(self, tmp_path: Path) -> None:
        """The message lists the expected suffixes."""
        with pytest.raises(VideoError, match=r"holds no images \(\.bmp, \.jpeg"):
            probe(tmp_path)

    def test_odd_size_is_named(self, tmp_path: Path) -> None:
        """The message names an image whose size differs from the first, with both sizes."""
        write_image(tmp_path / "0.png", numbered(1)[0])
        write_image(tmp_path / "1.png", numbered(1, 20, 30)[0])
        with pytest.raises(VideoError, match=r"1\.png: has 30x20 pixels; expected 64x48"):
            read(tmp_path)

    def test_rawframes(self, tmp_path: Path) -> None:
        """img_*, flow_x_* and flow_y_* in one folder are the frames, and two channels of flow."""
        for number in (1, 2):
            write_image(tmp_path / f"img_{number:05d}.png", numbered(3)[number])
            write_image(tmp_path / f"flow_x_{number:05d}.png", np.full((8, 12), 100, np.uint8))
            write_image(tmp_path / f"flow_y_{number:05d}.png", np.full((8, 12), 200, np.uint8))
        np.testing.assert_array_equal(read(tmp_path).frames, numbered(3)[1:])
        assert "optical flow" in probe(tmp_path).warnings[0]
        flow = read(tmp_path, channels="xy").frames
        assert flow.shape == (2, 8, 12, 2)
        assert flow[1, 0, 0].tolist() == [100, 200]

    def test_last_image_is_probed(self, tmp_path: Path) -> None:
        """A last image of another size, such as a thumbnail, is refused before any is used."""
        for number, size in ((1, 48), (2, 48), (3, 24)):
            write_image(tmp_path / f"{number}.png", numbered(1, size, 64)[0])
        with pytest.raises(VideoError, match=r"3\.png: has 64x24 pixels; expected 64x48"):
            probe(tmp_path)

    @pytest.mark.parametrize("data", [b"no image", b"\x89PNG\r\n\x1a\n" + bytes(50)])
    def test_damaged_image_is_named(self, tmp_path: Path, data: bytes) -> None:
        """The message names an image that cannot be decoded."""
        (tmp_path / "0.png").write_bytes(data)
        with pytest.raises(VideoError, match=r"0\.png: is (not a PNG|a damaged image)"):
            probe(tmp_path)


class TestArrays:
    @pytest.mark.parametrize(("channels", "depth"), [("rgb", 3), ("xy", 2)])
    def test_round_trip(self, tmp_path: Path, channels: str, depth: int) -> None:
        """Arrays of RGB and of flow come back unchanged."""
        array = np.random.default_rng(0).integers(0, 256, (5, 8, 9, depth), np.uint8)
        np.save(tmp_path / "a.npy", array)
        video = read(tmp_path / "a.npy", channels=channels)  # type: ignore[arg-type] # parametrized
        np.testing.assert_array_equal(video.frames, array)

    def test_pickled_object_is_refused(self, tmp_path: Path) -> None:
        """An array of Python objects is refused without being unpickled."""
        np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(VideoError, match="pickled Python objects, which can run code"):
            probe(tmp_path / "a.npy")
        (tmp_path / "b.npy").write_bytes(pickle.dumps([1, 2]))
        with pytest.raises(VideoError, match=r"b\.npy: is not a readable \.npy array"):
            probe(tmp_path / "b.npy")

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"(2, 8, 8, 3), }" + b" " * 7, b"(2000000000, 8, 8, 3)}"),  # claims too much
            (b"}", b" "),  # is cut, and NumPy reads it as Python
        ],
    )
    def test_damaged_header(self, tmp_path: Path, old: bytes, new: bytes) -> None:
        """A header that claims more than the file has, or that is cut, is refused."""
        path = tmp_path / "a.npy"
        np.save(path, np.zeros((2, 8, 8, 3), np.uint8))
        path.write_bytes(path.read_bytes().replace(old, new))
        with pytest.raises(VideoError, match=r"is not a readable \.npy array"):
            probe(path)

    def test_wrong_type_or_shape(self, tmp_path: Path) -> None:
        """Wrong axes are errors that say what was found and expected."""
        np.save(tmp_path / "a.npy", np.zeros((4, 8, 8), np.float32))
        with pytest.raises(VideoError, match=r"holds float32 \[4, 8, 8\]; expected uint8"):
            probe(tmp_path / "a.npy")

    def test_wrong_stream(self, tmp_path: Path) -> None:
        """An RGB array or an RGB video instead of flow is an error."""
        np.save(tmp_path / "a.npy", np.zeros((4, 8, 8, 3), np.uint8))
        with pytest.raises(VideoError, match=r"holds RGB frames .* the model takes flow"):
            probe(tmp_path / "a.npy", "xy")
        path = write_video(tmp_path / "a.mov", numbered(3))
        with pytest.raises(VideoError, match="is an RGB video, but the model takes optical flow"):
            probe(path, "xy")
