"""Animated WebP, compared with Pillow."""

from pathlib import Path

import numpy as np
import pytest
from helpers.video_files import numbered

from i3dzoo.errors import VideoError
from i3dzoo.video import Frames, probe, read

Image = pytest.importorskip("PIL.Image", reason="Pillow writes the files")


def write(path: Path, frames: Frames, **options: object) -> Path:
    """Write uint8 [T, H, W, 3 or 4] as an animation of 12.5 fps."""
    first, *others = map(Image.fromarray, frames)
    options = {"duration": 80, "lossless": True} | options
    first.save(path, save_all=True, append_images=others, **options)
    return path


def pillow(path: Path) -> Frames:
    """Return the frames that Pillow shows, over white."""
    frames = []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            rgba = np.asarray(image.convert("RGBA")).astype(float)
            alpha = rgba[..., 3:] / 255
            frames.append(np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)))
    return np.stack(frames).astype(np.uint8)


def test_frames_and_times(tmp_path: Path) -> None:
    """A lossless animation returns its frames, and their number, size and rate."""
    info = probe(write(tmp_path / "a.webp", numbered(6)))
    assert (info.frames, info.height, info.width, info.fps) == (6, 48, 64, 12.5)
    assert info.times is not None
    np.testing.assert_allclose(info.times, np.arange(6) * 0.08)
    assert info.notes == ()
    np.testing.assert_array_equal(read(info).frames, numbered(6))
    np.testing.assert_array_equal(read(info, [4, 1]).frames, numbered(6)[[4, 1]])


@pytest.mark.parametrize("lossless", [True, False])
def test_parts_and_transparency(tmp_path: Path, lossless: bool) -> None:
    """Frames that change a part of the canvas, and transparent ones, are drawn as Pillow does."""
    frames = np.zeros((8, 48, 64, 4), np.uint8)
    frames[..., 0], frames[..., 1], frames[..., 2] = np.arange(64) * 3, 80, np.arange(48)[:, None]
    for number, frame in enumerate(frames):
        frame[8:24, number * 4 : number * 4 + 20, 1] = 120
        frame[..., 3] = 255 if number < 4 else np.arange(64) * 4
    path = write(tmp_path / "a.webp", frames, lossless=lossless, quality=90)
    difference = np.abs(read(path).frames.astype(int) - pillow(path))
    # FFmpeg converts the colours of a lossy image a little differently.
    assert difference.mean() < (0.1 if lossless else 2.5)
    assert np.percentile(difference, 99) <= (1 if lossless else 12)


def test_truncated(tmp_path: Path) -> None:
    """The frames that are left are read, with a warning."""
    path = write(tmp_path / "a.webp", numbered(6))
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"ANMF") + 30])
    info = probe(path)
    assert info.truncated
    assert info.warnings == ("the file is truncated; 5 frames can be decoded",)
    np.testing.assert_array_equal(read(info).frames, numbered(5))
    path.write_bytes(data[:40])
    with pytest.raises(VideoError, match=r"a\.webp: none of its frames can be decoded"):
        probe(path)


def test_damaged(tmp_path: Path) -> None:
    """The frames before damage are read, with a warning."""
    path = write(tmp_path / "a.webp", numbered(6))
    data = bytearray(path.read_bytes())
    begin = data.rindex(b"VP8L") + 8
    data[begin : begin + 4] = bytes(4)
    path.write_bytes(data)
    info = probe(path)
    assert (info.frames, info.truncated) == (5, False)
    assert info.warnings == ("the file is damaged; only 5 of 6 frames can be decoded",)


def test_huge_canvas(tmp_path: Path) -> None:
    """A canvas beyond the limit is refused before it is made."""
    path = write(tmp_path / "a.webp", numbered(2))
    data = bytearray(path.read_bytes())
    data[24:30] = b"\xff\xff\x00\xff\xff\x00"
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"frames of 65536x65536 pixels; expected at most"):
        probe(path)


def test_one_image(tmp_path: Path) -> None:
    """A WebP that is not animated is one image."""
    Image.fromarray(numbered(1)[0]).save(tmp_path / "a.webp")
    with pytest.raises(VideoError, match=r"a\.webp: .*one image \(WebP\); pass a folder"):
        probe(tmp_path / "a.webp")
