"""Frames without a container: folders of images, and NumPy arrays."""

import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from i3dzoo.errors import VideoError
from i3dzoo.video import Frames, probe, read

from .video_files import numbered, write_video


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
        """Image 2 comes before image 10, and hidden files are no images."""
        for number in (10, 2, 1):
            write_image(tmp_path / f"f{number}.png", numbered(11)[number])
        (tmp_path / "._f3.png").write_bytes(b"junk of an archiver")
        video = read(tmp_path)
        np.testing.assert_array_equal(video.frames, numbered(11)[[1, 2, 10]])
        assert video.info.fps is None
        assert video.times is None

    def test_tao_layout(self, tmp_path: Path) -> None:
        """rgb/ gives RGB; u/ and v/ give two channels, horizontal flow first."""
        for number in range(3):
            write_image(tmp_path / "rgb" / f"{number}.png", numbered(3)[number])
            write_image(tmp_path / "u" / f"{number}.png", np.full((8, 12), 100, np.uint8))
            write_image(tmp_path / "v" / f"{number}.png", np.full((8, 12), 200, np.uint8))
        assert read(tmp_path).frames.shape == (3, 48, 64, 3)
        flow = read(tmp_path, channels="xy").frames
        assert flow.shape == (3, 8, 12, 2)
        assert flow[0, 0, 0].tolist() == [100, 200]

    def test_u_and_v_must_match(self, tmp_path: Path) -> None:
        """A flow folder whose halves differ is an error with both counts."""
        write_image(tmp_path / "u" / "0.png", np.zeros((8, 8), np.uint8))
        (tmp_path / "v").mkdir()
        with pytest.raises(VideoError, match="u/ holds 1 images and v/ 0"):
            probe(tmp_path, "xy")

    def test_wrong_stream(self, tmp_path: Path) -> None:
        """RGB where flow is wanted, and the reverse, say what is needed."""
        write_image(tmp_path / "rgb" / "0.png", numbered(1)[0])
        with pytest.raises(VideoError, match=r"holds no optical flow.*\[T, H, W, 2\]"):
            probe(tmp_path, "xy")
        write_image(tmp_path / "flow" / "u" / "0.png", np.zeros((8, 8), np.uint8))
        with pytest.raises(VideoError, match=r"holds optical flow .*the model takes RGB"):
            probe(tmp_path / "flow")

    def test_no_images(self, tmp_path: Path) -> None:
        """A folder without images says which it looks for."""
        with pytest.raises(VideoError, match=r"holds no images \(\.bmp, \.jpeg"):
            probe(tmp_path)

    def test_odd_size_is_named(self, tmp_path: Path) -> None:
        """An image of another size than the first is named with both sizes."""
        write_image(tmp_path / "0.png", numbered(1)[0])
        write_image(tmp_path / "1.png", numbered(1, 20, 30)[0])
        with pytest.raises(VideoError, match=r"1\.png: is 30x20 pixels; the first image is 64x48"):
            read(tmp_path)

    @pytest.mark.parametrize("data", [b"no image", b"\x89PNG\r\n\x1a\n" + bytes(50)])
    def test_damaged_image_is_named(self, tmp_path: Path, data: bytes) -> None:
        """An image that does not decode is named."""
        (tmp_path / "0.png").write_bytes(data)
        with pytest.raises(VideoError, match=r"0\.png: is (no PNG|a damaged image)"):
            probe(tmp_path)


class TestArrays:
    @pytest.mark.parametrize(("channels", "depth"), [("rgb", 3), ("xy", 2)])
    def test_round_trip(self, tmp_path: Path, channels: str, depth: int) -> None:
        """Both kinds of array come back as they are."""
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
        with pytest.raises(VideoError, match=r"b\.npy: is no readable \.npy array"):
            probe(tmp_path / "b.npy")

    def test_header_that_claims_too_much(self, tmp_path: Path) -> None:
        """An array shorter than its header says is refused, however much it claims."""
        np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3), np.uint8))
        data = (tmp_path / "a.npy").read_bytes()
        (tmp_path / "a.npy").write_bytes(
            data.replace(b"(2, 8, 8, 3), }" + b" " * 7, b"(2000000000, 8, 8, 3)}")
        )
        with pytest.raises(VideoError, match=r"is no readable \.npy array"):
            probe(tmp_path / "a.npy")

    def test_header_that_is_cut(self, tmp_path: Path) -> None:
        """A header without its closing bracket, which NumPy reads as Python, is refused."""
        np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3), np.uint8))
        data = (tmp_path / "a.npy").read_bytes()
        (tmp_path / "a.npy").write_bytes(data.replace(b"}", b" "))
        with pytest.raises(VideoError, match=r"is no readable \.npy array"):
            probe(tmp_path / "a.npy")

    def test_wrong_type_or_shape(self, tmp_path: Path) -> None:
        """Floats and stray axes are refused with what was found and expected."""
        np.save(tmp_path / "a.npy", np.zeros((1, 4, 8, 8, 2), np.float32))
        with pytest.raises(VideoError, match=r"holds float32 \[1, 4, 8, 8, 2\]; expected uint8"):
            probe(tmp_path / "a.npy")

    def test_wrong_stream(self, tmp_path: Path) -> None:
        """An RGB array where flow is wanted, and an RGB video, say so."""
        np.save(tmp_path / "a.npy", np.zeros((4, 8, 8, 3), np.uint8))
        with pytest.raises(VideoError, match=r"holds RGB frames .* and the model takes flow"):
            probe(tmp_path / "a.npy", "xy")
        path = write_video(tmp_path / "a.mov", numbered(3))
        with pytest.raises(VideoError, match="is an RGB video, and the model takes optical flow"):
            probe(path, "xy")
